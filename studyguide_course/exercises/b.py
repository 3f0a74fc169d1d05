"""Exercises of lesson b: the halo, the choice of tiles and workers, and a race."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from studyguide.tiles import Pixels, Tile, grid
from studyguide_course.exercises import exercise, judge
from studyguide_course.exercises.interleave import Stuck, interleavings, run

Window = Callable[[Pixels, Tile, int], Pixels]


@exercise("b1", "the halo window")
def halo_window(answer: Window) -> str | None:
    """Compare with numpy's padding of the whole image, at edges and inside, grey and in colour."""
    random = np.random.default_rng(1)
    grey = random.integers(0, 256, (14, 11), dtype=np.uint8)
    colour = random.integers(0, 256, (14, 11, 3), dtype=np.uint8)
    cases = [(image, tile, 3) for image in (grey, colour) for tile in grid(14, 11, 5)]
    return judge(answer, cases, _padded_by("edge"), USUAL_WINDOWS)


def _padded_by(mode: str) -> Window:
    def window(image: Pixels, tile: Tile, radius: int) -> Pixels:
        around = [(radius, radius)] * 2 + [(0, 0)] * (image.ndim - 2)
        return _cut(np.pad(image, around, mode=mode), tile, 2 * radius)  # type: ignore[call-overload]

    return window


def _cut(image: Pixels, tile: Tile, more: int) -> Pixels:
    return image[tile.y0 : tile.y1 + more, tile.x0 : tile.x1 + more]


USUAL_WINDOWS: dict[str, Window] = {
    "this is the core alone; the halo is missing": lambda image, tile, r: image[tile.core],
    "at the top and left a slice begins below 0, and numpy counts that from the other end": (
        lambda image, t, r: image[t.y0 - r : t.y1 + r, t.x0 - r : t.x1 + r]
    ),
    "at the image's edges the window is too small: repeat the nearest pixel": (
        lambda image, t, r: image[max(t.y0 - r, 0) : t.y1 + r, max(t.x0 - r, 0) : t.x1 + r]
    ),
    "your halo repeats the tile's own edge; it must hold the neighbours' pixels": (
        lambda image, t, r: _padded_by("edge")(image[t.core], Tile(0, 0, t.height, 0, t.width), r)
    ),
    "beyond the image's edge you have 0, which darkens the edges": _padded_by("constant"),
    "beyond the image's edge you mirror it; repeat the nearest pixel": _padded_by("reflect"),
    "the halo is missing at the bottom and on the right": (
        lambda image, tile, r: _padded_by("edge")(image, tile, r)[:-r, :-r]
    ),
    "right for grey; in colour there is a third axis, and it needs no halo": (
        lambda image, tile, r: _cut(np.pad(image, r, mode="edge"), tile, 2 * r)
    ),
}


class Order(NamedTuple):
    """Photos to be blurred, the machine, and what is asked of the cutting."""

    height: int = 3000
    width: int = 4000
    kernel_size: int = 41
    cores: int = 8
    most_halo: float = 0.25  # pixels that travel in addition, as a part of the image's
    fewest_tiles_per_worker: int = 8  # so that the last round, with idle workers, is a short one


@exercise("b2", "tile size and workers")
def cutting(answer: tuple[int, int]) -> str | None:
    """Judge by the windows and tiles that one photo is cut into."""
    order, (tile_size, workers) = Order(), answer
    if workers < order.cores:
        return f"{order.cores - workers} of {order.cores} cores would have nothing to blur"
    if workers > order.cores:
        return (
            f"{workers - order.cores} of your workers have no core: they take turns with the "
            "others, and each holds a window in memory"
        )
    tiles = grid(order.height, order.width, tile_size)
    margin = order.kernel_size - 1
    travel = sum((tile.height + margin) * (tile.width + margin) for tile in tiles)
    extra = travel / (order.height * order.width) - 1
    if extra > order.most_halo:
        return f"the halo adds {extra:.0%} to the pixels that travel: the tiles are too small"
    if len(tiles) / workers < order.fewest_tiles_per_worker:
        return f"{len(tiles)} tiles are {len(tiles) / workers:.1f} per worker: they are too large"
    return None


class CarelessAssembler:
    """Counts an image's tiles, and saves it with the last one. Several threads call `add`."""

    def __init__(self, tiles: int) -> None:
        self.missing = tiles
        self.placed: set[int] = set()
        self.saved = 0

    def add(self, tile: int) -> None:
        """Put a tile in its place; it may come twice, and counts once."""
        if tile in self.placed:
            return
        self.placed.add(tile)
        self.missing -= 1
        if self.missing == 0:
            self.saved += 1


@exercise("b3", "the race in the assembler")
def race(answer: type[CarelessAssembler]) -> str | None:
    """Have two threads add tiles, one of them paused at each of its steps in turn."""
    alone, halves = answer(2), (lambda it: it.add(0), lambda it: it.add(1))
    try:
        run(lambda: list(map(alone.add, (0, 0, 1, 1))), lambda: None, -1)
        if alone.saved != 1:
            return (
                f"one thread alone adds two tiles, each twice: saved {alone.saved} times, not once"
            )
        for it, line in interleavings(lambda: answer(2), *halves):
            if it.saved != 1:
                return _unlucky(answer, line, f"of two tiles, and saved {it.saved} times")
        for it, line in interleavings(lambda: answer(2), halves[0], halves[0]):
            if it.saved or it.missing != 1:
                return _unlucky(answer, line, "of two, one tile came to both and was counted twice")
    except Stuck:
        return "it hangs: a lock that is taken must be given back on every way out, also by return"
    return None


def _unlucky(answer: type[CarelessAssembler], line: str, what: str) -> str:
    if "Lock" in answer.add.__code__.co_names:
        return "each call makes a lock of its own, which keeps nobody out: all must share one"
    where = f" at `{line}`" if line else ""
    return f"one thread was paused{where} while the other ran: an image {what}"
