"""The blur against scipy's in float64, and against itself: tiled, threaded, channel by channel."""

import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from studyguide import blur as blur_module
from studyguide.blur import blur_whole, blur_window, gaussian_blur, weights
from studyguide.errors import UsageError
from studyguide.machinery import kernels
from studyguide.machinery.kernels import error_bound, fixed_weights
from studyguide.settings import MAX_KERNEL_SIZE, METHODS, Blur
from studyguide.tiles import Pixels, grid, window

CHANNELS = (1, 3, 4)
IMAGES = Path(__file__).parents[1] / "images" / "input"

kernel_sizes = st.integers(0, MAX_KERNEL_SIZE // 2).map(lambda radius: 2 * radius + 1)
sigmas = st.none() | st.floats(0.05, 200)
FLOATS = ("direct", "separable-float32")
# The fixed-point kernel is compiled for its weights and channels, in seconds each: a few of them,
# the same in all tests, from one group of taps to five.
FIXED = (
    *(Blur.of(size, method="separable") for size in (5, 21, 101)),
    Blur.of(7, 0.6, "separable"),
)
any_blurs = st.builds(Blur.of, kernel_sizes, sigmas, st.sampled_from(METHODS))
blurs = st.builds(Blur.of, kernel_sizes, sigmas, st.sampled_from(FLOATS)) | st.sampled_from(FIXED)


@st.composite
def pictures(draw: st.DrawFn, longest: int = 24) -> Pixels:
    """Grey, RGB or RGBA images from 1x1 on: noise, black and white, or steps."""
    height, width = draw(st.integers(1, longest)), draw(st.integers(1, longest))
    levels = draw(st.sampled_from([2, 3, 256]))
    shape = shape_of(height, width, draw(st.sampled_from(CHANNELS)))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    return (random.integers(0, levels, shape) * (255 // (levels - 1))).astype(np.uint8)


def shape_of(height: int, width: int, channels: int) -> tuple[int, ...]:
    return (height, width) if channels == 1 else (height, width, channels)


def noise(height: int, width: int, channels: int, seed: int = 0) -> Pixels:
    shape = shape_of(height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def kernel_of(blur: Blur) -> Any:
    """The 1-D kernel in float64, as its formula stands."""
    distance = np.arange(-blur.radius, blur.radius + 1)
    raw = np.exp(-0.5 * (distance / blur.sigma) ** 2)
    return raw / raw.sum()


def by_scipy(image: Pixels, blur: Blur) -> Pixels:
    """What scipy gives in float64, rounded half up."""
    kernel, out = kernel_of(blur), image.astype(np.float64)
    for axis in (0, 1):
        out = ndimage.correlate1d(out, kernel, axis, mode="nearest")
    return np.floor(out + 0.5).astype(np.uint8)


def levels_apart(one: Pixels, other: Pixels) -> Any:
    return np.abs(one.astype(int) - other.astype(int))


# --- scipy is the oracle -------------------------------------------------------------------------


@given(image=pictures(), blur=blurs)
@example(image=noise(1, 1, 1), blur=Blur.of(101))
@example(image=noise(1, 1, 4), blur=Blur.of(1))
@example(image=noise(24, 1, 3), blur=Blur.of(101, method="separable"))
def test_blur_agrees_with_scipy_to_one_level(image: Pixels, blur: Blur) -> None:
    ours = gaussian_blur(image, blur.kernel_size, blur.sigma, blur.method)
    assert ours.shape == image.shape
    assert ours.dtype == np.uint8
    assert levels_apart(ours, by_scipy(image, blur)).max() <= 1


@dataclass(frozen=True)
class Case:
    """An image of the corpus and what is done to it."""

    image: Pixels
    kernel_size: int
    sigma: float | None


def corpus() -> Iterator[Case]:
    """150 seeded images, 1x1 to 64x64, with kernels 1 to 101 and sigmas usual and unusual."""
    random = np.random.default_rng(2024)
    for number in range(150):
        height, width = random.integers(1, 65, 2)
        kernel_size = 1 + 2 * int(random.integers(0, 51))
        sigma = None if number % 2 else float(random.uniform(0.3, kernel_size))
        yield Case(noise(height, width, CHANNELS[number % 3], number), kernel_size, sigma)


@pytest.mark.parametrize(("method", "one_in"), [("direct", 5_000), ("separable-float32", 50_000)])
def test_direct_differs_from_scipy_in_1_of_5000_samples_at_most_and_separable_in_1_of_50000(
    method: str, one_in: int
) -> None:
    """By one level each: 39 of the corpus' 369,750 samples (0.0105 %) and 4 (0.0011 %).

    Their exact values lie so close to half a level that float32 rounds them to the other side.
    """
    differing = samples = 0
    for case in corpus():
        blur = Blur.of(case.kernel_size, case.sigma, method)
        ours = gaussian_blur(case.image, case.kernel_size, case.sigma, method)
        apart = levels_apart(ours, by_scipy(case.image, blur))
        assert apart.max() <= 1
        differing += int(np.count_nonzero(apart))
        samples += apart.size
    assert samples == 369_750
    assert differing * one_in <= samples


def test_fixed_point_differs_by_one_level_in_6_of_1000_samples_of_the_course_images_at_most() -> (
    None
):
    differing = samples = 0
    for path in sorted(IMAGES.glob("*.png")):
        image = np.asarray(Image.open(path).convert("RGBA"))
        apart = levels_apart(gaussian_blur(image), by_scipy(image, Blur.of(21)))
        assert apart.max() <= 1
        differing += int(np.count_nonzero(apart))
        samples += apart.size
    assert 0 < differing * 1000 <= 6 * samples


@given(blur=any_blurs)
def test_fixed_point_sums_stay_within_one_level_of_the_exact_ones_for_every_kernel(
    blur: Blur,
) -> None:
    """So no sample can differ by more than one, however the image looks."""
    assert error_bound(weights(blur)) < 1


@given(blur=any_blurs)
@example(blur=Blur.of(1))
@example(blur=Blur.of(101, 1e308))
def test_fixed_weights_sum_to_half_of_65536_and_are_off_by_less_than_one_each(blur: Blur) -> None:
    fixed, exact = fixed_weights(weights(blur)), 65536 * weights(blur)[blur.radius :]
    exact[0] /= 2
    assert fixed.sum() == 32_768
    assert (np.abs(fixed - exact) < 1).all()
    # The two largest taps, summed, and a whole line of them at the highest level: no overflow.
    assert 2 * 128 * 255 + 2 * (blur.radius + 2) < 65_536


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kernel_size", [1, 5, 21, 101])
def test_blur_is_the_convolution_with_the_2d_kernel(method: str, kernel_size: int) -> None:
    image, blur = noise(20, 30, 1), Blur.of(kernel_size, method=method)
    kernel = np.outer(kernel_of(blur), kernel_of(blur))
    exact = ndimage.convolve(image.astype(np.float64), kernel, mode="nearest")
    ours = gaussian_blur(image, kernel_size, method=method)
    # It is the nearest level, to float32 rounding or as near as fixed point comes.
    tolerance = error_bound(weights(blur)) if method == "separable" else 1e-3
    assert np.abs(ours - exact).max() <= 0.5 + tolerance


@given(image=pictures(), kernel_size=kernel_sizes, sigma=sigmas)
def test_direct_and_separable_agree_to_one_level(
    image: Pixels, kernel_size: int, sigma: float | None
) -> None:
    direct, separable = (gaussian_blur(image, kernel_size, sigma, name) for name in FLOATS)
    assert levels_apart(direct, separable).max() <= 1


# --- tiles and workers change no bit -------------------------------------------------------------


def tiled(image: Pixels, blur: Blur, tile_size: int) -> Pixels:
    out = np.empty_like(image)
    for tile in grid(image.shape[0], image.shape[1], tile_size):
        out[tile.core] = blur_window(window(image, tile, blur.radius), blur)
    return out


@given(image=pictures(), blur=blurs, tile_size=st.integers(1, 30))
@example(image=noise(1, 1, 4), blur=Blur.of(101), tile_size=1)
@example(image=noise(3, 2, 3), blur=Blur.of(101, method="separable"), tile_size=1)
@example(image=noise(24, 24, 1), blur=Blur.of(51), tile_size=7)
def test_a_tiled_blur_equals_the_untiled_one_bit_for_bit(
    image: Pixels, blur: Blur, tile_size: int
) -> None:
    np.testing.assert_array_equal(tiled(image, blur, tile_size), blur_whole(image, blur))


@settings(max_examples=25)
@given(
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    channels=st.sampled_from(CHANNELS),
    kernel_size=st.sampled_from([5, 21, 101]),
    tile_size=st.sampled_from([64, 100, 255, 256, 257, 1000]),
    workers=st.integers(1, 8),
)
def test_larger_images_have_the_same_bits_with_any_tile_size_and_number_of_workers(
    height: int, width: int, channels: int, kernel_size: int, tile_size: int, workers: int
) -> None:
    image, blur = noise(height, width, channels), Blur.of(kernel_size, method="separable")
    whole = blur_whole(image, blur)
    np.testing.assert_array_equal(tiled(image, blur, tile_size), whole)
    np.testing.assert_array_equal(gaussian_blur(image, kernel_size, workers=workers), whole)


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_the_direct_blur_has_the_same_bits_with_any_number_of_workers(workers: int) -> None:
    image = noise(300, 600, 3)
    ours = gaussian_blur(image, 5, method="direct", workers=workers)
    np.testing.assert_array_equal(ours, blur_whole(image, Blur.of(5)))


# --- what a blur must leave alone ----------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kernel_size", [1, 5, 21, 101])
def test_a_constant_image_of_any_level_stays_constant(method: str, kernel_size: int) -> None:
    for level in range(256):
        image = np.full((2, 3, 4), level, np.uint8)
        np.testing.assert_array_equal(gaussian_blur(image, kernel_size, method=method), image)


@given(level=st.integers(0, 255), blur=blurs)
def test_a_constant_image_stays_constant_under_any_sigma(level: int, blur: Blur) -> None:
    image = np.full((3, 2), level, np.uint8)
    np.testing.assert_array_equal(
        gaussian_blur(image, blur.kernel_size, blur.sigma, blur.method), image
    )


@given(image=pictures(), method=st.sampled_from(METHODS), sigma=st.sampled_from([None, 0.1, 99.0]))
def test_a_kernel_of_one_pixel_changes_nothing(
    image: Pixels, method: str, sigma: float | None
) -> None:
    np.testing.assert_array_equal(gaussian_blur(image, 1, sigma, method), image)


@given(image=pictures(), blur=blurs)
def test_channels_are_blurred_independently_and_alpha_as_any_other(
    image: Pixels, blur: Blur
) -> None:
    ours = blur_whole(image, blur)
    channels = 1 if image.ndim == 2 else image.shape[2]
    split, blurred = image.reshape(*image.shape[:2], -1), ours.reshape(*ours.shape[:2], -1)
    for channel in range(channels):
        alone = blur_whole(np.ascontiguousarray(split[..., channel]), blur)
        np.testing.assert_array_equal(blurred[..., channel], alone)


@pytest.mark.parametrize("method", METHODS)
def test_the_image_given_is_left_alone_and_the_result_is_new(method: str) -> None:
    image = noise(9, 8, 3)
    before = image.copy()
    ours = gaussian_blur(image, 1, method=method)
    ours[:] = 0
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("method", METHODS)
def test_the_layout_of_an_image_in_memory_does_not_matter(method: str) -> None:
    image = noise(18, 26, 4)
    read_only = image.copy()
    read_only.flags.writeable = False
    expected = gaussian_blur(image, 5, method=method)
    for same in (np.asfortranarray(image), np.repeat(image, 2, axis=1)[:, ::2], read_only):
        ours = gaussian_blur(same, 5, method=method)
        np.testing.assert_array_equal(ours, expected)
        assert ours.flags.c_contiguous
    flipped = gaussian_blur(image[::-1], 5, method=method)
    np.testing.assert_array_equal(flipped, gaussian_blur(image[::-1].copy(), 5, method=method))
    grey = np.ascontiguousarray(image[..., 0])
    np.testing.assert_array_equal(
        gaussian_blur(np.asfortranarray(grey), 5, method=method), expected[..., 0]
    )


# --- weights -------------------------------------------------------------------------------------


@given(blur=blurs)
@example(blur=Blur.of(101, 5e-324))
@example(blur=Blur.of(101, 1e-170))
@example(blur=Blur.of(101, 1e308))
def test_weights_are_symmetric_fall_off_from_the_middle_and_sum_to_one(blur: Blur) -> None:
    taps = weights(blur)
    assert taps.shape == (blur.kernel_size,)
    assert taps.dtype == np.float64
    np.testing.assert_array_equal(taps, taps[::-1])
    assert (np.diff(taps[: blur.radius + 1]) >= 0).all()
    assert math.isclose(float(taps.sum(dtype=np.float64)), 1.0, abs_tol=1e-6)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 3, 1), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        [[1, 2], [3, 4]],
        None,
    ],
    ids=lambda image: f"{getattr(image, 'dtype', type(image))}{getattr(image, 'shape', '')}",
)
def test_an_array_that_is_no_image_is_refused_and_the_right_shapes_are_named(image: Any) -> None:
    with pytest.raises(UsageError, match=r"\(H, W\), \(H, W, 3\) or \(H, W, 4\)"):
        gaussian_blur(image)


@pytest.mark.parametrize(
    "wrong",
    [{"kernel_size": 4}, {"sigma": math.nan}, {"method": "fft"}, {"workers": 0}, {"workers": 1.5}],
    ids=str,
)
def test_an_argument_out_of_its_range_is_refused_by_name_and_value(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(UsageError) as caught:
        gaussian_blur(np.zeros((4, 4), np.uint8), **wrong)
    assert name.replace("_", " ") in caught.value.problem
    assert repr(value) in caught.value.problem
    assert caught.value.remedy.startswith("Use ")


def test_no_kernel_reorders_or_fuses_its_sums() -> None:
    """Fast-math would make pixels depend on the processor that they were blurred on."""
    compiled = (kernels._add_taps, kernels.direct, kernels.separable_float32)
    assert [kernel.targetoptions.get("fastmath", False) for kernel in compiled] == [False] * 3


# --- compilation ---------------------------------------------------------------------------------


def test_the_same_kernel_is_compiled_once_whoever_asks_and_however_the_image_lies_in_memory() -> (
    None
):
    kernels.fixed_point.cache_clear()
    blur_module._compiled.cache_clear()
    image = noise(300, 700, 4)
    read_only = image.copy()
    read_only.flags.writeable = False
    for picture in (image, read_only, np.asfortranarray(image)):
        gaussian_blur(picture, 5, workers=4)
    assert kernels.fixed_point.cache_info().misses == 1
    blur_block = blur_module._compiled(Blur.of(5, method="separable"), 4)
    assert len(blur_block.signatures) == 1  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_is_forked_has_threads_of_its_own() -> None:
    image = noise(300, 300, 1)
    expected = gaussian_blur(image, 5, workers=2)
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        np.testing.assert_array_equal(pool.submit(blur_in_child, image).result(30), expected)


def blur_in_child(image: Pixels) -> Pixels:
    return gaussian_blur(image, 5, workers=2)


AT_EXIT = """
import atexit
import numpy as np
from studyguide import gaussian_blur

image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
expected = gaussian_blur(image, 5, workers={before})

@atexit.register
def blur():
    print((gaussian_blur(image, 5, workers=2) == expected).all())
"""


@pytest.mark.parametrize("before", [1, 2])
def test_an_image_can_be_blurred_when_python_ends(before: int) -> None:
    program = AT_EXIT.format(before=before)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.parametrize("allowed", [0, 1])
def test_where_no_further_thread_can_be_started_the_others_do_the_work(
    allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(2).integers(0, 256, (300, 300), dtype=np.uint8)
    whole, started = blur_whole(image, Blur.of(3, method="direct")), []

    def start(thread: threading.Thread) -> None:
        if len(started) == allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        really_start(thread)

    really_start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    blur_module._pool.cache_clear()
    blurred = gaussian_blur(image, 3, method="direct", workers=4)
    blur_module._pool.cache_clear()
    np.testing.assert_array_equal(blurred, whole)
    assert len(started) == allowed


class Labelled(np.ndarray):
    """What imaging libraries give: an array with something beside it."""


def test_an_array_of_another_library_that_is_an_image_is_blurred(tmp_path: Path) -> None:
    image = np.arange(30, dtype=np.uint8).reshape(5, 6)
    mapped = np.memmap(tmp_path / "image", np.uint8, "w+", shape=image.shape)
    mapped[:] = image
    for like in (image.view(Labelled), mapped, np.asfortranarray(image), image[::-1][::-1]):
        blurred = gaussian_blur(like, 3, method="direct")
        assert type(blurred) is np.ndarray
        np.testing.assert_array_equal(blurred, gaussian_blur(image, 3, method="direct"))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_arrays_that_mean_something_else_are_refused_by_name() -> None:
    image = np.zeros((5, 6), np.uint8)
    for wrong, name in ((np.ma.masked_array(image), "MaskedArray"), (np.matrix(image), "matrix")):
        with pytest.raises(UsageError, match=rf"The image is {name} of uint8 \(5, 6\)\. Pass"):
            gaussian_blur(wrong, 3)
    for wrong in ([[0, 1]], image.tolist(), memoryview(image), None):
        with pytest.raises(UsageError, match=f"The image is {type(wrong).__name__}"):
            gaussian_blur(wrong, 3)


def test_numbers_of_numpy_are_numbers_and_a_bool_is_none() -> None:
    image = np.arange(30, dtype=np.uint8).reshape(5, 6)
    blurred = gaussian_blur(image, np.int64(3), np.float32(2), "direct", np.uint8(1))
    np.testing.assert_array_equal(blurred, gaussian_blur(image, 3, 2.0, "direct"))
    for wrong in (True, np.True_, 1.0, np.float64(1), "1", None, np.array([1])):
        with pytest.raises(UsageError, match="workers is"):
            gaussian_blur(image, 3, workers=wrong)


# --- numba's cache -------------------------------------------------------------------------------

WITHOUT_CACHE = """
import errno, os
from numba.core import caching

def fail(*_):
    raise {error}

{breakage}
import numpy as np
from numba import uint8, void
from studyguide_course.doctor import kernel_cache
from studyguide.machinery.kernels import _jit

def fill(line, value):
    for i in range(line.size):
        line[i] = value

line = np.zeros(3, np.uint8)
for kernel in (_jit()(fill), _jit(void(uint8[::1], uint8))(fill)):
    kernel(line, np.uint8(line[0] + 7))
print(line.sum(), kernel_cache())
"""


@pytest.mark.parametrize(
    ("breakage", "error", "told"),
    [
        ("", "OSError", "{cache}"),
        ("caching.CompileResultCacheImpl._locator_classes = []", "OSError", "none: .*NUMBA_CACHE"),
        ("caching.IndexDataCacheFile.load = fail", "EOFError('damaged')", "{cache}"),
        ("caching.IndexDataCacheFile.save = fail", "OSError(errno.ENOSPC, 'full')", "{cache}"),
    ],
    ids=["it works", "no folder", "damaged", "full"],
)
def test_kernels_need_no_cache_on_disk(
    breakage: str, error: str, told: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(WITHOUT_CACHE.format(breakage=breakage, error=error))
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(f"42 {told.format(cache=tmp_path / 'cache')}", done.stdout)
