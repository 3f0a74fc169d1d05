"""Exercises of lesson c: a bound on memory, a pipeline that hangs, the critical path, and LPT."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, pairwise

from studyguide_course.chapters.latency import makespan
from studyguide_course.exercises import Answer, Hints, compare, exercise

Waits = Mapping[str, Sequence[str]]


def _largest_queue(limit: int, tile_size: int, radius: int, channels: int, workers: int) -> int:
    window = (tile_size + 2 * radius) ** 2 * channels
    return next(size for size in count() if (size + 1 + workers + 1) * window > limit)


def _room(limit: int, side: int, channels: int, elsewhere: int) -> int:
    return limit // (side**2 * channels) - elsewhere


compare(
    "c1",
    "room in a bounded queue",
    cases=[(2_000_000, 256, 10, 1, 4), (100_000_000, 256, 10, 3, 10), (7_182_400, 128, 3, 4, 2)],
    right=_largest_queue,
    usual={
        "a tile travels with its halo": lambda m, t, r, c, w: _room(m, t, c, w + 1),
        "the halo is on both sides of a tile": lambda m, t, r, c, w: _room(m, t + r, c, w + 1),
        "tiles in the hands of workers and coordinator take memory too": (
            lambda m, t, r, c, w: _room(m, t + 2 * r, c, 0)
        ),
        "the coordinator has a tile in its hand, while it waits for room": (
            lambda m, t, r, c, w: _room(m, t + 2 * r, c, w)
        ),
        "a pixel has a byte for each of its channels": lambda m, t, r, c, w: _room(
            m, t + 2 * r, 1, w + 1
        ),
        "rounded up, the last tile breaks the limit": lambda m, t, r, c, w: (
            -_room(-m, t + 2 * r, c, -w - 1)
        ),
    },
)


def _stops(good: Sequence[bool], places: int) -> bool:
    """Whether the loader comes to a halt, file by file."""
    for loads in good:
        if places == 0:
            return True
        if not loads:
            places -= 1  # a good one gives its place back, sooner or later
    return False


FOLDERS = [[bit == "1" for bit in f"{n:b}"[1:]] for n in range(2, 256)]  # all of up to seven files
compare(
    "c2",
    "when the leaky pipeline hangs",
    cases=[(good, places) for good in FOLDERS for places in (1, 2, 3)],
    right=_stops,
    usual={
        "if the last file is the one that loses the last place, nobody is left to wait": (
            lambda good, places: good.count(False) >= places
        ),
        "it hangs as soon as a file finds no place: that file may be a good one": (
            lambda good, places: good.count(False) > places
        ),
        "good images give their place back, however many there are": (
            lambda good, places: len(good) > places
        ),
        "each bad file costs one place only; it goes on while there are others": (
            lambda good, places: good.count(False) > 0
        ),
        "a lost place does not come back: bad files need not follow each other": (
            lambda good, places: "0" * places in "".join(map(str, map(int, good[:-1])))
        ),
    },
)


@exercise("c3", "the critical path")
def critical_path(answer: Answer) -> Hints:
    """`answer(seconds, after)` -> the longest of all chains, each of which is tried."""
    for seconds, after in PLANS:
        yield _path_hint(answer(seconds, after), seconds, after)


# Steps with their seconds, and for each the steps that it waits for.
PLANS: list[tuple[dict[str, float], dict[str, list[str]]]] = [
    (
        {"load": 2, "blur 0": 3, "blur 1": 5, "save": 1},
        {"load": [], "blur 0": ["load"], "blur 1": ["load"], "save": ["blur 0", "blur 1"]},
    ),
    (  # the longest next step leads astray
        {"load": 1, "split": 3, "thumbnail": 4, "blur": 6, "save": 1},
        {"load": [], "split": ["load"], "thumbnail": ["load"], "blur": ["split"]}
        | {"save": ["blur", "thumbnail"]},
    ),
    (  # most steps are not most seconds
        {"load a": 1, "blur a": 1, "save a": 1, "log": 1, "load b": 2, "blur b": 9},
        {"blur b": ["load b"], "load b": [], "log": ["save a"], "save a": ["blur a"]}
        | {"blur a": ["load a"], "load a": []},
    ),
]


def _chains(after: Waits) -> Iterator[list[str]]:
    """Every chain of steps, each of which waits for the one before it."""

    def ending_with(step: str) -> Iterator[list[str]]:
        yield [step]
        for before in after[step]:
            yield from ([*chain, step] for chain in ending_with(before))

    for step in after:
        yield from ending_with(step)


def _path_hint(given: object, seconds: Mapping[str, float], after: Waits) -> str | None:
    if not isinstance(given, list | tuple):
        return f"the path is a list of names, from first to last; yours is {given!r}"

    def length(chain: Sequence[str]) -> float:
        return sum(seconds[step] for step in chain)

    chains = list(_chains(after))
    steps = list(given)
    if steps not in chains:
        if steps[::-1] in chains:
            return "your path runs backwards: begin with the step that waits for nobody"
        loose = next(((a, b) for a, b in pairwise(steps) if a not in after.get(b, ())), None)
        return f"{loose[1]!r} does not wait for {loose[0]!r}" if loose else "your path is empty"
    longest = max(map(length, chains))
    if length(steps) == longest:
        return None
    if len(steps) == max(map(len, chains)):
        return "this is the chain with most steps; the one with most seconds is asked for"
    return (
        f"{' -> '.join(steps)} takes {length(steps):g} s, and another chain takes {longest:g} s: "
        "the longest next step need not lead to the longest chain"
    )


compare(
    "c4",
    "longest processing time first",
    cases=[([3, 5, 3, 4, 3], 2), ([2, 7, 1, 8, 2, 8], 3), ([1, 1, 1, 6, 2], 2), ([4], 3)],
    right=lambda jobs, workers: makespan(sorted(jobs, reverse=True), workers),
    usual={
        "the jobs are taken as they come: sort them first": makespan,
        "shortest first, or dealt in turn, comes to the same: give the longest that is left to the "
        "worker that is free first": lambda jobs, workers: makespan(sorted(jobs), workers),
        "a job cannot be divided: this is a bound, and no schedule": lambda jobs, workers: max(
            sum(jobs) / workers, *jobs, 0
        ),
    },
)
