"""The blur alone, against OpenCV and libvips: speed by kernel size, threads and accuracy.

python -m benchmarks.kernel [--quick]     (in .venv-peers: `make bench-peers`)
"""

import os
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.harness import interleave, main, ratios, sample_images, spread, table
from studyguide.blur import gaussian_blur, weights
from studyguide.settings import Blur
from studyguide.tiles import Pixels

CORES = os.cpu_count() or 1
Images = Iterable[Pixels]


def ours(images: Images, kernel_size: int, method: str, workers: int) -> Images:
    return (gaussian_blur(image, kernel_size, None, method, workers) for image in images)


def opencv(images: Images, kernel_size: int, threads: int) -> Images:
    import cv2

    cv2.setNumThreads(threads)
    size, sigma, edge = (kernel_size, kernel_size), kernel_size / 3, cv2.BORDER_REPLICATE
    return (cv2.GaussianBlur(image, size, sigma, borderType=edge) for image in images)


def libvips(images: Images, kernel_size: int) -> Images:
    """In integer precision and on all cores; `min_ampl` gives it as many taps as the others."""
    import pyvips

    radius, sigma = kernel_size // 2, kernel_size / 3
    least = float(np.exp(-((radius + 0.5) ** 2) / (2 * sigma**2)))
    how = {"min_ampl": least, "precision": "integer"}
    return (pyvips.Image.new_from_array(image).gaussblur(sigma, **how).numpy() for image in images)


def variants(images: Images, kernel_size: int) -> dict[str, Callable[[], Images]]:
    return {
        "fixed point, 1 thread": partial(ours, images, kernel_size, "separable", 1),
        "fixed point, all cores": partial(ours, images, kernel_size, "separable", CORES),
        "float32, 1 thread": partial(ours, images, kernel_size, "separable-float32", 1),
        "OpenCV, 1 thread": partial(opencv, images, kernel_size, 1),
        "OpenCV, all cores": partial(opencv, images, kernel_size, CORES),
        "libvips, all cores": partial(libvips, images, kernel_size),
    }


def consumed(lazy: dict[str, Callable[[], Images]]) -> dict[str, Callable[[], object]]:
    """Each result is dropped before the next is made, as by who saves one after the other."""
    return {name: lambda run=run: deque(run(), maxlen=0) for name, run in lazy.items()}


def exact(image: Pixels, kernel_size: int) -> Pixels:
    taps, out = weights(Blur.of(kernel_size)), image.astype(np.float64)
    for axis in (0, 1):
        out = ndimage.correlate1d(out, taps, axis, mode="nearest")
    return np.floor(out + 0.5).astype(np.uint8)


def errors(results: Images, truth: Images) -> dict[str, float]:
    """Largest difference in levels, and the share of samples that differ."""
    apart = [np.abs(a.astype(int) - b.astype(int)) for a, b in zip(results, truth, strict=True)]
    samples = sum(a.size for a in apart)
    return {
        "max": int(max(a.max() for a in apart)),
        "share": sum(int(np.count_nonzero(a)) for a in apart) / samples,
    }


def measure(quick: bool) -> dict[str, Any]:
    import cv2
    import pyvips

    images = sample_images()
    truth = [exact(image, 21) for image in images]
    sizes = (3, 21) if quick else (3, 5, 9, 15, 21, 31, 41, 51, 71, 101)
    seconds = {k: interleave(consumed(variants(images, k)), 3 if quick else 15) for k in sizes}
    return {
        "megapixels": sum(image.shape[0] * image.shape[1] for image in images) / 1e6,
        "cores": CORES,
        "opencv": cv2.__version__,
        "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
        "seconds": {str(k): times for k, times in seconds.items()},
        "errors": {name: errors(run(), truth) for name, run in variants(images, 21).items()},
    }


def checks(data: dict[str, Any]) -> dict[str, float]:
    """Ratios that must not get worse: how many times as fast as a peer."""
    pairs = {
        "OpenCV, 1 thread": "fixed point, 1 thread",
        "OpenCV, all cores": "fixed point, all cores",
        "libvips, all cores": "fixed point, all cores",
    }
    return {
        f"kernel {k}: {peer}": ratios(seconds, peer, mine)[0]
        for k, seconds in data["seconds"].items()
        for peer, mine in pairs.items()
    }


def report(data: dict[str, Any]) -> str:
    at_21 = data["seconds"]["21"]
    rows = [
        (
            name,
            f"{1000 * statistics.median(times):.1f}",
            spread(ratios(at_21, "OpenCV, 1 thread", name)),
            data["errors"][name]["max"],
            f"{data['errors'][name]['share']:.4%}",
        )
        for name, times in at_21.items()
    ]
    by_size = [
        (k, *(f"{ratios(s, peer, mine)[0]:.2f}" for mine, peer in (
            ("fixed point, 1 thread", "OpenCV, 1 thread"),
            ("fixed point, all cores", "OpenCV, all cores"),
            ("fixed point, all cores", "libvips, all cores"),
            ("float32, 1 thread", "OpenCV, 1 thread"),
        )))
        for k, s in data["seconds"].items()
    ]  # fmt: skip
    return f"""## The kernel

The five sample images as RGBA, {data["megapixels"]:.1f} MP, kernel 21, {data["cores"]} cores;
OpenCV {data["opencv"]}, libvips {data["libvips"]} (integer precision). Errors are those against the
exact blur in float64.

{table(("", "ms", "OpenCV on 1 thread / it", "largest error", "samples that differ"), rows)}

By kernel size, how many times as fast as the peer (median of the rounds):

{table(("kernel", "fixed / OpenCV, 1 thread", "fixed / OpenCV, all cores", "fixed / libvips, all cores", "float32 / OpenCV, 1 thread"), by_size)}
"""  # noqa: E501


if __name__ == "__main__":
    main("kernel", measure, report)
