"""Exercises of lesson a: the formula of the blur, its edge, and what a profile promises."""

from collections.abc import Mapping
from functools import partial
from typing import Literal

import numpy as np

from studyguide.blur import weights
from studyguide.settings import Blur
from studyguide_course.exercises import Answer, Hints, compare, exercise


@exercise("a1", "the weights of a kernel")
def kernel_weights(answer: Answer) -> Hints:
    """`answer(size, sigma)` -> the weights, as the library has them."""
    for size, sigma in ((21, 7.0), (5, 1.0), (9, 2.5)):
        given = np.asarray(answer(size, sigma), float)
        total = given.sum()
        if given.shape != (size,):
            yield f"for size {size} there must be {size} weights, and yours has shape {given.shape}"
        if not np.isclose(total, 1):
            yield f"your weights sum to {total:.3g}, so flat grey would change: divide by their sum"
        if not np.allclose(given, given[::-1]):
            yield "your weights are not symmetric: d runs from -r to r, not from 0 to the size"
        if np.allclose(given, weights(Blur(size, sigma))):
            continue
        if np.allclose(given, weights(Blur(size, sigma / 2**0.5))):
            yield "they are too narrow: the exponent is -d² / (2 σ²); is the 2 missing?"
        if np.allclose(given, weights(Blur(size, sigma**0.5))):
            yield "they have another width: σ is squared in the exponent; is yours?"
        yield "they sum to 1 and are symmetric, but the exponent is not -d² / (2 σ²)"


def _padded(mode: Literal["edge", "reflect"], i: int, n: int) -> int:
    """The index in a row of n pixels that numpy's padding has at i."""
    return int(np.pad(np.arange(n), 2 * n, mode=mode)[i + 2 * n])


compare(
    "a2",
    "an index beyond the edge",
    cases=[(i, n) for n in (5, 8) for i in range(-n - 2, 2 * n)],
    right=partial(_padded, "edge"),
    usual={
        "the last pixel has the index n - 1, not n": lambda i, n: min(max(i, 0), n),
        "this wraps around: the left edge would take its neighbours from the right one": (
            lambda i, n: i % n
        ),
        "this mirrors the image at its edge; clamping repeats the pixel at the edge": (
            partial(_padded, "reflect")
        ),
        "below 0 it is right; what about n and beyond?": lambda i, n: max(i, 0),
        "beyond n it is right; below 0 numpy would count from the other end": (
            lambda i, n: min(i, n - 1)
        ),
    },
)


def _gain(seconds: Mapping[str, float], stage: str, times: float) -> float:
    after = sum(s / times if name == stage else s for name, s in seconds.items())
    return sum(seconds.values()) / after


def _share(seconds: Mapping[str, float], stage: str) -> float:
    return seconds[stage] / sum(seconds.values())


PROFILE, OTHER = {"load": 0.3, "blur": 0.6, "save": 0.1}, {"load": 2.0, "blur": 6.0}
compare(
    "a3",
    "what a faster stage gains",
    cases=[(PROFILE, "blur", 2.0), (PROFILE, "load", 3.0), (OTHER, "blur", 4.0)],
    right=_gain,
    usual={
        "only this stage becomes so much faster, the others take as long as before": (
            lambda s, stage, times: times
        ),
        "this is the part that the stage takes; how long is the run when it has shrunk?": (
            lambda s, stage, times: _share(s, stage)
        ),
        "this is the gain if the stage took no time at all; it still takes 1 / times of its own": (
            lambda s, stage, times: 1 / (1 - _share(s, stage))
        ),
        "you made the other stages faster and left this one as it was": (
            lambda s, stage, times: 1 / ((1 - _share(s, stage)) / times + _share(s, stage))
        ),
        "this is new length / old length, below 1; the gain is its inverse": (
            lambda s, stage, times: 1 / _gain(s, stage, times)
        ),
        "this is how long the run is afterwards, in seconds; how many times as fast is it?": (
            lambda s, stage, times: sum(s.values()) / _gain(s, stage, times)
        ),
    },
)


def _apart(samples: float, products: float, moved: float, *rates: float) -> tuple[float, float]:
    """Seconds of the products alone, and of the bytes alone."""
    return samples * products / rates[0], samples * moved / rates[1]


compare(
    "a4",
    "the least time under the roof",
    cases=[(1e6, 441, 2, 2e10, 1e10), (4e6, 1, 8, 2e10, 1e10), (3e6, 2, 5, 3e10, 2e10)],
    right=lambda *case: max(_apart(*case)),
    usual={
        "a core multiplies while bytes move: the longer of the two counts, not the sum": (
            lambda *case: sum(_apart(*case))
        ),
        "this is the shorter of the two; the work is done when both are": (
            lambda *case: min(_apart(*case))
        ),
        "these are the products alone; what if the bytes take longer?": (
            lambda *case: _apart(*case)[0]
        ),
        "these are the bytes alone; what if the products take longer?": (
            lambda *case: _apart(*case)[1]
        ),
        "this is the time of one sample": lambda *case: max(_apart(1, *case[1:])),
        "these are products a second; how many seconds do all samples take?": (
            lambda n, products, moved, *rates: min(rates[0], rates[1] * products / moved)
        ),
    },
)
