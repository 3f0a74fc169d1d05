"""Peak memory of b and c over folders of 10, 100 and 1,000 images: bounded by the queues.

python -m benchmarks.memory [--quick]
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
from studyguide.approaches import APPROACHES
from studyguide.record.timeline import Recorder
from studyguide.runs import run
from studyguide.settings import Blur, Settings
from studyguide.work import Run

SIDE = 256  # pixels of each image, RGBA: 256 KiB
LENGTHS = (10, 100, 1000)
SETTINGS: dict[str, Any] = {"tile_size": 64, "kernel_size": 5, "method": "separable", "workers": 2}
VARIANTS = ("b", "c", "b dropping events", "c dropping events")
KIB = 1024.0


def draw(folder: Path, count: int) -> None:
    """Soft images, which are small as files and whole in memory."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    for n in range(count):
        pixels = np.stack(
            [x + np.uint8(n % 256), y, x // 2 + y // 2, np.full_like(x, 255)], axis=-1
        )
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{n:04}.png", compress_level=1)


def child(approach: str, folder: str, output: str) -> None:
    """One run in a process of its own; tell its peak and how many events it recorded."""
    letter, _, dropped = approach.partition(" ")
    blur = Blur.of(SETTINGS["kernel_size"], method=SETTINGS["method"])
    plain = {name: SETTINGS[name] for name in ("tile_size", "workers")}
    settings = Settings(images=Path(folder), output=Path(output), blur=blur, **plain)
    if dropped:
        settings.output.mkdir()
        function = APPROACHES[letter].on_threads
        assert function
        function(Run(settings, Recorder(lambda event: None)))
        events = 0
    else:
        events = len(run(letter, images=folder, output=output, **SETTINGS).timeline.events)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    print(json.dumps({"peak_mib": peak / KIB, "events": events}))


def peak(approach: str, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder, output = Path(name, "in"), Path(name, "out")
        folder.mkdir()
        draw(folder, count)
        command = [sys.executable, "-m", "benchmarks.memory", approach, folder, output]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert len(list(output.rglob("*.png"))) == count
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def measure(quick: bool) -> dict[str, Any]:
    lengths = LENGTHS[:2] if quick else LENGTHS
    peak("b", 1)  # kernels are compiled once, which takes more memory than any run
    peaks = {a: {str(count): peak(a, count) for count in lengths} for a in VARIANTS}
    return {"side": SIDE, "settings": SETTINGS, "peaks": peaks}


def growth(found: dict[str, dict[str, Any]]) -> float:
    """KiB by which the peak grows for each further image, over the longest stretch."""
    least, most = min(found, key=int), max(found, key=int)
    return (found[most]["peak_mib"] - found[least]["peak_mib"]) * KIB / (int(most) - int(least))


def report(data: dict[str, Any]) -> str:
    """The section of docs/performance.md."""
    peaks = data["peaks"]
    lengths = sorted(peaks["b"], key=int)
    rows = [
        [a, *(f"{found[n]['peak_mib']:.0f} MiB" for n in lengths), f"{growth(found):.1f} KiB"]
        for a, found in peaks.items()
    ]
    events = peaks["c"][lengths[-1]]["events"] / int(lengths[-1])
    each = (growth(peaks["c"]) - growth(peaks["c dropping events"])) * KIB / events
    header = ["approach", *(f"{n} images" for n in lengths), "for each image more"]
    size = data["side"] * data["side"] * 4 // 1024
    return "\n".join(
        [
            "## Memory",
            "",
            f"Peak memory of a run over a folder of images, {size} KiB of pixels each. Queues",
            "bound the pixels. What grows are the events that the report is made of:",
            f"{events:.0f} an image of {each:.0f} bytes.",
            "",
            table(header, rows),
        ]
    )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        child(*sys.argv[1:])
    else:
        main("memory", measure, report)
