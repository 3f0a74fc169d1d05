"""The direct k^2 form beside other people's: the baseline of the lessons must be no straw man.

python -m benchmarks.direct [--quick]     (in .venv-peers: `make bench-peers`)
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.growth import best
from benchmarks.harness import main, sample_images, table
from studyguide.blur import gaussian_blur, weights
from studyguide.settings import Blur
from studyguide.tiles import Pixels


def direct_forms(image: Pixels, kernel_size: int) -> dict[str, Callable[[], object]]:
    """Direct k^2 sums on one thread: ours must be no straw man."""
    import cv2

    cv2.setNumThreads(1)
    taps = np.outer(weights(Blur.of(kernel_size)), weights(Blur.of(kernel_size)))
    taps = taps.astype(np.float32)
    wide = image.astype(np.float32)
    return {
        "ours, direct": lambda: gaussian_blur(image, kernel_size, None, "direct"),
        "OpenCV filter2D, float32": lambda: cv2.filter2D(wide, -1, taps),  # by DFT from k = 13 on
        "scipy.ndimage.convolve, float32": lambda: ndimage.convolve(
            wide, taps[:, :, None], mode="nearest"
        ),
    }


def measure(quick: bool) -> dict[str, Any]:
    image = np.ascontiguousarray(sample_images()[0][:256, :256])
    found: dict[str, dict[str, float]] = {}
    for k in (3, 9) if quick else (3, 5, 9, 11, 21):
        forms = direct_forms(image, k)
        for do in forms.values():
            do()
        found[str(k)] = {name: best(do, 3, time.thread_time) for name, do in forms.items()}
    return {"seconds": found}


def report(data: dict[str, Any]) -> str:
    found = data["seconds"]
    names = next(iter(found.values()))
    rows = [(name, *(f"{1000 * each[name]:.2f}" for each in found.values())) for name in names]
    last, biggest = list(found.values())[-1], list(found)[-1]
    mine, cv, scipy = last
    return f"""## The direct form

It is the baseline that the lessons scale, so it must be no straw man. CPU time of one thread,
256 x 256 RGBA, ms; ours from uint8 to uint8, the others from float32 to float32. OpenCV's own
vector code is ahead for small kernels; from 13 on it goes through a Fourier transform, which is no
k^2 form any more. At kernel {biggest} ours takes {last[mine] / last[cv]:.2f} times as long as that
and {last[mine] / last[scipy]:.3f} times as long as scipy.

{table(("", *(f"kernel {k}" for k in found)), rows)}
"""


if __name__ == "__main__":
    main("direct", measure, report)
