"""Time and peak memory of f and c at both ends: one image of 10,000 x 10,000, and 10,000 tiny ones.

python -m benchmarks.extremes [--quick]
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import main, table
from studyguide.runs import run
from studyguide_course.measures import stage_cpu_s

KIB = 1024.0
SETTINGS: dict[str, Any] = {"kernel_size": 21, "method": "separable", "workers": 2}


def draw(folder: Path, side: int, count: int) -> None:
    """Soft RGB images."""
    ramp = np.arange(side, dtype=np.uint16)
    grey = (np.add.outer(ramp, ramp) // 2 % 256).astype(np.uint8)
    for n in range(count):
        Image.fromarray(np.stack([grey] * 3, axis=-1)).save(folder / f"{n:05}.png")


def child(approach: str, folder: str, output: str) -> None:
    """One run in a process of its own; print its wall and CPU seconds and its peak memory."""
    report = run(approach, images=folder, output=output, logs=output, **SETTINGS)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found = {
        "wall_s": report.wall_s,
        "cpu_s": sum(each.ru_utime + each.ru_stime for each in usage),
        "stages_s": sum(stage_cpu_s(report.timeline).values()),
        "peak_mib": max(each.ru_maxrss for each in usage) / KIB,  # of the largest process
    }
    assert report.ok
    print(json.dumps(found))


def measure(quick: bool) -> dict[str, Any]:
    jobs = {"one large": (2000 if quick else 10_000, 1), "many tiny": (8, 200 if quick else 10_000)}
    found: dict[str, Any] = {}
    for name, (side, count) in jobs.items():
        for approach in "cf":
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place, "in")
                folder.mkdir()
                draw(folder, side, count)
                what = [approach, str(folder), str(Path(place, "out"))]
                command = [sys.executable, "-m", "benchmarks.extremes", *what]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                each = json.loads(done.stdout.splitlines()[-1])
                found[f"{approach}, {name}"] = {"side": side, "images": count, **each}
    return {"settings": SETTINGS, "runs": found}


def report(data: dict[str, Any]) -> str:
    """The section of docs/performance.md."""
    rows = [
        [
            f"{name}: {each['images']:,} of {each['side']:,} x {each['side']:,}",
            f"{each['wall_s']:.1f} s",
            f"{each['cpu_s']:.1f} s",
            f"{each['stages_s']:.1f} s",
            f"{each['peak_mib']:.0f} MiB",
        ]
        for name, each in data["runs"].items()
    ]
    header = ("run", "wall time", "CPU", "CPU in its stages", "peak of a process")
    text = "CPU counts imports, starts, events and the log; the stages are what events record."
    return "\n".join(["## One large image, many tiny ones", "", text, "", table(header, rows)])


if __name__ == "__main__":
    if len(sys.argv) == 4:
        child(*sys.argv[1:])
    else:
        main("extremes", measure, report)
