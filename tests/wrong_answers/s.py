"""Usual wrong answers to the exercise of the comparison, each with a part of its hint."""

from math import ceil, floor


def called(depths, per_worker, least, most, rounded=ceil):
    return max(min(most, max(least, rounded(depth / per_worker))) for depth in depths)


WRONG = {
    "s1": [
        (lambda d, per, least, most, calm: called(d[-calm - 1 :], per, least, most, floor), "up"),
        (lambda d, per, least, most, calm: called(d[-1:], per, least, most), "go at once"),
        (lambda d, per, least, most, calm: called(d, per, least, most), "never go"),
        (
            lambda d, per, least, most, calm: called(d[-calm - 1 :], per, least, 10**9),
            "never more than `most`",
        ),
        (
            lambda d, per, least, most, calm: called(d[-calm - 1 :], per, 0, most),
            "never fewer than `least`",
        ),
        (lambda d, per, least, most, calm: most, "the answer is 2, and yours is 20"),
    ],
}
