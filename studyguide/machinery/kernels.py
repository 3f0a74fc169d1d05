"""The kernels of the blur: numba functions that release the GIL.

They take images as rows of samples: shape (H, W C), the C channels of a pixel side by side, so
that the taps of a row lie `step` = C samples apart. Each pixel's sum is taken in one fixed order
and without fast-math: its value depends neither on the tile that it lies in nor on the machine's
vector width.

**Float.** `direct` takes the k^2 products as they stand, `separable_float32` sums rows first and
columns then, 2 k products.

**Fixed point.** The same two passes in 16-bit integers, of which a vector register holds twice as
many: `widen`, the taps of the rows, those of the columns, `narrow`. A level v is held as 128 v.
The two taps at one distance have one weight: they are added first (at most 2 * 128 * 255, which is
below 65,536), multiplied by the weight in 65,536ths, and the high 16 bits of the product are kept;
that is one instruction. The centre is added to itself and gets half its weight. Per pass

- r + 1 products are rounded down, which loses up to r + 1 128ths of a level. The sum starts at the
  mean loss, (r + 1) / 2, so that it is at most (r + 2) / 2 128ths off, either way;
- the weights are rounded, though their sum is not: that moves it by at most 255 levels times the
  sum of their errors.

The second pass averages what is wrong with the first and adds as much of its own. `error_bound`
is the sum of all this. It is below 1 level for every kernel (a test computes it for each), so that
no sample differs by more than 1 in 255 from the exact blur.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import intp, njit, types, uint8, uint16, uint32, uintp
from numba.core.caching import FunctionCache
from numba.extending import intrinsic
from numpy.typing import NDArray

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., None])

BLOCK = 256  # pixels: side of what is blurred in one go, so that its scratch stays in the L2 cache
PITCH = 1440  # samples from row to row of the scratch: enough for a block of RGBA with the widest
# halo, and an odd number of cache lines, or the taps of a column would fight for the same ones
SCRATCH = (BLOCK + 100 + 2) * PITCH  # samples
STRIP = 512  # samples: width in which the columns are summed, so that k = 21 lines of it stay in L1
UNROLLED = 12  # pairs of taps summed in one go; the weights of more do not fit in the registers

SAMPLES = types.Array(types.uint8, 2, "C", readonly=True)  # writable or not: one compilation
BLUR_BLOCK = types.void(
    SAMPLES, intp, intp, uint8[:, ::1], intp, intp, intp, intp, uint16[::1]
)  # fmt: skip


class _Cache(FunctionCache):
    """Numba's cache on disk. A failure of it costs a compilation and nothing else."""

    def load_overload(self, *args: Any) -> Any:
        """Load a kernel; None if it is not there or damaged."""
        try:
            return super().load_overload(*args)  # type: ignore[no-untyped-call]
        except Exception as error:  # of whatever the file holds, unpickled
            log.info("a kernel cannot be loaded from %s: %s", self.cache_path, error)
            return None

    def save_overload(self, *args: Any) -> None:
        """Save a kernel if there is room."""
        try:
            super().save_overload(*args)  # type: ignore[no-untyped-call]
        except OSError as error:
            log.info("a kernel cannot be kept in %s: %s", self.cache_path, error)


def _jit(*signatures: Any) -> Callable[[F], F]:
    """`njit` without the GIL, and with the cache on disk where there is a folder for it."""

    def decorate(function: F) -> F:
        kernel: Any = njit(nogil=True)(function)
        if hasattr(kernel, "_cache"):  # not where NUMBA_DISABLE_JIT is set
            with suppress(RuntimeError):  # no folder can be written
                kernel._cache = _Cache(function)  # type: ignore[no-untyped-call]
            for signature in signatures:
                kernel.compile(signature)
            if signatures:  # else each layout of an image would be compiled for
                kernel.disable_compile()
        return cast(F, kernel)

    return decorate


def cache_folder() -> str | None:
    """Where compiled kernels are kept; None without a folder to write, or without numba."""
    return getattr(getattr(direct, "stats", None), "cache_path", None)


# --- float ---------------------------------------------------------------------------------------


@_jit()
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


@_jit()
def _store(out: Any, total: Any) -> None:
    """Round half up to uint8."""
    half = np.float32(0.5)
    for i in range(total.size):
        out[i] = np.uint8(total[i] + half)


@_jit()
def direct(rows: Any, taps: Any, step: int, out: Any) -> None:
    """k^2 products per sample. `rows` is a window as float32, one flat row of samples a line."""
    total = np.empty(out.shape[1], np.float32)
    for y in range(out.shape[0]):
        total[:] = 0
        for dy in range(taps.shape[0]):
            _add_taps(total, rows[y + dy], taps[dy], step)
        _store(out[y], total)


@_jit()
def separable_float32(rows: Any, taps: Any, step: int, out: Any) -> None:
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


# --- fixed point ---------------------------------------------------------------------------------


def fixed_weights(weights: NDArray[np.float64]) -> NDArray[np.uint16]:
    """The weights of the pairs of taps in 65,536ths, the centre's halved: their sum is 32,768.

    Rounded by largest remainder: all down, then those that lost most up, until the sum is right.
    """
    exact = _pairs(weights)
    rounded = np.floor(exact)
    missing = 32768 - int(rounded.sum())
    rounded[np.argsort(rounded - exact, kind="stable")[:missing]] += 1
    return rounded.astype(np.uint16)


