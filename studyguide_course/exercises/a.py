"""Exercises of lesson a: the formula of the blur, its edge, and what a profile promises."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from studyguide.blur import weights
from studyguide.settings import Blur
from studyguide_course.exercises import exercise, judge


@exercise("a1", "the weights of a kernel")
def kernel_weights(answer: Callable[[int, float], Sequence[float]]) -> str | None:
    """Compare with the library's weights, for kernels of several sizes and widths."""
    hints = (_weights_hint(answer, *case) for case in ((21, 7.0), (5, 1.0), (9, 2.5)))
    return next(filter(None, hints), None)


def _weights_hint(
    answer: Callable[[int, float], Sequence[float]], size: int, sigma: float
) -> str | None:
    given = np.asarray(answer(size, sigma), float)
    if given.shape != (size,):
        return f"for size {size} there must be {size} weights, and yours has shape {given.shape}"
    total = given.sum()
    if not np.isclose(total, 1):
        return f"your weights sum to {total:.3g}, so flat grey would change: divide by their sum"
    if not np.allclose(given, given[::-1]):
        return "your weights are not symmetric: d runs from -r to r, not from 0 to the size"
    for width, hint in (
        (sigma, None),
        (sigma / 2**0.5, "they are too narrow: the exponent is -d² / (2 σ²); is the 2 missing?"),
        (sigma**0.5, "they have another width: σ is squared in the exponent; is yours?"),
    ):
        if np.allclose(given, weights(Blur(size, width))):
            return hint
    return "they sum to 1 and are symmetric, but the exponent is not -d² / (2 σ²)"


@exercise("a2", "an index beyond the edge")
def clamped_index(answer: Callable[[int, int], int]) -> str | None:
    """Compare with numpy's padding by the nearest value."""
    cases = [(i, n) for n in (5, 8) for i in range(-n - 2, 2 * n)]

    usual = {
        "the last pixel has the index n - 1, not n": lambda i, n: min(max(i, 0), n),
        "this wraps around: the left edge would take its neighbours from the right one": (
            lambda i, n: i % n
        ),
        "this mirrors the image at its edge; clamping repeats the pixel at the edge": (
            lambda i, n: _padded("reflect", i, n)
        ),
        "below 0 it is right; what about n and beyond?": lambda i, n: max(i, 0),
        "beyond n it is right; below 0 numpy would count from the other end": (
            lambda i, n: min(i, n - 1)
        ),
    }
    return judge(answer, cases, partial(_padded, "edge"), usual)


def _padded(mode: Literal["edge", "reflect"], i: int, n: int) -> int:
    return int(np.pad(np.arange(n), 2 * n, mode=mode)[i + 2 * n])


@exercise("a3", "what a faster stage gains")
def gain_of_stage(answer: Callable[[Mapping[str, float], str, float], float]) -> str | None:
    """Compare with the run's length before and after, added up stage by stage."""
    profile = {"load": 0.3, "blur": 0.6, "save": 0.1}
    other = {"load": 2.0, "blur": 6.0}
    cases = [(profile, "blur", 2.0), (profile, "load", 3.0), (other, "blur", 4.0)]

    def right(seconds: Mapping[str, float], stage: str, times: float) -> float:
        after = sum(s / times if name == stage else s for name, s in seconds.items())
        return sum(seconds.values()) / after

    def share(seconds: Mapping[str, float], stage: str) -> float:
        return seconds[stage] / sum(seconds.values())

    usual = {
        "only this stage becomes so much faster, the others take as long as before": (
            lambda s, stage, times: times
        ),
        "this is the part that the stage takes; how long is the run when it has shrunk?": (
            lambda s, stage, times: share(s, stage)
        ),
        "this is the gain if the stage took no time at all; it still takes 1 / times of its own": (
            lambda s, stage, times: 1 / (1 - share(s, stage))
        ),
        "you made the other stages faster and left this one as it was": (
            lambda s, stage, times: 1 / ((1 - share(s, stage)) / times + share(s, stage))
        ),
        "this is new length / old length, below 1; the gain is its inverse": (
            lambda s, stage, times: 1 / right(s, stage, times)
        ),
        "this is how long the run is afterwards, in seconds; how many times as fast is it?": (
            lambda s, stage, times: sum(s.values()) / right(s, stage, times)
        ),
    }
    return judge(answer, cases, right, usual)
