"""Exercises of lesson a: the formula of the blur, its edge, and what a profile promises."""

from collections.abc import Callable, Sequence

import numpy as np

from studyguide.blur import weights
from studyguide.lesson.exercises import exercise
from studyguide.settings import Blur


@exercise("a1", "the weights of a kernel")
def kernel_weights(answer: Callable[[int, float], Sequence[float]]) -> str | None:
    """Compare with the library's weights, for kernels of several sizes and widths."""
    for size, sigma in ((21, 7.0), (5, 1.0), (9, 2.5)):
        given = np.asarray(answer(size, sigma), float)
        if given.shape != (size,):
            return (
                f"for size {size} there must be {size} weights, and yours has shape {given.shape}"
            )
        hint = _weights_hint(given, size, sigma)
        if hint:
            return hint
    return None


def _weights_hint(given: np.ndarray, size: int, sigma: float) -> str | None:
    right = weights(Blur(size, sigma))
    if np.allclose(given, right):
        return None
    if not np.isclose(given.sum(), 1):
        return (
            f"your weights sum to {given.sum():.3g}, so flat grey would change: divide by their sum"
        )
    if not np.allclose(given, given[::-1]):
        return "your weights are not symmetric: d runs from -r to r, not from 0 to the size"
    narrow, spread = sigma / np.sqrt(2), np.sqrt(sigma)
    for wrong, why in (
        (narrow, "they are too narrow: the exponent is -d² / (2 σ²); is the 2 missing?"),
        (spread, "they have another width: σ is squared in the exponent; is yours?"),
    ):
        if np.allclose(given, weights(Blur(size, float(wrong)))):
            return why
    return "they sum to 1 and are symmetric, but the exponent is not -d² / (2 σ²)"
