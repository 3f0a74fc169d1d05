"""What every run of the fault matrix blurs: two small images, and what must become of them."""

from functools import lru_cache

import numpy as np

from studyguide import images
from studyguide.blur import blur_whole
from studyguide.settings import Blur
from studyguide.tiles import Pixels
from studyguide.work import ImageJob

TILE_SIZE, BLUR = 64, Blur.of(5, method="separable")
GRIDS = {"first.png": (2, 2), "last.png": (4, 2)}  # tiles down and across
TILES = [(image, tile) for image, (down, across) in GRIDS.items() for tile in range(down * across)]


@lru_cache
def pictures() -> dict[str, Pixels]:
    """The images of every run: noise, one grey and one with colour and transparency."""
    made, noise = {}, np.random.default_rng(1)
    for image, (down, across) in GRIDS.items():
        channels = (4,) if image == "last.png" else ()
        shape = (down * TILE_SIZE, across * TILE_SIZE, *channels)
        made[image] = noise.integers(0, 256, shape, dtype=np.uint8)
    return made


def job(image: str, run_id: str = "") -> ImageJob:
    """The job that a coordinator makes of an image."""
    return ImageJob.of(image, pictures()[image], TILE_SIZE, BLUR, run_id)


@lru_cache
def expected(image: str, dead: frozenset[int]) -> str:
    """The digest of the sequential run's image, where dead tiles keep the original pixels."""
    original = pictures()[image]
    pixels = blur_whole(original, BLUR)
    for tile in job(image).tiles:
        if tile.index in dead:
            pixels[tile.core] = original[tile.core]
    return images.sha256(pixels)
