"""Laws of scale: what more workers and larger jobs can bring at most.

`bound` is the classic short cut for sizes that are too large to simulate: no run ends before its
busiest station has done its share.
Source: R. Jain, The Art of Computer Systems Performance Analysis, ch. 33 (the operational laws).
"""

import math
from dataclasses import replace

from studyguide_course.costs import Costs, seconds
from studyguide_course.simulate import Scenario, simulate

OF_TILE = ("split", "enqueue", "blur", "transfer", "assemble")
PER_IMAGE = 8  # tiles of an image, where nothing else is said


def amdahl(serial: float, workers: float) -> float:
    """Speed-up of a fixed job of which the share `serial` cannot be shared out (Amdahl, 1967)."""
    return 1 / (serial + (1 - serial) / workers)


def gustafson(serial: float, workers: float) -> float:
    """Speed-up of a job that grows with its workers (Gustafson, 1988)."""
    return workers + (1 - workers) * serial


def demands(
    costs: Costs, workers: int, samples: int, others: int = 1, tiles: int = PER_IMAGE
) -> dict[str, float]:
    """Seconds that each station of e, f or g is busy for one tile, each process on its own core.

    The greatest of them is the bottleneck: no more than 1 / demand tiles a second pass it.
    `samples` is of a tile: pixels of its core times channels. There are `others` coordinators and
    as many assemblers; Redis is one. `tiles` is of an image: loading and saving have a fixed part
    for each image, not for each tile.
    """
    of_tile = {stage: seconds(getattr(costs, stage), samples) for stage in OF_TILE}
    load, save = (seconds(cost, tiles * samples) / tiles for cost in (costs.load, costs.save))
    return {
        "coordinator": (load + of_tile["split"] + of_tile["enqueue"]) / others,
        "Redis": costs.server,
        "workers": (of_tile["blur"] + of_tile["transfer"] + costs.pause) / workers,
        "assembler": (of_tile["assemble"] + save) / others,
    }


def bottleneck(busy: dict[str, float]) -> tuple[str, float]:
    """The busiest of the stations in `demands`, and the tiles a second that it passes at most."""
    station = max(busy, key=busy.__getitem__)
    return station, 1 / busy[station] if busy[station] else math.inf


def bound(costs: Costs, busy: dict[str, float], tiles: int) -> float:
    """Seconds below which no run of so many equal tiles can end (the bottleneck law).

    `busy` is what `demands` returns. A worker compiles its kernels first. Blurs take their mean
    time: a single run whose blurs scatter can be a little faster.
    """
    first = dict.fromkeys(busy, costs.boot + costs.start) | {"Redis": costs.boot}
    first["workers"] += costs.warm_up
    return max(first[station] + tiles * each for station, each in busy.items())


def rate(costs: Costs, workers: int, samples: int, tiles: int = PER_IMAGE) -> float:
    """Tiles a second of a simulated run of f whose processes are all up when it begins.

    It never exceeds 1 / max(demands(costs, workers, samples, tiles=tiles).values()): blurs take
    their mean time, every process has a core of its own, and no start is counted.
    """
    warm = replace(costs, boot=0.0, start=0.0, warm_up=0.0, spread=0.0)
    images = max(4, math.ceil((32 * workers + 64) / tiles))
    scenario = Scenario("f", [(1, tiles * samples)] * images, workers, samples, cores=0)
    wall_s = simulate(scenario, warm).wall_s
    return images * tiles / wall_s if wall_s else math.inf
