"""Exercises of lesson e: what a kill costs, lost or slow, and a list that acknowledges."""

from contextlib import suppress
from typing import Any

import redis

from studyguide_course.exercises import Answer, Hints, exercise
from studyguide_course.exercises.scratch import REQUESTS, Killed, connected, dies_at, scratch_server


@exercise("e1", "what a few kills cost")
def expected_loss(answer: Answer) -> Hints:
    """`answer(kills, busy, in_hand)` -> (tiles lost on average, chance that none is lost)."""
    tiles, chance = answer(3, 0.5, 1)
    if tiles == 3:
        yield "a worker that waits has no tile to lose: for what share of its time has it one?"
    if tiles != 1.5:
        yield f"3 kills, 1 tile in hand half of the time: that is not {tiles:g} tiles on average"
    if chance < 0:
        yield f"a chance is never {chance:g}: the chances of several kills are multiplied"
    if abs(chance - 0.875) < 1e-9:
        yield "0.875 is the chance that something is lost; asked is that nothing is"
    if abs(chance - 0.125) > 1e-9:
        yield f"each of the 3 workers must have had empty hands: the chance is not {chance:g}"
    tiles, chance = answer(2, 0.25, 4)
    if tiles != 2:
        yield "a worker that fetched 4 tiles ahead takes all 4 along"
    if abs(chance - 0.75**2) > 1e-9:
        yield "whether hands are empty does not depend on how much they hold when they are full"


STEADY = (0.05,) * 99
SITUATIONS = (  # seconds of silence, pauses so far, messages that wait, give up?, hint
    (60.0, STEADY, 5, False, "messages still wait in the lists: those tiles are not lost"),
    (1.0, (), 0, False, "no tile has come yet, so nothing tells how long one takes: wait a little"),
    (0.5, (0.01,) * 99, 0, False, "half a second is a hiccup of a busy machine: set a least time"),
    (3.9, (*STEADY, 4.0), 0, False, "one pause was 4 s and all was well: mind the longest pause"),
    (5.0, (*STEADY, 4.0), 0, False, "a pause of 4 s was harmless, one of 5 s may be: leave room"),
    (600.0, STEADY, 0, True, "ten minutes of silence after pauses of 50 ms: this run never ends"),
    (600.0, (*STEADY, 4.0), 0, True, "ten minutes is 150 times the longest pause: give up"),
    (600.0, (), 0, True, "if no tile ever comes, the run must end as well"),
)


@exercise("e2", "lost, or only slow?")
def lost_or_slow(answer: Answer) -> Hints:
    """`answer(silence_s, pauses_s, waiting)` -> whether to give up."""
    for silence_s, pauses_s, waiting, expected, hint in SITUATIONS:
        try:
            found = answer(silence_s, list(pauses_s), waiting)
        except (ValueError, IndexError, ZeroDivisionError):
            if pauses_s:
                raise
            yield "before the first tile comes `pauses_s` is empty, and your answer fails on it"
            return
        if found not in (True, False):
            yield f"the answer is True or False, and not {found!r}"
        if found != expected:
            yield hint


TILES = ("tile 0", "tile 1", "tile 2")


@exercise("e3", "a list that acknowledges")
def acknowledging_list(answer: tuple[Answer, Answer]) -> Hints:
    """`(work_one, recover)`: handle one tile; queue again what the dead had in hand.

    Tried are a worker that nobody kills, one killed in mid-blur, and one before each request.
    """
    with scratch_server() as server:
        try:
            yield from _undisturbed(server.url, *answer)
            for number in (None, *range(REQUESTS)):
                yield _killed(server.url, *answer, number)
        except redis.TimeoutError:
            yield "your worker waits for ever on an empty list: give that call a timeout"


def _undisturbed(url: str, work_one: Answer, recover: Answer) -> Hints:
    with connected(url) as client:
        _queue_tiles(client)
        visible: list[int] = []

        def blur(tile: str) -> str:
            visible.append(client.llen("tasks"))
            return f"{tile}, blurred"

        for _ in TILES:
            work_one(client, blur)
        yield _on_an_empty_list(client, work_one, blur)
        if visible[0] == len(TILES):
            yield "the tile that you blur is still in `tasks`, so every other worker takes it too"
        found = sorted(client.lrange("results", 0, -1))
        if found != [f"{tile}, blurred" for tile in TILES]:
            yield f"nobody was killed, and of {len(TILES)} tiles came these results: {found}"
        recover(client)
        if client.llen("tasks"):
            yield "`recover` queues a tile again that is done and handed in: cross it out then"


def _on_an_empty_list(client: Any, work_one: Answer, blur: Answer) -> str | None:
    if client.llen("tasks"):
        return None
    try:
        work_one(client, blur)
    except redis.TimeoutError:
        raise
    except Exception as error:
        problem = f"your worker fails with {type(error).__name__}"
        return f"`tasks` is empty, Redis answers None, and {problem}: return when there is no tile"
    return None


def _killed(url: str, work_one: Answer, recover: Answer, number: int | None) -> str | None:
    """Kill a worker before this request, or in mid-blur, and look for its tile."""
    steps: list[str] = []

    def blur(tile: str) -> str:
        steps.append("blur")
        if number is None:
            raise Killed
        return f"{tile}, blurred"

    with connected(url) as client:
        _queue_tiles(client)
        doomed = connected(url, None if number is None else dies_at(number))
        with doomed as worker, suppress(Killed, redis.ConnectionError):
            work_one(worker, blur)
        known = {value for key in client.scan_iter() for value in client.lrange(key, 0, -1)}
        recover(client)
        safe = {*client.lrange("tasks", 0, -1), *client.lrange("results", 0, -1)}
    missing = next((tile for tile in TILES if not {tile, f"{tile}, blurred"} & safe), None)
    if missing is None:
        return None
    if missing in known:
        return f"{missing} is still in Redis, and `recover` does not bring it back to `tasks`"
    if number is None and _moves(url, work_one):
        return f"killed in mid-blur: {missing} was crossed out before its result was there"
    if number is None:
        return f"killed in mid-blur, and {missing} is nowhere: a pop forgets, a move does not"
    if steps:
        return f"killed after the blur: {missing} was crossed out before its result was there"
    return f"killed before the blur: {missing} had left one list and not yet reached the other"


def _moves(url: str, work_one: Answer) -> bool:
    """Whether the first request moves a tile to another list."""
    with connected(url) as client:
        _queue_tiles(client)
        with connected(url, dies_at(1)) as worker, suppress(Killed, redis.ConnectionError):
            work_one(worker, str)
        others = (key for key in client.scan_iter() if key != "tasks")
        return any(TILES[0] in client.lrange(key, 0, -1) for key in others)


def _queue_tiles(client: Any) -> None:
    client.flushall()
    client.lpush("tasks", *TILES)
