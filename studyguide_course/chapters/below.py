"""Lesson a, below Python: what a core multiplies and copies in a second, and what caches do to it.

The kernels are small, because each is compiled when a lesson first calls it.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from studyguide.record.looks import FAINT, GREY, HALO, INK, LOOKS, TOP, Chart
from studyguide_course.lesson import Spent

CHAIN = 4  # products, one after the other: enough to hide the load, few enough to overlap
FLOATS, ROUNDS = 2048, 2000  # numbers that stay in the L1 cache; how often they are multiplied
BYTES = 2**26  # more than fit in a cache
COUNT = 100_000  # thousands: how far a thread counts
LINE = 16  # int64 numbers: a cache line of 64 bytes, or of 128 on some processors
TALL = 2.6  # inches
WORDS: Any = {"textcoords": "offset points", "ha": "center", "color": INK, "path_effects": HALO}


def copy_and_multiply() -> dict[str, Callable[[], object]]:
    """Make two calls to be timed: one copies from memory to memory, one multiplies in the cache."""
    line, source = np.ones(FLOATS, np.float32), np.ones(BYTES, np.uint8)
    return {
        "copy": partial(np.copyto, np.empty_like(source), source),
        "multiply": partial(_multiply, line, ROUNDS),
    }


@njit(nogil=True)
def _multiply(line: Any, rounds: int) -> None:
    """A chain of products and sums on each number; the numbers settle at 2."""
    half, one = np.float32(0.5), np.float32(1)
    for _ in range(rounds):
        for i in range(line.size):
            value = line[i]
            for _ in range(CHAIN):
                value = value * half + one
            line[i] = value


@njit(nogil=True)
def turn(image: Any, side: int, out: Any) -> None:
    """Transpose `image` into `out`, one block of `side` x `side` samples after the other."""
    height, width = image.shape
    for y0 in range(0, height, side):
        for x0 in range(0, width, side):
            for x in range(x0, min(x0 + side, width)):
                for y in range(y0, min(y0 + side, height)):
                    out[x, y] = image[y, x]


@njit(nogil=True)
def _count(counters: Any, place: Any, rounds: int) -> None:
    """Add 1 in memory; were `place` one number, the compiler would count in a register."""
    for _ in range(rounds):
        for k in range(place.size):
            counters[place[k]] += 1


def count_in_two_threads(apart: int, rounds: int = COUNT) -> NDArray[np.int64]:
    """Let two threads count to 1000 `rounds`, each in a number of its own; return both.

    The numbers lie `apart` places from each other: at 1 in one cache line, at `LINE` in two.
    """
    memory = np.zeros(6 * LINE, np.int64)
    first = LINE + -memory.ctypes.data % (8 * LINE) // 8  # where a line begins
    with ThreadPoolExecutor(2) as pool:
        for place in (first, first + apart):
            pool.submit(_count, memory, np.full(1000, place), rounds)
    return memory[[first, first + apart]]


class Work(NamedTuple):
    """What a call does: products for each sample, bytes that must move for it, samples."""

    products: float
    moved: float
    samples: int


class Roofline:
    """What one core can reach, and what calls reached: all in products a second.

    `spent` is what the two calls of `copy_and_multiply`, and those named in `work`, have taken. The
    copy rate counts bytes read and written; a product counts together with its sum.
    """

    def __init__(self, spent: Mapping[str, Spent], work: Mapping[str, Work]) -> None:
        self.copied = 2 * BYTES / spent["copy"].cpu_s
        self.multiplied = CHAIN * FLOATS * ROUNDS / spent["multiply"].cpu_s
        self.ridge = self.multiplied / self.copied  # products per byte where the two limits meet
        self.reached = {
            name: (it.products / it.moved, it.products * it.samples / spent[name].cpu_s)
            for name, it in work.items()
        }

    def limit(self, intensity: float) -> float:
        """Products a second at most, with so many products for each byte."""
        return min(self.multiplied, self.copied * intensity)

    def part(self, name: str) -> float:
        """What a call reached of what it could reach, about 0 to 1."""
        intensity, rate = self.reached[name]
        return rate / self.limit(intensity)

    def chart(self) -> Chart:
        """Draw the roof, and up to three calls."""
        facts = f"copies {self.copied / 1e9:.1f} GB/s, multiplies {self.multiplied / 1e9:.1f} G/s; "
        facts += ", ".join(f"{name}: {self.part(name):.0%} of the roof" for name in self.reached)
        title = "Roofline of one core"
        chart = Chart(TOP + 0.2 + TALL + 0.6, title, facts, title)
        axes = chart.place(["G products/s"], TOP + 0.2, TALL)
        across, up = zip(*self.reached.values(), strict=True)
        line = np.geomspace(min(self.ridge, *across) / 2, 2 * max(self.ridge, *across), 200)
        axes.plot(line, [self.limit(at) / 1e9 for at in line], color=INK, linewidth=2)
        axes.axvline(self.ridge, color=GREY, linestyle=":")
        looks = zip(self.reached.items(), ("transfer", "save", "blur"), "so^", strict=False)
        for (name, (at, rate)), kind, marker in looks:
            axes.plot(at, rate / 1e9, color=LOOKS[kind][1], marker=marker, ms=8)
            axes.annotate(name, (at, rate / 1e9), (0, -16), **WORDS)
        axes.set(xscale="log", yscale="log", xlabel="products per byte", ylabel="G products/s")
        axes.set_ylim(min(up) / 3e9, None)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.tick_params(which="both", length=0)
        axes.grid(color=FAINT)
        return chart
