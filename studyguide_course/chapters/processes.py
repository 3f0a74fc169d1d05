"""Lesson b, processes: what it costs to hand them tiles, and when that pays.

A process imports the functions that it runs, so these cannot be defined in a notebook.
"""

import os
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, resource_tracker
from multiprocessing.shared_memory import SharedMemory
from operator import mul

import numpy as np

from studyguide.blur import blur_window, weights
from studyguide.settings import Blur
from studyguide.tiles import Pixels, Tile, grid, window

BLURS = {method: Blur.of(method=method) for method in ("separable", "direct")}
RADIUS, TILE_SIZE = BLURS["direct"].radius, 256  # pixels
LINES = 4  # of a tile: what is done of it in pure Python


def do_tile(job: str, padded: Pixels) -> Pixels:
    """Blur a window's core, or in "pure Python" its first lines, along them; it must be grey."""
    if job in BLURS:
        return blur_window(padded, BLURS[job])
    taps, lines = weights(BLURS["direct"]).tolist(), padded[RADIUS : RADIUS + LINES].tolist()
    starts = range(padded.shape[1] - 2 * RADIUS)
    return np.array([[sum(map(mul, taps, line[x:])) for x in starts] for line in lines], np.uint8)


def start(workers: int) -> ProcessPoolExecutor:
    """Start a pool of processes, and wait until each has imported what it needs.

    Raises BrokenProcessPool if one ends before.
    """
    # A fork would copy the locks that threads of this process hold.
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    seen: set[int] = set()
    while len(seen) < workers:
        seen |= set(pool.map(_warm_up, [0.1] * workers))
    return pool


def _warm_up(seconds: float) -> int:
    """Load the kernels, and give the other processes time to take a task of their own."""
    for job in BLURS:
        do_tile(job, np.zeros((3 * RADIUS, 3 * RADIUS), np.uint8))
    time.sleep(seconds)
    return os.getpid()


def end(pool: Executor) -> None:
    """End a pool, and the process that multiprocessing starts beside it for its clean-up."""
    pool.shutdown()
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def by_value(pool: Executor, job: str, image: Pixels) -> Pixels:
    """Hand each window to the pool and take its result; between processes both are pickled."""
    out, tiles = np.zeros_like(image), grid(image.shape[0], image.shape[1], TILE_SIZE)
    windows = (window(image, tile, RADIUS) for tile in tiles)
    for tile, result in zip(tiles, pool.map(partial(do_tile, job), windows), strict=True):
        _place(out, tile, result)
    return out


def by_name(pool: Executor, job: str, image: Pixels) -> Pixels:
    """Hand the pool names of shared memory, and tiles: no pixel is pickled."""
    source, target = (SharedMemory(create=True, size=image.nbytes) for _ in range(2))
    try:
        _view(source, image.shape)[:] = image
        _view(target, image.shape)[:] = 0
        call = partial(_attach, job, (source.name, target.name), image.shape)
        list(pool.map(call, grid(image.shape[0], image.shape[1], TILE_SIZE)))
        return _view(target, image.shape).copy()
    finally:
        for memory in (source, target):
            memory.unlink()
            memory.close()


def _attach(job: str, names: tuple[str, str], shape: tuple[int, ...], tile: Tile) -> None:
    memories = [SharedMemory(name) for name in names]
    try:
        _between(job, tile, *(_view(memory, shape) for memory in memories))
    finally:
        for memory in memories:
            memory.close()


def _between(job: str, tile: Tile, image: Pixels, out: Pixels) -> None:
    _place(out, tile, do_tile(job, window(image, tile, RADIUS)))


def _view(memory: SharedMemory, shape: tuple[int, ...]) -> Pixels:
    return np.ndarray(shape, np.uint8, memory.buf)


def _place(out: Pixels, tile: Tile, result: Pixels) -> None:
    out[tile.y0 : tile.y0 + len(result), tile.x0 : tile.x1] = result
