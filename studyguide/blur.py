"""The Gaussian blur: two numba kernels that release the GIL.

Both compute, for every pixel and each channel by itself (alpha too, as OpenCV, scipy and Pillow
do), the weighted mean of its neighbourhood::

    out[y, x] = sum over |dy|, |dx| <= r of  g[dy] g[dx] in[y + dy, x + dx]
    g[d] = exp(-d^2 / (2 sigma^2)) / norm

`direct` takes the k^2 products as they stand, `separable` sums rows first and columns then, 2 k
products in all. Source: R. C. Gonzalez and R. E. Woods, Digital Image Processing, ch. 3.

They work in float32 without fast-math: each pixel's sum is taken in one fixed order, so that its
value depends neither on the tile that it lies in nor on the machine's vector width.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from studyguide.errors import UsageError
from studyguide.settings import Blur
from studyguide.tiles import Pixels, Tile, grid, window

Floats = NDArray[np.float32]


def weights(blur: Blur) -> Floats:
    """The 1-D kernel g, shape (kernel_size,), float32; its sum is 1 to rounding."""
    distance = range(-blur.radius, blur.radius + 1)
    scaled = (d / blur.sigma for d in distance)  # first, for the square of a tiny sigma is 0
    raw = [math.exp(-x * x / 2) for x in scaled]
    total = math.fsum(raw)
    return np.array([value / total for value in raw], dtype=np.float32)


@njit(nogil=True, cache=True)
def _add_taps(total: Any, row: Any, taps: Any, step: int) -> None:
    """total[i] += sum of taps[t] * row[i + t * step]; four taps share each load of the total."""
    n, groups = total.size, taps.size // 4 * 4
    for t in range(0, groups, 4):
        a, b, c, d = taps[t], taps[t + 1], taps[t + 2], taps[t + 3]
        row_a, row_b = row[t * step :], row[(t + 1) * step :]
        row_c, row_d = row[(t + 2) * step :], row[(t + 3) * step :]
        for i in range(n):
            total[i] = total[i] + a * row_a[i] + b * row_b[i] + c * row_c[i] + d * row_d[i]
    for t in range(groups, taps.size):
        a, row_a = taps[t], row[t * step :]
        for i in range(n):
            total[i] += a * row_a[i]


@njit(nogil=True, cache=True)
def _store(out: Any, total: Any) -> None:
    """Round half up to uint8."""
    half = np.float32(0.5)
    for i in range(total.size):
        out[i] = np.uint8(total[i] + half)


@njit(nogil=True, cache=True)
def _direct(rows: Any, taps: Any, step: int, out: Any) -> None:
    """k^2 products per sample. `rows` is a window as float32, one flat row of samples a line."""
    total = np.empty(out.shape[1], np.float32)
    for y in range(out.shape[0]):
        total[:] = 0
        for dy in range(taps.shape[0]):
            _add_taps(total, rows[y + dy], taps[dy], step)
        _store(out[y], total)


@njit(nogil=True, cache=True)
def _separable(rows: Any, taps: Any, step: int, out: Any) -> None:
    """2 k products per sample: along the rows into a scratch buffer, then down its columns."""
    n = out.shape[1]
    scratch = np.zeros((rows.shape[0], n), np.float32)
    for y in range(rows.shape[0]):
        _add_taps(scratch[y], rows[y], taps, step)
    total = np.empty(n, np.float32)
    flat = scratch.reshape(-1)
    for y in range(out.shape[0]):
        total[:] = 0
        _add_taps(total, flat[y * n :], taps, n)
        _store(out[y], total)


def blur_window(padded: Pixels, blur: Blur) -> Pixels:
    """Blur the core of a window; the halo is used up.

    Parameters
    ----------
    padded : uint8 array, shape (h + 2 r, w + 2 r) or (h + 2 r, w + 2 r, C)
        A window with a halo of r = blur.radius pixels.
    blur : Blur

    Returns
    -------
    uint8 array, shape (h, w) or (h, w, C)
    """
    channels = 1 if padded.ndim == 2 else padded.shape[2]
    height, width = (side - 2 * blur.radius for side in padded.shape[:2])
    rows = padded.reshape(padded.shape[0], -1).astype(np.float32)
    out = np.empty((height, width * channels), np.uint8)
    taps = weights(blur)
    if blur.method == "direct":
        _direct(rows, np.outer(taps, taps), channels, out)
    else:
        _separable(rows, taps, channels, out)
    return out.reshape(height, width, *padded.shape[2:])


def blur_whole(image: Pixels, blur: Blur) -> Pixels:
    """Blur an image in one piece: its window is the image with its edges repeated.

    Parameters
    ----------
    image : uint8 array, shape (H, W) or (H, W, C)
    blur : Blur

    Returns
    -------
    uint8 array of the same shape
    """
    height, width = image.shape[:2]
    return blur_window(window(image, Tile(0, 0, height, 0, width), blur.radius), blur)


def gaussian_blur(
    image: Pixels,
    kernel_size: int = 21,
    sigma: float | None = None,
    method: str = "separable",
    workers: int = 1,
) -> Pixels:
    """Blur an image; edges repeat the nearest pixel, channels are independent.

    Parameters
    ----------
    image : uint8 array, shape (H, W), (H, W, 3) or (H, W, 4)
        Grey, RGB or RGBA.
    kernel_size : int
        Side of the kernel in pixels; odd, 1 to 101.
    sigma : float, optional
        Standard deviation in pixels; kernel_size / 3 when not given.
    method : {"separable", "direct"}
        O(k) or O(k^2) per pixel; they agree to 1 level in 255.
    workers : int
        Threads that share the image's tiles; the result does not depend on it.

    Returns
    -------
    uint8 array of the same shape

    Raises
    ------
    UsageError
        If an argument is out of its range or the array is no such image.
    """
    _check_image(image)
    if not isinstance(workers, int) or workers < 1:
        raise UsageError(f"workers is {workers!r}", "Use a whole number from 1 on")
    blur = Blur.of(kernel_size, sigma, method)
    out = np.empty_like(image, order="C")

    def blur_tile(tile: Tile) -> None:
        out[tile.core] = blur_window(window(image, tile, blur.radius), blur)

    tiles = grid(image.shape[0], image.shape[1], 256)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(blur_tile, tiles))
    return out


def _check_image(image: Pixels) -> None:
    ok = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size > 0
    if not ok or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image)
        raise UsageError(
            f"The image is {what}", "Pass a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)"
        )


def warm_up() -> None:
    """Compile both kernels or load them from numba's cache, before anything is timed."""
    for method in ("direct", "separable"):
        blur_window(np.zeros((3, 3, 4), np.uint8), Blur.of(3, method=method))