def error_bound(weights: NDArray[np.float64]) -> float:
    """How far the fixed-point sums can be from the exact ones, in levels of 255."""
    rounding = 2 * np.abs(fixed_weights(weights) - _pairs(weights)).sum() / 65536
    return 2 * float((weights.size // 2 + 2) / 2 / 128 + 255 * rounding)


def _pairs(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    exact = 65536 * weights[weights.size // 2 :]
    exact[0] /= 2
    return exact


@njit(inline="always")
def _add_pairs(
    source: Any, centre: int, step: int, fixed: Any, first: int, size: int, start: int, sums: Any
) -> None:
    """Add the products of up to `size` pairs of taps, `first` steps off the centre and further."""
    if first < fixed.size:
        count = min(size, fixed.size - first)
        last = first + count - 1
        around = source[centre - last * step :]
        for i in range(uintp(sums.size)):
            total = np.uint16(start) if first == 0 else sums[i]
            for t in range(count):
                left = around[uintp(i + (count - 1 - t) * step)]
                right = around[uintp(i + (last + first + t) * step)]
                product = uint32(np.uint16(left + right)) * fixed[first + t]
                total = np.uint16(total + np.uint16(product >> uint32(16)))
            sums[i] = total


@njit(inline="always")
def _sum_taps(
    source: Any, centre: int, step: int, fixed: Any, size: int, start: int, sums: Any
) -> None:
    """A pass over one line, in up to five groups: sums[i] = start + the weighted mean around i."""
    _add_pairs(source, centre, step, fixed, 0, size, start, sums)
    _add_pairs(source, centre, step, fixed, size, size, start, sums)
    _add_pairs(source, centre, step, fixed, 2 * size, size, start, sums)
    _add_pairs(source, centre, step, fixed, 3 * size, size, start, sums)
    _add_pairs(source, centre, step, fixed, 4 * size, size, start, sums)


@_jit()
def _widen(row: Any, channels: int, left: int, line: Any) -> None:
    """Levels to 128ths, from column `left` of a row on; beyond its ends, its end is repeated."""
    width, columns = row.size // channels, line.size // channels
    before = min(max(-left, 0), columns)
    after = min(max(left + columns - width, 0), columns)
    inner = line[before * channels : (columns - after) * channels]
    shown = row[max(left, 0) * channels :]
    for i in range(uintp(inner.size)):
        inner[i] = np.uint16(shown[i]) << np.uint16(7)
    for c in range(channels):
        for x in range(before):
            line[x * channels + c] = row[c] * 128
        for x in range(columns - after, columns):
            line[x * channels + c] = row[(width - 1) * channels + c] * 128


@_jit()
def _narrow(line: Any, row: Any) -> None:
    """128ths back to levels; the half that rounds is in the sum already."""
    for i in range(uintp(line.size)):
        row[i] = np.uint8(line[i] >> np.uint16(7))


@intrinsic
def _prefetch(_: Any, row: Any, index: Any) -> Any:
    """Have the cache line of row[index] fetched while the program goes on."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address, i32 = builder.gep(array.data, arguments[1:]), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, i32, i32, i32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, i32(0), i32(3), i32(1)])  # to read, to keep, data

    return types.void(row, index), emit


@_jit()
def _fetch(row: Any, start: int, n: int) -> None:
    for i in range(max(start, 0), min(start + n, row.size), 64):
        _prefetch(row, i)  # type: ignore[call-arg]


@lru_cache
def fixed_point(weights: tuple[int, ...], channels: int) -> Callable[..., None]:
    """Compile a blur in fixed point for these `fixed_weights` and this number of channels.

    Weights and distances of taps are constants of the compiled code, and its indices are unsigned,
    so that LLVM can unroll the pairs and vectorise along the line.

    Returns
    -------
    blur_block(samples, top, left, out, y0, x0, rows, columns, scratch)
        Blur the window of the image that starts at row `top` and column `left` in pixels, either
        of which may be negative, into out[y0 : y0 + rows, x0 : x0 + columns], both shown as rows
        of samples. `scratch` has SCRATCH uint16.
    """
    fixed, pairs = np.array(weights, np.uint32), len(weights)
    radius, mean_loss, half_a_level = pairs - 1, pairs // 2, 64
    size = -(-pairs // -(-pairs // UNROLLED))  # groups of like size
    edge = radius * channels

    @_jit(BLUR_BLOCK)
    def blur_block(
        samples: Any, top: int, left: int, out: Any, y0: int, x0: int, rows: int, columns: int,
        scratch: Any,
    ) -> None:  # fmt: skip
        n, bottom = columns * channels, samples.shape[0] - 1
        line = scratch[-PITCH:][: n + 2 * edge]
        for y in range(rows + 2 * radius):
            _fetch(samples[min(max(top + y + 4, 0), bottom)], left * channels, line.size)
            _widen(samples[min(max(top + y, 0), bottom)], channels, left, line)
            _sum_taps(line, edge, channels, fixed, size, mean_loss, scratch[y * PITCH :][:n])
        for x in range(0, n, STRIP):
            sums = scratch[-2 * PITCH :][: min(STRIP, n - x)]
            for y in range(rows):
                centre = (y + radius) * PITCH + x
                _sum_taps(scratch, centre, PITCH, fixed, size, mean_loss + half_a_level, sums)
                _narrow(sums, out[y0 + y, x0 * channels + x :][: sums.size])

    return blur_block
