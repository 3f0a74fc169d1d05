"""The model of studyguide_course.simulate against runs that it was not fitted on.

    python -m benchmarks.model [--quick]

Costs are fitted to the runs of `FITTED`, by themselves for each of `KINDS`. The runs of `HELD_OUT`
have other worker counts and tile sizes: the model plays each of them, and its wall time is compared
with the median of the runs. A run beside which others kept the machine busy counts for neither.
"""

import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import INPUT, main, table
from studyguide.approaches import queued
from studyguide.blur import warm_up
from studyguide.record.report import RunReport
from studyguide.runs import run
from studyguide_course.costs import Costs, image_shapes
from studyguide_course.scale import ServerProbe
from studyguide_course.simulate import Scenario, simulate

Point = tuple[str, int, int]  # approach, workers, tile size
KINDS = ("a", "bc", "d", "e", "fg")  # approaches that share their code, and so their costs
FITTED: list[Point] = [
    ("a", 1, 256),
    ("b", 1, 256),
    ("b", 4, 128),
    ("c", 2, 256),
    ("d", 1, 256),
    ("e", 1, 256),
    ("e", 4, 256),
    ("f", 1, 256),
    ("f", 2, 128),
    ("g", 4, 256),
]
HELD_OUT: list[Point] = [
    ("b", 2, 256),
    ("b", 8, 64),
    ("b", 10, 512),
    ("c", 1, 256),
    ("c", 4, 128),
    ("c", 10, 256),
    ("e", 2, 256),
    ("e", 3, 128),
    ("f", 4, 256),
    ("f", 1, 128),
    ("g", 8, 256),
    ("g", 2, 128),
]
DISTURBED = 0.05  # share of the machine that others may have during a run


@dataclass(frozen=True)
class Sample:
    """One run, and what its events do not know."""

    report: RunReport
    server_s: float  # CPU seconds of Redis
    others: float  # share of the machine that processes other than ours used


def record(point: Point) -> Sample:
    approach, workers, tile_size = point
    probe = ServerProbe()
    chaos = [probe] if approach in queued() else []
    with tempfile.TemporaryDirectory() as output:
        options = {"workers": workers, "tile_size": tile_size, "output": output}
        before, start = _others_s(), os.times().elapsed
        report = run(approach, images=INPUT, chaos=chaos, **options)
        cores_s = (os.times().elapsed - start) * int(report.machine["cores"])
        return Sample(report, probe.cpu_s, (_others_s() - before) / cores_s)


def _others_s() -> float:
    """CPU seconds that the machine worked for others; 0 where the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, *_ = map(int, stat.read_text().split()[1:9])
    ticks = user + nice + system + irq + softirq
    return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def fit(kind: str, samples: Mapping[Point, Sequence[Sample]]) -> Costs:
    """Costs of a kind of approaches, from its fitted runs alone."""
    mine = [each for point in FITTED if point[0] in kind for each in samples[point]]
    tiles = sum(each.report.tiles for each in mine)
    server = sum(each.server_s for each in mine) / max(1, tiles)
    return Costs.fit([each.report for each in mine], server)


def play(point: Point, costs: Costs, like: RunReport) -> float:
    """Wall time that the model gives for a run like this one."""
    approach, workers, tile_size = point
    shapes = list(image_shapes(like).values())
    cores = int(like.machine["cores"])
    return simulate(Scenario(approach, shapes, workers, tile_size, cores), costs).wall_s


def measure(quick: bool) -> dict[str, Any]:
    warm_up()
    samples: dict[Point, list[Sample]] = defaultdict(list)
    for _ in range(1 if quick else 5):
        for point in (*FITTED, *HELD_OUT):
            samples[point].append(record(point))
    return validate(samples)


def validate(samples: Mapping[Point, list[Sample]]) -> dict[str, Any]:
    kept = {point: _undisturbed(each) for point, each in samples.items()}
    costs = {kind: fit(kind, kept) for kind in KINDS}

    def row(point: Point) -> dict[str, Any]:
        reports = [each.report for each in kept[point]]
        used = next(costs[kind] for kind in KINDS if point[0] in kind)
        walls = [report.wall_s for report in reports]
        played = play(point, used, reports[0])
        return {"point": point, "walls_s": walls, "played_s": played}

    return {
        "costs": {kind: asdict(each) for kind, each in costs.items()},
        "runs": sum(map(len, samples.values())),
        "disturbed": sum(map(len, samples.values())) - sum(map(len, kept.values())),
        "fitted": [row(point) for point in FITTED],
        "held_out": [row(point) for point in HELD_OUT],
    }


def _undisturbed(samples: list[Sample]) -> list[Sample]:
    """The runs that had the machine to themselves, or the one that most nearly had."""
    alone = [each for each in samples if each.others < DISTURBED]
    return alone or [min(samples, key=lambda each: each.others)]


def measured_s(row: Mapping[str, Any]) -> float:
    """The median of the wall times of a point."""
    return float(statistics.median(row["walls_s"]))


def error(row: Mapping[str, Any]) -> float:
    """By how much the model is off, as a share of what was measured."""
    return abs(float(row["played_s"]) / measured_s(row) - 1)


def report(data: dict[str, Any]) -> str:
    def cells(row: dict[str, Any], kind: str) -> list[str]:
        approach, workers, tile_size = row["point"]
        times = f"{measured_s(row):.2f} s", f"{row['played_s']:.2f} s"
        return [approach, workers, f"{tile_size} px", kind, *times, f"{100 * error(row):.0f} %"]

    held_out = data["held_out"]
    rows = [cells(row, "fitted") for row in data["fitted"]]
    rows += [cells(row, "**held out**") for row in held_out]
    median, worst = statistics.median(map(error, held_out)), max(map(error, held_out))
    header = ("approach", "workers", "tile", "", "measured", "model", "off by")
    return f"""## The model

`studyguide_course.simulate` was fitted to some runs and then played others, of worker counts and
tile sizes that it was not fitted on. Off by {100 * median:.0f} % on the median of those
(the bar: 10 %), by {100 * worst:.0f} % at worst;
by approach, on the median: {_by_approach(held_out)}.
Measured is the median of runs that took turns. Left out are {data["disturbed"]} of {data["runs"]},
fitted or held out, beside which other work used more than {DISTURBED:.0%} of the machine.
a and d have neither workers nor tiles to vary.

{table(header, rows)}
"""


def _by_approach(rows: Sequence[Mapping[str, Any]]) -> str:
    errors: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        errors[row["point"][0]].append(error(row))
    middle = {name: statistics.median(each) for name, each in errors.items()}
    return ", ".join(f"{name} {100 * value:.0f} %" for name, value in middle.items())


if __name__ == "__main__":
    main("model", measure, report)
