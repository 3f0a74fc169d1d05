"""What a run moves between processes, from its events; and workers that follow their queue."""

import math
from collections.abc import Sequence

import numpy as np

from studyguide.approaches import APPROACHES
from studyguide.record.report import RunReport
from studyguide.tiles import grid
from studyguide_course.costs import image_shapes

# Stages in which pixels leave or enter a process, by kind of queue: with the halo (1) or without.
ROADS = {
    "list": {"enqueue": 1, "wait": 1, "transfer": 0, "assemble": 0},
    "stream": {"split": 0, "wait": 1, "transfer": 0, "assemble": 0},
}


def moved(report: RunReport) -> int:
    """Bytes of pixels that left or entered a process of a run; headers are left out."""
    road, shapes = ROADS.get(APPROACHES[report.approach].queue, {}), image_shapes(report)
    total = 0
    for event in report.timeline.events:
        if event.stage in road and (event.tile >= 0 or event.stage == "split"):
            height, width, *channels = shapes[event.image]
            if event.tile >= 0:
                tile = grid(height, width, report.settings["tile_size"])[event.tile]
                height, width = tile.height, tile.width
            halo = road[event.stage] * (report.settings["kernel_size"] - 1)
            total += (height + halo) * (width + halo) * math.prod(channels)
    return total


def wanted(depths: Sequence[float], per_worker: float, least: int, most: int, calm: int) -> int:
    """Workers for a queue, as KEDA and the HorizontalPodAutoscaler behind it reckon.

    `depths` has a depth of the queue for each poll, the newest last. Workers come at once, and go
    when no depth of the last `calm` polls calls for them either.
    """
    calls = [math.ceil(depth / per_worker) for depth in depths[-calm - 1 :]]
    return min(most, max(least, *calls))


def fleet(
    arriving: Sequence[float], rate: float, start_s: float, poll_s: int = 15, **policy: float
) -> tuple[list[float], list[int], int]:
    """Simulate workers that do `rate` tiles a second each, `start_s` seconds after they are wanted.

    `arriving` has the tiles of each second, `policy` the other arguments of `wanted`. Returns for
    each second the tiles queued and the workers paid for, and the longest wait in seconds.
    """
    ready = [0.0] * int(policy["least"])  # when each worker can work
    polls, depths, workers, done = [], [0.0], list[int](), list[float]()
    for now, tiles in enumerate(arriving):
        if now % poll_s == 0:
            polls.append(depths[-1])
            count = wanted(polls, **policy)  # type: ignore[arg-type]
            ready = ready[:count] + [now + start_s] * (count - len(ready))  # the newest go first
        done.append(min(depths[-1] + tiles, rate * sum(moment <= now for moment in ready)))
        depths.append(depths[-1] + tiles - done[-1])
        workers.append(len(ready))
    came = np.cumsum(arriving) * (1 - 1e-9)
    waits = np.searchsorted(np.cumsum(done), came) - np.arange(len(came))
    return depths[1:], workers, int(waits.max())
