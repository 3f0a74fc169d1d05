"""What each step of a run costs, fitted to the events of recorded runs."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from studyguide.record.report import RunReport
from studyguide.record.timeline import Event
from studyguide.tiles import grid

Cost = tuple[float, float]  # CPU seconds each time, and for each sample (pixels times channels)
FREE: Cost = (0.0, 0.0)
STAGES = ("load", "save", "split", "enqueue", "blur", "assemble")  # fitted to their spans alone


def seconds(cost: Cost, samples: int) -> float:
    """CPU seconds of one step on so many samples."""
    return cost[0] + cost[1] * samples


@dataclass(frozen=True)
class Costs:
    """What each step takes."""

    load: Cost = FREE
    save: Cost = FREE
    split: Cost = FREE
    enqueue: Cost = FREE  # the coordinator's side of handing a tile to the queue
    blur: Cost = FREE
    transfer: Cost = FREE  # a worker's side of handing a result on and taking the next tile
    assemble: Cost = FREE
    pause: float = 0.0  # of a transfer, in which the disk works and no core
    boot: float = 0.0  # until a process runs its first line of Python
    start: float = 0.0  # CPU seconds of a process, from its first line to its role
    warm_up: float = 0.0  # the same for the kernels of one that blurs
    server: float = 0.0  # CPU seconds of Redis for one tile, from enqueue to commit
    spread: float = 0.0  # standard deviation of the logarithm of a blur's time

    @classmethod
    def fit(cls, reports: Iterable[RunReport], server: float = 0.0) -> "Costs":
        """Fit the costs to the events of recorded runs of the same kernel.

        A step's fixed part shows in tiles of two or more sizes; what a transfer takes, in a run of
        one worker, as others make it longer. `server` is not in the events.
        """
        reports = list(reports)
        spans = {stage: list(_spans(reports, stage)) for stage in STAGES}
        fitted = {stage: mean_line(pairs) for stage, pairs in spans.items()}
        transfer, pause = min(map(_transfer, reports))[1:]
        blurs = [math.log(cpu / seconds(fitted["blur"], size)) for cpu, size in spans["blur"]]
        found: dict[str, Any] = {**fitted, **_starts(reports), "spread": statistics.pstdev(blurs)}
        return cls(**found, transfer=transfer, pause=pause, server=server)


def line(pairs: Sequence[tuple[float, int]]) -> Cost:
    """Least squares of the relative errors of fixed + each * samples, neither of them negative."""
    if not pairs:
        return FREE
    took, samples = np.array(pairs, float).T
    terms = np.stack([1 / took, samples / took], axis=1)
    candidates: list[tuple[float, Cost]] = []
    for kept in ([True, True], [True, False], [False, True]):
        cost = np.zeros(2)
        cost[kept] = np.linalg.lstsq(terms[:, kept], np.ones_like(took), rcond=None)[0]
        if cost.min() >= 0:
            fixed, each = cost.tolist()
            candidates.append((float(np.square(terms @ cost - 1).sum()), (fixed, each)))
    return min(candidates)[1]


def mean_line(pairs: Sequence[tuple[float, int]]) -> Cost:
    """`line`, with the mean of what it was fitted to."""
    fixed, each = line(pairs)
    level = sum(took for took, _ in pairs) / (sum(seconds((fixed, each), n) for _, n in pairs) or 1)
    return fixed * level, each * level


def _spans(reports: Iterable[RunReport], stage: str) -> Iterator[tuple[float, int]]:
    """(CPU seconds, samples) of every span of a stage."""
    for report in reports:
        for event in report.timeline.of(stage):
            yield max(event.detail.get("cpu_s", event.seconds), 1e-6), _samples(event, report)


def _transfer(report: RunReport) -> tuple[float, Cost, float]:
    """How long workers are between two blurs, their CPU seconds of it, and what uses no core."""
    lanes = defaultdict(list)
    for event in report.timeline.of("blur"):
        lanes[event.who].append(event)
    pairs = [
        (after.start - event.end, _samples(event, report))
        for lane in lanes.values()
        for event, after in pairwise(lane)
        if event.tile >= 0 and event.image == after.image
    ]
    if not pairs:
        return math.inf, FREE, 0.0
    idle = [event.seconds - event.detail["cpu_s"] for event in report.timeline.of("transfer")]
    fixed, each = line(pairs)
    pause = min(fixed, statistics.median(idle))
    return statistics.median(gap for gap, _ in pairs), (fixed - pause, each), pause


def _starts(reports: Iterable[RunReport]) -> dict[str, float]:
    """Means of a process' boot, of its start, and of the additional time for kernels."""
    boots, plain, blurring = [0.0], [0.0], [0.0]
    for report in reports:
        for event in report.timeline.of("start"):
            boots.append(event.start - report.timeline.start)
            blurs = event.process.startswith(("worker", "sequential"))
            (blurring if blurs else plain).append(min(event.detail["cpu_s"], event.seconds))
    boot, start, both = (sum(each) / max(1, len(each) - 1) for each in (boots, plain, blurring))
    return {"boot": boot, "start": start, "warm_up": max(0.0, both - start)}


def image_shapes(report: RunReport) -> dict[str, tuple[int, ...]]:
    """Shape of each image of a run, as its loading tells it."""
    loads = report.timeline.of("load")
    return {event.image: tuple(event.detail["shape"]) for event in loads if "shape" in event.detail}


def _samples(event: Event, report: RunReport) -> int:
    shape = image_shapes(report).get(event.image, (0, 0))
    if event.tile < 0:
        return math.prod(shape)
    tile = grid(shape[0], shape[1], int(report.settings["tile_size"]))[event.tile]
    return tile.height * tile.width * math.prod(shape[2:])
