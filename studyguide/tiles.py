"""Tile geometry: an image is cut into cores; a window is a core with its halo.

A stencil of radius r needs r pixels around each pixel that it computes. A tile therefore travels
as a window, its core grown by a halo of r pixels on each side. Beyond the image's edge the nearest
pixel is repeated, which is also what the blur of a whole image does: so a tiled blur equals the
untiled one bit for bit, for every tile size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Tile:
    """The core of one tile: rows y0 to y1 and columns x0 to x1, ends excluded, in pixels."""

    index: int
    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def height(self) -> int:
        """Rows of the core."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Columns of the core."""
        return self.x1 - self.x0

    @property
    def core(self) -> tuple[slice, slice]:
        """Where the core lies in the image: an index for an array of shape (H, W) or (H, W, C)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


def grid(height: int, width: int, tile_size: int) -> list[Tile]:
    """Cut an image into tiles, row by row; those at the right and bottom edge may be smaller.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels.
    tile_size : int
        Side of a core in pixels.

    Returns
    -------
    list of Tile
        Disjoint cores that cover the image; `tiles[i].index == i`.
    """
    boxes = (
        (y, min(y + tile_size, height), x, min(x + tile_size, width))
        for y in range(0, height, tile_size)
        for x in range(0, width, tile_size)
    )
    return [Tile(index, *box) for index, box in enumerate(boxes)]


def window(image: Pixels, tile: Tile, radius: int) -> Pixels:
    """Copy a tile with its halo out of an image.

    Parameters
    ----------
    image : uint8 array, shape (H, W) or (H, W, C)
    tile : Tile
    radius : int
        Width of the halo in pixels.

    Returns
    -------
    uint8 array, shape (tile.height + 2 radius, tile.width + 2 radius[, C])
        Pixels beyond the image's edge repeat the nearest one.
    """
    height, width = image.shape[:2]
    top, left = tile.y0 - radius, tile.x0 - radius
    y0, y1 = max(top, 0), min(tile.y1 + radius, height)
    x0, x1 = max(left, 0), min(tile.x1 + radius, width)
    shape = (tile.height + 2 * radius, tile.width + 2 * radius, *image.shape[2:])
    copy = np.empty(shape, np.uint8)  # numpy.pad takes twice as long
    rows = copy[y0 - top : y1 - top]
    rows[:, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    rows[:, : x0 - left] = image[y0:y1, x0 : x0 + 1]
    rows[:, x1 - left :] = image[y0:y1, x1 - 1 : x1]
    copy[: y0 - top], copy[y1 - top :] = rows[0], rows[-1]
    return copy


def halo_share(tile_size: int, radius: int) -> float:
    """Pixels of a square tile's halo, on all four sides, as a share of the pixels of its core."""
    return (tile_size + 2 * radius) ** 2 / tile_size**2 - 1
