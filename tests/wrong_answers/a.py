"""Usual wrong answers to the exercises of lesson a, each with a part of the hint that must come."""

import numpy as np


def gauss(d, width):
    g = np.exp(-(d**2) / width)
    return g / g.sum()


def centred(size):
    return np.arange(size) - size // 2


WRONG = {
    "a1": [
        (lambda size, sigma: np.exp(-(centred(size) ** 2) / (2 * sigma**2)), "divide by their sum"),
        (lambda size, sigma: gauss(np.arange(size), 2 * sigma**2), "not symmetric"),
        (lambda size, sigma: gauss(centred(size), sigma**2), "is the 2 missing"),
        (lambda size, sigma: gauss(centred(size), 2 * sigma), "σ is squared"),
        (lambda size, sigma: gauss(np.arange(-size, size + 1), 2 * sigma**2), "must be 21 weights"),
        (lambda size, sigma: np.full(size, 1 / size), "the exponent is not"),
    ],
}
