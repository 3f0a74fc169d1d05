"""Usual wrong answers to the exercises of lesson b, each with a part of the hint that must come."""

from math import inf
from threading import Lock

import numpy as np

from studyguide_course.exercises.b import CarelessAssembler


def padded(image, r, mode):
    return np.pad(image, [(r, r), (r, r)] + [(0, 0)] * (image.ndim - 2), mode=mode)


def cut(image, tile, more):
    return image[tile.y0 : tile.y1 + more, tile.x0 : tile.x1 + more]


def clipped(image, tile, r):
    height, width = image.shape[:2]
    rows = slice(max(tile.y0 - r, 0), min(tile.y1 + r, height))
    return image[rows, max(tile.x0 - r, 0) : min(tile.x1 + r, width)]


def tiles(py, kernel, pickled, start, cores):
    gain = max(py, (py + kernel) / cores) - max(pickled, (py + kernel) / cores)
    return int(start / gain) + 1 if gain > 0 else inf


class LocksTheCounter(CarelessAssembler):
    lock = Lock()

    def add(self, tile):
        with self.lock:
            if tile in self.placed:
                return
            self.placed.add(tile)
            self.missing -= 1
        if self.missing == 0:
            self.saved += 1


class LooksBeforeItLocks(CarelessAssembler):
    lock = Lock()

    def add(self, tile):
        if tile in self.placed:
            return
        with self.lock:
            self.placed.add(tile)
            self.missing -= 1
            if self.missing == 0:
                self.saved += 1


class LockPerCall(CarelessAssembler):
    def add(self, tile):
        with Lock():
            super().add(tile)


class KeepsTheLock(CarelessAssembler):
    def __init__(self, tiles):
        super().__init__(tiles)
        self.lock = Lock()

    def add(self, tile):
        self.lock.acquire()
        if tile in self.placed:
            return
        super().add(tile)
        self.lock.release()


class SavesAtEachTile(CarelessAssembler):
    def add(self, tile):
        self.saved += 1


WRONG = {
    "b1": [
        (lambda image, tile, r: image[tile.core], "the core alone"),
        (
            lambda image, tile, r: image[tile.y0 - r : tile.y1 + r, tile.x0 - r : tile.x1 + r],
            "begins below 0",
        ),
        (clipped, "the window is too small"),
        (lambda image, tile, r: padded(image[tile.core], r, "edge"), "the neighbours' pixels"),
        (lambda image, tile, r: cut(padded(image, r, "constant"), tile, 2 * r), "darkens"),
        (lambda image, tile, r: cut(padded(image, r, "reflect"), tile, 2 * r), "mirror"),
        (lambda image, tile, r: cut(padded(image, r, "edge"), tile, r), "on the right"),
        (lambda image, tile, r: cut(np.pad(image, r, mode="edge"), tile, 2 * r), "third axis"),
        (lambda image, tile, r: image, "yours is an array of shape (14, 11)"),
    ],
    "b2": [
        ((256, 8), "the halo adds 35%"),
        ((1024, 8), "1.5 per worker"),
        ((384, 4), "4 of 8 cores would have nothing"),
        ((384, 10), "2 of your workers have no core"),
    ],
    "b3": [
        (CarelessAssembler, "while the other ran: an image of two tiles"),
        (LocksTheCounter, "saved 2 times"),
        (LooksBeforeItLocks, "counted twice"),
        (LockPerCall, "a lock of its own"),
        (KeepsTheLock, "it hangs"),
        (SavesAtEachTile, "one thread alone"),
    ],
    "b4": [
        (lambda *case: tiles(*case) - 1, "equally long"),
        (lambda py, kernel, pickled, start, cores: inf, "one at a time"),
        (lambda py, kernel, *case: tiles(py + kernel, 0, *case), "on threads too"),
        (lambda py, kernel, pickled, *case: tiles(py, kernel, 0, *case), "one process pickles"),
        (lambda *case: tiles(*case[:3], 0, case[4]), "have to start"),
        (lambda *case: 16, "is 17, and yours is 16"),
        (lambda py, kernel, pickled, start, cores: start // (py - pickled), "the answer is"),
    ],
}
