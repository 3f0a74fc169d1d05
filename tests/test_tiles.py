"""Tiles cover an image without overlap; a window is what edge padding would give."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studyguide.tiles import Pixels, Tile, grid, halo_share, window

SAMPLES = Path(__file__).parents[1] / "images" / "input"
# Width, height and number of tiles of 256 pixels, of the five images that the course comes with.
SAMPLE_SIZES = [
    (1198, 1556, 35),
    (2048, 1536, 48),
    (1108, 1124, 25),
    (496, 608, 6),
    (1470, 614, 18),
]


def test_share_of_the_halo_is_what_windows_have_beyond_their_cores() -> None:
    tile, radius = Tile(0, 0, 8, 0, 8), 4
    extra = window(np.zeros((8, 8), np.uint8), tile, radius).size - 8 * 8
    assert halo_share(8, radius) == extra / 64
    assert halo_share(8, 0) == 0


sides = st.integers(1, 40)
tile_sizes = st.integers(1, 50)


def noise(height: int, width: int, channels: int, seed: int = 0) -> Pixels:
    """An image of random samples; `channels` 1 gives shape (H, W)."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@given(height=sides, width=sides, tile_size=tile_sizes)
def test_cores_cover_every_pixel_exactly_once(height: int, width: int, tile_size: int) -> None:
    covered = np.zeros((height, width), int)
    for tile in grid(height, width, tile_size):
        covered[tile.core] += 1
    assert (covered == 1).all()


@given(height=sides, width=sides, tile_size=tile_sizes)
def test_tiles_are_numbered_row_by_row_and_only_the_last_are_smaller(
    height: int, width: int, tile_size: int
) -> None:
    tiles = grid(height, width, tile_size)
    assert [tile.index for tile in tiles] == list(range(len(tiles)))
    assert [(tile.y0, tile.x0) for tile in tiles] == sorted((tile.y0, tile.x0) for tile in tiles)
    for tile in tiles:
        assert tile.height == tile_size or tile.y1 == height
        assert tile.width == tile_size or tile.x1 == width
        assert 1 <= tile.height <= tile_size
        assert 1 <= tile.width <= tile_size


@pytest.mark.parametrize(("width", "height", "count"), SAMPLE_SIZES)
def test_the_sample_sizes_give_35_48_25_6_and_18_tiles(width: int, height: int, count: int) -> None:
    assert len(grid(height, width, 256)) == count


def test_the_sample_images_have_the_sample_sizes() -> None:
    sizes = []
    for path in SAMPLES.glob("*.png"):
        with Image.open(path) as image:
            sizes.append(image.size)
    assert sorted(sizes) == sorted((width, height) for width, height, _ in SAMPLE_SIZES)


@given(
    height=sides,
    width=sides,
    channels=st.sampled_from([1, 3, 4]),
    tile_size=tile_sizes,
    radius=st.integers(0, 50),
)
def test_a_window_is_its_part_of_the_image_padded_with_its_edge(
    height: int, width: int, channels: int, tile_size: int, radius: int
) -> None:
    image = noise(height, width, channels)
    around = [(radius, radius), (radius, radius), (0, 0)][: image.ndim]
    padded = np.pad(image, around, mode="edge")
    for tile in grid(height, width, tile_size):
        cut = padded[tile.y0 : tile.y1 + 2 * radius, tile.x0 : tile.x1 + 2 * radius]
        np.testing.assert_array_equal(window(image, tile, radius), cut)


def test_a_window_has_a_halo_of_its_radius_on_each_side() -> None:
    image = noise(20, 30, 4)
    tile = Tile(0, 5, 9, 6, 12)
    assert window(image, tile, 3).shape == (4 + 6, 6 + 6, 4)
    np.testing.assert_array_equal(window(image, tile, 3), image[2:12, 3:15])


def test_a_window_of_a_single_pixel_repeats_it() -> None:
    assert (window(np.full((1, 1), 7, np.uint8), Tile(0, 0, 1, 0, 1), 50) == 7).all()


@pytest.mark.parametrize("radius", [0, 2])
def test_a_window_is_a_copy(radius: int) -> None:
    image = np.zeros((8, 8), np.uint8)
    window(image, Tile(0, 2, 6, 2, 6), radius)[:] = 1
    assert not image.any()
