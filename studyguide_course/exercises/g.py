"""Exercises of lesson g: what came twice, threads under a limit, a worker that drains, metrics."""

import threading
from collections.abc import Sequence
from itertools import product

import numpy as np

from studyguide_course.chapters.seeing import quantile
from studyguide_course.exercises import Answer, Hints, compare, exercise

# Tile 0 goes its way; the first worker of tile 1 dies; tile 2 is slow and comes twice; tile 3 is
# delivered three times, and two of its workers live. And there are two images.
EVENTS = [
    ("deliver", "chart.png", 0), ("deliver", "chart.png", 1), ("commit", "chart.png", 0),
    ("deliver", "chart.png", 2), ("deliver", "chart.png", 1), ("deliver", "chart.png", 2),
    ("commit", "chart.png", 2), ("commit", "chart.png", 1), ("commit", "chart.png", 2),
    ("deliver", "chart.png", 3), ("deliver", "chart.png", 3), ("deliver", "chart.png", 3),
    ("commit", "chart.png", 3), ("commit", "chart.png", 3),
    ("deliver", "bubbles.png", 0), ("commit", "bubbles.png", 0),
]  # fmt: skip


@exercise("g1", "what came twice")
def ledger(answer: Answer) -> Hints:
    """`answer(events)` -> {"done": n, "redelivered": n, "duplicates": n}."""
    found = answer(list(EVENTS))
    done, redelivered, duplicates = (found[k] for k in ("done", "redelivered", "duplicates"))
    if done == 4:
        yield "4 done: tile 0 of one image is not tile 0 of another"
    if done == 7:
        yield "7 commits came, but a second one of the same tile is dropped: it is not done twice"
    if done != 5:
        yield f"5 tiles have a result, and you count {done}"
    if redelivered == 3:
        yield "3 tiles were redelivered, but one of them twice: count deliveries beyond the first"
    if redelivered != 4:
        yield f"9 deliveries of 5 tiles, and you count {redelivered} beyond a tile's first"
    if duplicates == redelivered:
        yield "not every redelivery ends in a duplicate: a worker that died commits nothing"
    if duplicates != 2:
        yield f"7 commits of 5 tiles, and you count {duplicates} beyond a tile's first"


@exercise("g2", "threads under a memory limit")
def shape(answer: Answer) -> Hints:
    """`answer(cores, memory, process, thread)` -> (instances, threads in each)."""
    for cores, memory in product((1, 4, 6, 16), (300, 500, 900, 1500, 4000)):
        if hint := _shape_hint(answer, cores, memory, process=150, thread=30):
            yield f"{cores} cores and {memory} MiB: {hint}"


def _shape_hint(answer: Answer, cores: int, memory: int, process: int, thread: int) -> str | None:
    instances, threads = answer(cores, memory, process, thread)
    said, total = f"{instances} x {threads}", instances * threads
    fitting = [
        (n, t)
        for n, t in product(range(1, cores + 1), repeat=2)
        if n * (process + t * thread) <= memory
    ]
    weight = instances * (process + threads * thread)
    if min(instances, threads) < 1:
        return f"{said} is not a service"
    if weight > memory:
        return f"{said} weighs {weight} MiB: each instance has a process and its threads"
    most = min(cores, max(n * t for n, t in fitting))
    if total < most:
        return f"{said} leaves cores idle, though there is memory for {most} threads"
    least = min(t for n, t in fitting if n * t >= most)
    if threads > least:
        return f"a crash of one of {said} takes {threads} tiles along; {least} is enough"
    if total - threads >= most:
        return f"{said} is an instance more than the cores can use"
    return None


class Runaway(Exception):
    """A worker that nobody can stop."""


