"""What the benchmarks share: variants that take turns, figures that are kept, and tables.

A benchmark is a module with `measure(quick)`, whose dict is kept in `results/<name>.json` with the
machine that it was taken on, and `report(data)`, which makes its section of docs/performance.md of
that dict alone. `main` does both: `python -m benchmarks.<name> [--quick]`.
"""

import argparse
import datetime
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studyguide_course.doctor import describe

INPUT = Path(__file__).parents[1] / "images" / "input"
RESULTS = Path(__file__).parent / "results"
Seconds = dict[str, list[float]]  # the times of each variant, a round each


def interleave(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    around: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Seconds:
    """Time variants interleaved, so that a busy moment hits all; a first round is not counted.

    `around` gets the name of a variant, and what it does before and after is not timed.
    """
    seconds: Seconds = {name: [] for name in variants}
    for counted in range(-1, rounds):
        for name, variant in variants.items():
            with around(name):
                start = time.perf_counter()
                variant()
                if counted >= 0:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: Seconds, name: str, base: str) -> tuple[float, float, float]:
    """Time of a variant over that of another, round by round: median, least and greatest."""
    each = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
    return statistics.median(each), min(each), max(each)


def spread(ratio: tuple[float, float, float]) -> str:
    """A ratio as `median (least to greatest)`."""
    return "{:.2f} ({:.2f} to {:.2f})".format(*ratio)


def sample_images() -> list[Any]:
    """The five images of the course as RGBA."""
    files = sorted(INPUT.glob("*.png"))
    return [np.asarray(Image.open(file).convert("RGBA")) for file in files]


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main(name: str, measure: Callable[[bool], dict[str, Any]], report: Callable[..., str]) -> None:
    """Measure, keep the figures with their machine and time, and print the section."""
    parser = argparse.ArgumentParser(description=f"benchmark: {name}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes")
    quick = parser.parse_args().quick
    data = {
        "name": name,
        "recorded": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": describe(),
        "quick": quick,
        **measure(quick),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,  # peers included
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}{'-quick' if quick else ''}.json"
    file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(report(data))
