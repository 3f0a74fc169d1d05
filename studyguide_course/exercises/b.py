"""Exercises of lesson b: the halo, the choice of tiles and workers, and a race."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from studyguide.tiles import Pixels, Tile, grid
from studyguide_course.exercises import Hints, compare, exercise
from studyguide_course.exercises.interleave import Stuck, interleavings, run

RANDOM = np.random.default_rng(1)
IMAGES = [RANDOM.integers(0, 256, (14, 11, *rest), np.uint8) for rest in ((), (3,))]


def _padded_by(mode: str) -> Callable[[Pixels, Tile, int], Pixels]:
    """Cut windows from the whole image, which numpy pads."""

    def window(image: Pixels, tile: Tile, radius: int) -> Pixels:
        return _cut(_padded(image, radius, mode), tile, 2 * radius)

    return window


def _padded(image: Pixels, radius: int, mode: str) -> Pixels:
    around = [(radius, radius)] * 2 + [(0, 0)] * (image.ndim - 2)
    return np.pad(image, around, mode=mode)  # type: ignore[call-overload, no-any-return]


def _cut(image: Pixels, tile: Tile, more: int) -> Pixels:
    return image[tile.y0 : tile.y1 + more, tile.x0 : tile.x1 + more]


compare(
    "b1",
    "the halo window",
    cases=[(image, tile, 3) for image in IMAGES for tile in grid(14, 11, 5)],
    right=_padded_by("edge"),
    usual={
        "this is the core alone; the halo is missing": lambda image, tile, r: image[tile.core],
        "at the top and left a slice begins below 0, and numpy counts that from the other end": (
            lambda image, t, r: image[t.y0 - r : t.y1 + r, t.x0 - r : t.x1 + r]
        ),
        "at the image's edges the window is too small: repeat the nearest pixel": (
            lambda image, t, r: image[max(t.y0 - r, 0) : t.y1 + r, max(t.x0 - r, 0) : t.x1 + r]
        ),
        "your halo repeats the tile's own edge; it must hold the neighbours' pixels": (
            lambda image, tile, r: _padded(image[tile.core], r, "edge")
        ),
        "beyond the image's edge you have 0, which darkens the edges": _padded_by("constant"),
        "beyond the image's edge you mirror it; repeat the nearest pixel": _padded_by("reflect"),
        "the halo is missing at the bottom and on the right": (
            lambda image, tile, r: _padded_by("edge")(image, tile, r)[:-r, :-r]
        ),
        "right for grey; in colour there is a third axis, and it needs no halo": (
            lambda image, tile, r: _cut(np.pad(image, r, mode="edge"), tile, 2 * r)
        ),
    },
)


class Order(NamedTuple):
    """Photos to be blurred, the machine, and what is asked of the cutting."""

    height: int = 3000
    width: int = 4000
    kernel_size: int = 41
    cores: int = 8
    most_halo: float = 0.25  # pixels that travel in addition, as a part of the image's
    fewest_tiles_per_worker: int = 8  # so that the last round, with idle workers, is a short one


@exercise("b2", "tile size and workers")
def cutting(answer: tuple[int, int]) -> Hints:
    """Judge by the windows and tiles that one photo is cut into."""
    order, (tile_size, workers) = Order(), answer
    if workers < order.cores:
        yield f"{order.cores - workers} of {order.cores} cores would have nothing to blur"
    if workers > order.cores:
        yield (
            f"{workers - order.cores} of your workers have no core: they take turns with the "
            "others, and each holds a window in memory"
        )
    tiles = grid(order.height, order.width, tile_size)
    margin = order.kernel_size - 1
    travel = sum((tile.height + margin) * (tile.width + margin) for tile in tiles)
    extra = travel / (order.height * order.width) - 1
    if extra > order.most_halo:
        yield f"the halo adds {extra:.0%} to the pixels that travel: the tiles are too small"
    if len(tiles) / workers < order.fewest_tiles_per_worker:
        yield f"{len(tiles)} tiles are {len(tiles) / workers:.1f} per worker: they are too large"


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
def race(answer: type[CarelessAssembler]) -> Hints:
    """Have two threads add tiles, one of them paused at each of its steps in turn."""
    alone, halves = answer(2), (lambda it: it.add(0), lambda it: it.add(1))
    try:
        run(lambda: list(map(alone.add, (0, 0, 1, 1))), lambda: None, -1)
        if alone.saved != 1:
            said = f"saved {alone.saved} times, not once"
            yield f"one thread alone adds two tiles, each twice: {said}"
        for it, line in interleavings(lambda: answer(2), *halves):
            if it.saved != 1:
                yield _unlucky(answer, line, f"of two tiles, and saved {it.saved} times")
        for it, line in interleavings(lambda: answer(2), halves[0], halves[0]):
            if it.saved or it.missing != 1:
                yield _unlucky(answer, line, "of two, one tile came to both and was counted twice")
    except Stuck:
        yield "it hangs: a lock that is taken must be given back on every way out, also by return"


def _unlucky(answer: type[CarelessAssembler], line: str, what: str) -> str:
    if "Lock" in answer.add.__code__.co_names:
        return "each call makes a lock of its own, which keeps nobody out: all must share one"
    where = f" at `{line}`" if line else ""
    return f"one thread was paused{where} while the other ran: an image {what}"


def _least(python: float, kernel: float, pickled: float, start: float, cores: int) -> float:
    """Tiles from which on processes are faster than threads, by what each takes for one of many."""
    shared = (python + kernel) / cores
    gain = max(python, shared) - max(pickled, shared)
    return math.floor(start / gain) + 1 if gain > 0 else math.inf


compare(
    "b4",
    "from how many tiles on processes pay",
    cases=[
        (0.25, 0.0, 0.0625, 2.0, 2),
        (0.25, 0.5, 0.0625, 3.2, 4),
        (0.5, 0.25, 0.375, 2.1, 8),
        (0.0, 0.5, 0.0625, 2.0, 4),
        (0.125, 0.0, 0.25, 2.0, 4),
    ],
    right=_least,
    usual={
        "with so many tiles both take equally long; one more, and processes are faster": (
            lambda *case: _least(*case) - 1
        ),
        "threads run Python one at a time: a tile takes them at least `python_s`": (
            lambda *case: math.inf
        ),
        "kernels run in parallel on threads too: only `python_s` holds the GIL": (
            lambda py, kernel, *case: _least(py + kernel, 0.0, *case)
        ),
        "one process pickles all tiles: a tile takes at least `pickle_s`": (
            lambda py, kernel, pickled, *case: _least(py, kernel, 0.0, *case)
        ),
        "the processes have to start first": (
            lambda py, kernel, pickled, start, cores: _least(py, kernel, pickled, 0.0, cores)
        ),
    },
)
