"""The model of studyguide.simulate against runs that it was not fitted on.

    python -m benchmarks.model [--quick]

Costs are fitted to the runs of `FITTED`. The runs of `HELD_OUT` have other worker counts and tile
sizes: the model plays each of them, and its wall time is compared with that of the median run.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import INPUT, main, table
from studyguide.processes import Reaper
from studyguide.queues import Link, StreamQueue
from studyguide.redis_server import RedisServer
from studyguide.report import RunReport
from studyguide.runs import run
from studyguide.settings import Blur
from studyguide.simulate import Costs, Scenario, image_shapes, simulate
from studyguide.work import ImageJob

Point = tuple[str, int, int]  # approach, workers, tile size
FITTED: list[Point] = [
    ("a", 1, 256),
    ("b", 1, 256),
    ("b", 4, 128),
    ("c", 2, 256),
    ("d", 1, 256),
    ("e", 4, 256),
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


def record(point: Point) -> RunReport:
    approach, workers, tile_size = point
    with tempfile.TemporaryDirectory() as output:
        options = {"workers": workers, "tile_size": tile_size, "output": output}
        return run(approach, images=INPUT, **options)


def server_seconds(tiles: int = 2000) -> float:
    """CPU seconds of Redis for one tile of f, from enqueue to commit."""
    reaper = Reaper()
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer.start(Path(folder), True, reaper)
        link = Link(server.url)
        queue = StreamQueue(link)
        job = ImageJob("tiny.png", (1, tiles), "0", 1, Blur.of(1), str(time.time_ns()))
        before = _cpu(link)
        for tile in job.tiles:
            queue.enqueue(job, [tile])
            for lease in queue.read("bench"):
                queue.commit(lease, b"0" * 64)
        used = _cpu(link) - before
        server.stop()
    reaper.close()
    return used / tiles


def _cpu(link: Link) -> float:
    info = link(lambda client: client.info("cpu"))
    return float(info["used_cpu_sys"] + info["used_cpu_user"])


def play(point: Point, costs: Costs, like: RunReport) -> float:
    """Wall time that the model gives for a run like this one."""
    approach, workers, tile_size = point
    shapes = [shape for _, shape in sorted(image_shapes(like).items())]
    cores = int(like.machine["cores"])
    return simulate(Scenario(approach, shapes, workers, tile_size, cores), costs).wall_s


def measure(quick: bool) -> dict[str, Any]:
    rounds = 1 if quick else 3
    points = [*FITTED, *HELD_OUT]
    runs: dict[Point, list[RunReport]] = {point: [] for point in points}
    for _ in range(rounds):
        for point in points:
            runs[point].append(record(point))
    middle = {point: _median(each) for point, each in runs.items()}
    costs = Costs.fit([each for point in FITTED for each in runs[point]], server_seconds())
    return {
        "costs": asdict(costs),
        "fitted": [_row(point, costs, middle) for point in FITTED],
        "held_out": [_row(point, costs, middle) for point in HELD_OUT],
    }


def _median(runs: list[RunReport]) -> RunReport:
    return sorted(runs, key=lambda report: report.wall_s)[len(runs) // 2]


def _row(point: Point, costs: Costs, middle: Mapping[Point, RunReport]) -> dict[str, Any]:
    measured, played = middle[point].wall_s, play(point, costs, middle[point])
    return {"point": point, "measured_s": measured, "played_s": played}


def error(row: Mapping[str, Any]) -> float:
    """By how much the model is off, as a share of what was measured."""
    return abs(float(row["played_s"]) / float(row["measured_s"]) - 1)


def report(data: dict[str, Any]) -> str:
    def cells(row: dict[str, Any], kind: str) -> list[str]:
        approach, workers, tile_size = row["point"]
        times = f"{row['measured_s']:.2f} s", f"{row['played_s']:.2f} s"
        return [approach, workers, f"{tile_size} px", kind, *times, f"{100 * error(row):.0f} %"]

    rows = [cells(row, "fitted") for row in data["fitted"]]
    rows += [cells(row, "**held out**") for row in data["held_out"]]
    median = statistics.median(map(error, data["held_out"]))
    header = ("approach", "workers", "tile", "", "measured", "model", "off by")
    return f"""## The model

`studyguide.simulate` was fitted to some runs and then played others, of worker counts and tile
sizes that it was not fitted on. Off by {100 * median:.0f} % on the median of those (the bar: 10 %),
by {100 * max(map(error, data["held_out"])):.0f} % at worst.

{table(header, rows)}
"""


if __name__ == "__main__":
    main("model", measure, report)
