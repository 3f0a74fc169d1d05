"""The exercise of the page that puts all side by side: how many workers a queue calls for."""

from studyguide_course.chapters.bill import wanted
from studyguide_course.exercises import compare

compare(
    "s1",
    "as many workers as the queue calls for",
    cases=[
        ([0, 250, 101], 100, 1, 20, 0),
        ([0, 900, 101], 100, 1, 20, 1),
        ([900, 0, 0], 100, 2, 20, 1),
        ([5000, 100, 0], 100, 1, 20, 5),
        ([40, 0], 100, 0, 20, 0),
    ],
    right=wanted,
    usual={
        "a part of a worker cannot be asked for, and rounded down the tiles wait: round up": (
            lambda depths, per, least, most, calm: min(
                most, max(least, int(max(depths[-calm - 1 :]) // per))
            )
        ),
        "workers go at once: they stay as long as a depth of the last `calm` polls wants them": (
            lambda depths, per, least, most, calm: wanted(depths, per, least, most, 0)
        ),
        "workers never go: only the last `calm` polls and the newest count": (
            lambda depths, per, least, most, calm: wanted(depths, per, least, most, len(depths))
        ),
        "there are never more than `most`": lambda depths, per, least, most, calm: wanted(
            depths, per, least, 10**9, calm
        ),
        "there are never fewer than `least`": lambda depths, per, least, most, calm: wanted(
            depths, per, 0, most, calm
        ),
    },
)
