"""The whole job, decode, blur, encode and save: approach c against scripts that users write.

    python -m benchmarks.job [--quick]     (in .venv-peers: `make bench-peers`)

Each peer uses all cores, starts its pool before the clock, and has the fastest PNG setting that
writes files of about our size (1.3 times those of Pillow by default, at most).
"""

import os
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import studyguide
from benchmarks.harness import INPUT, interleave, main, ratios, spread, table
from studyguide.record.report import RunReport

CORES = os.cpu_count() or 1
KERNEL, SIGMA = 21, 7.0
FILES = sorted(INPUT.glob("*.png"))


def with_opencv(path: Path, output: Path) -> None:
    import cv2

    cv2.setNumThreads(1)  # a thread for each image is faster than several for one
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    blurred = cv2.GaussianBlur(image, (KERNEL, KERNEL), SIGMA, borderType=cv2.BORDER_REPLICATE)
    cv2.imwrite(str(output / path.name), blurred, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def with_libvips(path: Path, output: Path) -> None:
    import pyvips

    pyvips.cache_set_max(0)  # or it would remember the decoded file from the round before
    image = pyvips.Image.new_from_file(str(path))
    blurred = image.gaussblur(SIGMA, min_ampl=0.36, precision="integer")
    blurred.pngsave(str(output / path.name), compression=2, filter="up")


def with_scikit_image(path: Path, output: Path) -> None:
    import numpy as np
    from skimage import io
    from skimage.filters import gaussian

    image = io.imread(path)
    channels = -1 if image.ndim == 3 else None
    blurred = gaussian(image, SIGMA, mode="nearest", truncate=10 / SIGMA, channel_axis=channels)
    io.imsave(output / path.name, (blurred * 255).round().astype(np.uint8), check_contrast=False)


def with_dask_image(path: Path, output: Path) -> None:
    import dask.array
    import numpy as np
    from dask_image.ndfilters import gaussian_filter
    from PIL import Image

    image = np.asarray(Image.open(path))
    chunks = dask.array.from_array(image, chunks=(256, 256, *image.shape[2:]))
    sigma = (SIGMA, SIGMA, 0)[: image.ndim]
    blurred = gaussian_filter(chunks, sigma, truncate=10 / SIGMA, mode="nearest")
    Image.fromarray(blurred.compute(num_workers=CORES)).save(output / path.name, compress_level=1)


def with_pillow(path: Path, output: Path) -> None:
    from PIL import Image, ImageFilter

    image = Image.open(path)
    image.filter(ImageFilter.GaussianBlur(SIGMA)).save(output / path.name, compress_level=1)


def warm(_: int) -> None:
    """Import in a pool's process what its tasks will need."""
    import PIL.ImageFilter  # noqa: F401
    import skimage.filters
    import skimage.io  # noqa: F401


def ours(output: Path) -> RunReport:
    return studyguide.run(
        "c",
        images=INPUT,
        output=output,
        method="separable",
        workers=CORES,
        kernel_size=KERNEL,
        images_in_memory=len(FILES),
    )


def bound_s(report: RunReport) -> float:
    """What the run's own CPU time, shared out evenly over all cores, would take."""
    return sum(event.detail.get("cpu_s", 0.0) for event in report.timeline.events) / CORES


def measure(quick: bool) -> dict[str, Any]:
    from joblib import Parallel, delayed

    reports: list[RunReport] = []
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(CORES) as threads:
        outputs = {}

        def output(peer: str) -> Path:
            outputs[peer] = Path(name) / peer
            outputs[peer].mkdir()
            return outputs[peer]

        def each(run: Callable[..., Any], task: Callable[..., None], folder: Path) -> None:
            list(run(partial(task, output=folder), FILES))

        with get_context("spawn").Pool(CORES) as processes, Parallel(CORES) as joblib:
            processes.map(warm, range(4 * CORES))
            joblib(delayed(warm)(n) for n in range(4 * CORES))
            mine, theirs = output("c"), output("scikit-image, joblib")
            variants: dict[str, Callable[[], object]] = {
                "c": lambda: reports.append(ours(mine)),
                "OpenCV, thread pool": partial(
                    each, threads.map, with_opencv, output("OpenCV, thread pool")
                ),
                "libvips": partial(each, map, with_libvips, output("libvips")),
                "libvips, thread pool": partial(
                    each, threads.map, with_libvips, output("libvips, thread pool")
                ),
                "scikit-image, joblib": lambda: joblib(
                    delayed(with_scikit_image)(path, theirs) for path in FILES
                ),
                "dask-image": partial(each, map, with_dask_image, output("dask-image")),
                "Pillow, multiprocessing": partial(
                    each, processes.map, with_pillow, output("Pillow, multiprocessing")
                ),
            }
            seconds = interleave(variants, 2 if quick else 9)
        sizes = {
            peer: sum(file.stat().st_size for file in folder.rglob("*.png"))
            for peer, folder in outputs.items()
        }
    runs = reports[1:]  # the first round is not counted
    return {
        "seconds": seconds,
        "bytes": sizes,
        "wall_over_bound": [report.wall_s / bound_s(report) for report in runs],
        "stages": stages(runs),
        "cores": CORES,
    }


def stages(runs: list[RunReport]) -> dict[str, float]:
    """Median CPU seconds of each stage of c."""
    names = sorted({event.stage for report in runs for event in report.timeline.events})
    sums = {
        name: statistics.median(
            sum(event.detail.get("cpu_s", 0.0) for event in report.timeline.of(name))
            for report in runs
        )
        for name in names
    }
    return {name: seconds for name, seconds in sums.items() if seconds}


def checks(data: dict[str, Any]) -> dict[str, float]:
    """How many times as long each peer takes."""
    seconds = data["seconds"]
    return {f"job: {peer}": ratios(seconds, peer, "c")[0] for peer in seconds if peer != "c"}


def report(data: dict[str, Any]) -> str:
    seconds = data["seconds"]
    rows = [
        (
            peer,
            f"{1000 * statistics.median(times):.0f}",
            spread(ratios(seconds, peer, "c")),
            f"{data['bytes'][peer] / 1e6:.2f}",
        )
        for peer, times in seconds.items()
    ]
    wall = data["wall_over_bound"]
    work = [(stage, f"{1000 * cpu_s:.1f}") for stage, cpu_s in data["stages"].items()]
    return f"""## The whole job

Decode, blur (kernel 21), encode and save the five sample images on {data["cores"]} cores.

{table(("", "ms", "it / c", "MB written"), rows)}

c's wall time over its bound, which is the CPU time of all its spans shared out evenly over the
cores: {statistics.median(wall):.2f} ({min(wall):.2f} to {max(wall):.2f}). Where that CPU time goes:

{table(("stage of c", "CPU ms"), work)}
"""


if __name__ == "__main__":
    main("job", measure, report)
