"""The Gaussian blur of images and of tiles.

It computes, for every pixel and each channel by itself (alpha too, as OpenCV, scipy and Pillow
do), the weighted mean of its neighbourhood::

    out[y, x] = sum over |dy|, |dx| <= r of  g[dy] g[dx] in[y + dy, x + dx]
    g[d] = exp(-d^2 / (2 sigma^2)) / norm

Three methods do so: `direct`, k^2 products per sample, and `separable`, 2 k, in fixed point or, as
`separable-float32`, in float. Source: R. C. Gonzalez and R. E. Woods, Digital Image Processing,
ch. 3. The sums themselves are in `studyguide.machinery.kernels`.
"""

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from threading import Lock, local

import numpy as np
from numpy.typing import NDArray

from studyguide.errors import UsageError
from studyguide.machinery import kernels
from studyguide.settings import METHODS, Blur, whole
from studyguide.tiles import Pixels, Tile, grid, window

POOL = "gaussian_blur"  # how the names of its threads begin


def weights(blur: Blur) -> NDArray[np.float64]:
    """The 1-D kernel g, shape (kernel_size,), float64; its sum is 1 to rounding."""
    distance = range(-blur.radius, blur.radius + 1)
    scaled = (d / blur.sigma for d in distance)  # first, for the square of a tiny sigma is 0
    raw = [math.exp(-x * x / 2) for x in scaled]
    total = math.fsum(raw)
    return np.array([value / total for value in raw])


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
    height, width = (side - 2 * blur.radius for side in padded.shape[:2])
    out = np.empty((height, width, *padded.shape[2:]), np.uint8)
    _blur_blocks(padded, blur.radius, grid(height, width, kernels.BLOCK), blur, out)
    return out


def blur_whole(image: Pixels, blur: Blur) -> Pixels:
    """Blur an image on the calling thread; edges repeat the nearest pixel.

    Parameters
    ----------
    image : uint8 array, shape (H, W) or (H, W, C)
    blur : Blur

    Returns
    -------
    uint8 array of the same shape
    """
    image = np.ascontiguousarray(image)  # a plain array, whatever its class was
    out = np.empty_like(image)
    _blur_blocks(image, 0, grid(image.shape[0], image.shape[1], kernels.BLOCK), blur, out)
    return out


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
        Grey, RGB or RGBA, in any memory layout. Of numpy's own subclasses, `memmap` is taken;
        masked arrays and `matrix` are refused, for neither mask nor orientation would survive.
    kernel_size : int
        Side of the kernel in pixels; odd, 1 to 101.
    sigma : float, optional
        Standard deviation in pixels; kernel_size / 3 when not given.
    method : {"separable", "separable-float32", "direct"}
        O(k) per sample in fixed point or in float32, or O(k^2) in float32; none is more than
        1 level in 255 from the exact blur, and the last two rarely differ from it at all.
    workers : int
        Threads that share the image's blocks, or fewer where the system allows no more; the result
        does not depend on it.

    Returns
    -------
    uint8 array of the same shape

    Raises
    ------
    UsageError
        If an argument is out of its range or the array is no such image.
    """
    _check_image(image)
    threads = whole(workers)
    if threads is None or threads < 1:
        raise UsageError(f"workers is {workers!r}", "Use a whole number from 1 on")
    blur = Blur.of(kernel_size, sigma, method)
    image = np.ascontiguousarray(image)  # a plain array, whatever its class was
    out = np.empty_like(image)
    # Whoever is free takes the next block, so that all end together; the caller is one of them.
    blocks = iter(grid(image.shape[0], image.shape[1], kernels.BLOCK))
    task = partial(_blur_blocks, image, 0, blocks, blur, out)
    try:
        others = [_pool(threads - 1).submit(task) for _ in range(threads - 1)]
    except RuntimeError:  # no thread can be started: at a limit of the system, or when Python ends
        return blur_whole(image, blur)  # anew: a thread may be at work on a block of `out`
    task()
    for other in others:
        other.result()
    return out


@lru_cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads stay for the next call, and their scratch with them."""
    return ThreadPoolExecutor(workers, POOL)


os.register_at_fork(after_in_child=_pool.cache_clear)


def _blur_blocks(image: Pixels, halo: int, blocks: Iterable[Tile], blur: Blur, out: Pixels) -> None:
    """Blur blocks of `out` from an image that is larger by `halo` pixels on each side."""
    blur_block = _in_fixed_point if blur.method == "separable" else _in_float
    for block in blocks:
        blur_block(image, halo, block, blur, out)


def _in_float(image: Pixels, halo: int, block: Tile, blur: Blur, out: Pixels) -> None:
    core = Tile(0, block.y0 + halo, block.y1 + halo, block.x0 + halo, block.x1 + halo)
    padded = window(image, core, blur.radius)
    rows, channels = _rows(padded).astype(np.float32), _channels(image)
    blurred = np.empty((block.height, block.width * channels), np.uint8)
    if blur.method == "direct":
        taps = np.outer(weights(blur), weights(blur)).astype(np.float32)
        kernels.direct(rows, taps, channels, blurred)
    else:
        kernels.separable_float32(rows, weights(blur).astype(np.float32), channels, blurred)
    out[block.core] = blurred.reshape(out[block.core].shape)


def _in_fixed_point(image: Pixels, halo: int, block: Tile, blur: Blur, out: Pixels) -> None:
    blur_block = _compiled(blur, _channels(image))
    corner = block.y0 + halo - blur.radius, block.x0 + halo - blur.radius
    place = block.y0, block.x0, block.height, block.width
    blur_block(_rows(image), *corner, _rows(out), *place, _scratch.lines)


@lru_cache
def _compiled(blur: Blur, channels: int) -> Callable[..., None]:
    with _one_at_a_time:  # or two threads would compile the same kernel
        fixed = kernels.fixed_weights(weights(blur))
        return kernels.fixed_point(tuple(map(int, fixed)), channels)


_one_at_a_time = Lock()


class _Scratch(local):
    """Each thread's own buffer; a new one for each block would cost as much as a small blur."""

    def __init__(self) -> None:
        buffer = np.empty(kernels.SCRATCH + 32, np.uint16)
        start = -buffer.ctypes.data % 64 // 2  # lines start with a cache line
        self.lines = buffer[start : start + kernels.SCRATCH]


_scratch = _Scratch()


def _rows(image: Pixels) -> Pixels:
    """An image as rows of samples, shape (H, W C)."""
    return image.reshape(len(image), -1)


def _channels(image: Pixels) -> int:
    return 1 if image.ndim == 2 else image.shape[2]


def _check_image(image: Pixels) -> None:
    ok = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size > 0
    ok = ok and not isinstance(image, (np.ma.MaskedArray, np.matrix))
    if not ok or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        what = type(image).__name__
        if isinstance(image, np.ndarray):
            what = f"{what} of {image.dtype} {image.shape}"
        raise UsageError(
            f"The image is {what}", "Pass a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)"
        )


def warm_up(blur: Blur | None = None) -> None:
    """Compile what a blur needs, or load it from numba's cache, before anything is timed.

    Without an argument: each method with the default kernel.
    """
    blurs = [blur] if blur else [Blur.of(method=method) for method in METHODS]
    for shape in ((3, 3), (3, 3, 3), (3, 3, 4)):
        for each in blurs:
            blur_whole(np.zeros(shape, np.uint8), each)
