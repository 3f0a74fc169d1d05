"""Usual wrong answers to the exercises of lesson a, each with a part of the hint that must come."""

import numpy as np


def gauss(d, width):
    g = np.exp(-(d**2) / width)
    return g / g.sum()


def centred(size):
    return np.arange(size) - size // 2


def share(profile, stage):
    return profile[stage] / sum(profile.values())


def shrunk(profile, stage, times):
    return sum(profile.values()) - profile[stage] * (1 - 1 / times)


def amdahl(part, times):
    return 1 / (1 - part + part / times)


def changes_the_profile(profile, stage, times):
    profile[stage] /= times
    return sum(profile.values())


WRONG = {
    "a1": [
        (lambda size, sigma: np.exp(-(centred(size) ** 2) / (2 * sigma**2)), "divide by their sum"),
        (lambda size, sigma: gauss(np.arange(size), 2 * sigma**2), "not symmetric"),
        (lambda size, sigma: gauss(centred(size), sigma**2), "is the 2 missing"),
        (lambda size, sigma: gauss(centred(size), 2 * sigma), "σ is squared"),
        (lambda size, sigma: gauss(np.arange(-size, size + 1), 2 * sigma**2), "must be 21 weights"),
        (lambda size, sigma: np.full(size, 1 / size), "the exponent is not"),
    ],
    "a2": [
        (lambda i, n: min(max(i, 0), n), "n - 1, not n"),
        (lambda i, n: i % n, "wraps around"),
        (lambda i, n: int(np.pad(np.arange(n), 2 * n, mode="reflect")[i + 2 * n]), "mirrors"),
        (lambda i, n: max(i, 0), "what about n"),
        (lambda i, n: min(i, n - 1), "from the other end"),
        (lambda i, n: 0, "for (1, 5) the answer is 1, and yours is 0"),
    ],
    "a3": [
        (lambda profile, stage, times: times, "the others take as long as before"),
        (lambda profile, stage, times: share(profile, stage), "the part that the stage takes"),
        (lambda profile, stage, times: 1 / (1 - share(profile, stage)), "no time at all"),
        (lambda profile, stage, times: shrunk(profile, stage, times), "in seconds"),
        (changes_the_profile, "in seconds"),
        (lambda profile, stage, times: profile["save"], "'load': 2.0"),
        (
            lambda profile, stage, times: shrunk(profile, stage, times) / sum(profile.values()),
            "its inverse",
        ),
        (
            lambda profile, stage, times: amdahl(1 - share(profile, stage), times),
            "the other stages",
        ),
    ],
    "a4": [
        (
            lambda n, products, moved, multiply, copy: n * (products / multiply + moved / copy),
            "sum",
        ),
        (lambda n, products, moved, multiply, copy: n * products / multiply, "products alone"),
        (lambda n, products, moved, multiply, copy: n * moved / copy, "bytes alone"),
        (
            lambda n, products, moved, multiply, copy: n * min(products / multiply, moved / copy),
            "the shorter",
        ),
        (
            lambda n, products, moved, multiply, copy: max(products / multiply, moved / copy),
            "one sample",
        ),
        (
            lambda n, products, moved, multiply, copy: min(multiply, copy * products / moved),
            "products a second",
        ),
        (lambda n, products, moved, multiply, copy: products / moved, "is 0.02205, and yours is"),
    ],
}