class FakeQueue:
    """Hands out tiles two at a time, at first none; notes what comes of them."""

    def __init__(self, tiles: Sequence[int], stop: threading.Event, idle: int) -> None:
        self.tiles, self.stop, self.idle = list(tiles), stop, idle
        self.taken: list[int] = []
        self.committed: list[int] = []
        self.given_back: list[int] = []
        self.calls = 0
        self.late = 0  # takes after the stop

    def take(self) -> list[int]:
        """Up to two tiles; none if none comes within a moment."""
        self.calls += 1
        self.late += self.stop.is_set()
        if self.calls > 50:
            raise Runaway
        if self.calls <= self.idle:
            return []
        handed, self.tiles = self.tiles[:2], self.tiles[2:]
        self.taken += handed
        if not handed:
            self.stop.set()
        return handed

    def commit(self, tile: int, result: str) -> None:
        """Hand in a result."""
        self.committed.append(tile)

    def give_back(self, tile: int) -> None:
        """Let another worker have a tile at once, without waiting for its lease to lapse."""
        self.given_back.append(tile)


@exercise("g3", "a worker that drains")
def drain(answer: Answer) -> Hints:
    """`answer(queue, stop, blur)` works until `stop` is set, and leaves nothing in hand."""
    for told_at in (None, 2, 3):  # the tile in hand when SIGTERM comes: none, a first, a second one
        yield _drain_hint(answer, told_at)


def _drain_hint(answer: Answer, told_at: int | None) -> str | None:
    stop = threading.Event()
    queue = FakeQueue(range(8), stop, idle=3)

    def blur(tile: int) -> str:
        if tile == told_at:
            stop.set()
        return f"tile {tile}, blurred"

    try:
        answer(queue, stop, blur)
    except Runaway:
        return "your worker goes on for ever after it was told to stop: look at `stop`"
    if not queue.taken:
        return "your worker left an empty queue before it was told to: more may come at any time"
    if told_at is None:
        return None if queue.committed == list(range(8)) else _left(queue, range(8))
    if queue.late:
        return "your worker was told to stop, and took tiles all the same"
    if told_at in queue.given_back:
        return "the tile in hand was given back: it was nearly done, finish it"
    if told_at not in queue.committed:
        return "the tile in hand was thrown away: finish and commit it, then go"
    if max(queue.committed) > told_at:
        return "told to stop in mid-tile, your worker began the next one that it had fetched"
    return _left(queue, queue.taken)


def _left(queue: FakeQueue, tiles: Sequence[int]) -> str | None:
    """What is neither done nor given back, or both."""
    over = sorted(queue.committed + queue.given_back)
    if over == list(tiles):
        return None
    if len(set(over)) < len(over):
        return f"some tiles ended twice: {over}"
    silent = sorted(set(tiles) - set(over))
    return f"tiles {silent} were fetched and never begun: nobody has them until their leases lapse"


compare(
    "g4",
    "a percentile out of buckets",
    cases=[
        (0.5, [1, 2, 4], [10, 30, 40, 40]),
        (0.99, [1, 2, 4], [10, 30, 40, 40]),
        (0.1, [1, 2, 4], [20, 30, 40, 40]),
        (0.99, [1, 2], [50, 90, 100]),
        (0.5, [1, 2], [30, 40, 50]),
    ],
    right=quantile,
    usual={
        "a bound is the most that its bucket holds: go as far into the bucket as the rank does": (
            lambda share, bounds, counts: [*bounds, bounds[-1]][
                int(np.searchsorted(counts, share * counts[-1]))
            ]
        ),
        "the counts are cumulative: each has those of the smaller bounds in it": (
            lambda share, bounds, counts: quantile(share, bounds, np.cumsum(counts).tolist())
        ),
        "what lies beyond the last bound counts too: the rank is a share of all": (
            lambda share, bounds, counts: quantile(share, bounds, [*counts[:-1], counts[-2]])
        ),
        "the first bucket begins at 0": lambda share, bounds, counts: float(
            np.interp(share * counts[-1], counts[:-1], bounds)
        ),
    },
)
