"""Exercises of lesson f: backoff, a visibility timeout, probes, and a commit that counts once."""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import redis

from studyguide_course.exercises import Answer, Hints, exercise
from studyguide_course.exercises.scratch import (
    REQUESTS,
    Endless,
    Killed,
    connected,
    dies_at,
    gives_up,
    meanwhile,
    scratch_server,
)


@exercise("f1", "waits that double, with a little chance in them")
def backoff(answer: Answer) -> Hints:
    """`answer(attempt, first_s, cap_s)` -> seconds to wait after this attempt, from 1."""
    draws = {n: [answer(n, 0.2, 60.0) for _ in range(400)] for n in (1, 2, 3, 30)}
    first, second, third = (statistics.mean(draws[n]) for n in (1, 2, 3))
    if len(set(draws[3])) == 1:
        yield "tiles that failed together come back together: draw each wait anew"
    if max(draws[30]) > 60:
        yield "the wait after attempt 30 is longer than cap_s: take the smaller one last"
    if first > 0.35:
        yield f"the first wait is {first:.1f} s on average, not 0.2 s: attempts count from 1"
    if not 0.17 < first < 0.23:
        yield f"the first wait is {first:.2f} s on average; it should be first_s, 0.2 s"
    if not 1.8 < second / first < 2.2 or not 3.6 < third / first < 4.4:
        yield f"the third wait is {third / first:.1f} times the first on average: double twice"
    if max(draws[3]) - min(draws[3]) < 0.2:
        yield "the chance stays small while the waits grow: draw a share of the wait"


@exercise("f2", "a visibility timeout from measured times")
def visibility(answer: Answer) -> Hints:
    """`answer(service_s)` -> (visibility timeout, interval of heartbeats), in seconds."""
    for median_s in (0.02, 0.5, 30.0):
        rng = np.random.default_rng(7)
        measured, later = (median_s * rng.lognormal(0, 1, size) for size in (4000, 100_000))
        visibility_s, beat_s = answer(measured.tolist())
        if hint := _visibility_hint(later, visibility_s, beat_s):
            yield f"tiles of {median_s:g} s in the median: {hint}"


def _visibility_hint(later: Any, visibility_s: float, beat_s: float) -> str | None:
    """Judge a choice on the tiles of the next day."""
    lapsed = float((later > visibility_s).mean())
    if lapsed > 0.1:
        return f"{lapsed:.0%} lapse in a live worker's hand: set it by the slow ones, not the usual"
    if lapsed > 0.005:
        return f"{lapsed:.1%} lapse in a live worker's hand: look farther out, at all of the times"
    if visibility_s > 4 * np.quantile(later, 0.999):
        return f"a dead worker's tile waits {visibility_s:.3g} s, and hardly any tile takes so long"
    if beat_s > visibility_s / 3 * 1.001:
        return "two heartbeats in a row may get lost, and the third must still be in time"
    if beat_s < visibility_s / 20:
        return "more than 20 heartbeats per timeout keep Redis busy and tell nobody more"
    return None


@exercise("f3", "live and ready are two questions")
def probes(answer: Answer) -> Hints:
    """`answer(url, alive)` -> (live, ready); the heart touches the file `alive`."""
    with scratch_server() as server, tempfile.TemporaryDirectory() as folder:
        alive = Path(folder) / "alive"
        alive.touch()
        yield _asked("all is well", answer, server.url, alive, (True, True))
        server.pause()
        try:
            hint = _asked("Redis hangs", answer, server.url, alive, (True, False))
        finally:
            server.resume()
        yield hint
        yield _asked("Redis is back", answer, server.url, alive, (True, True))
        minute_ago = time.time() - 60
        os.utime(alive, (minute_ago, minute_ago))
        yield _asked("the heart stands still", answer, server.url, alive, (False, True))
        if alive.stat().st_mtime > minute_ago + 30:
            yield "your probe touches the file, so a worker that is stuck looks alive for ever"
        alive.touch()
        server.kill()
        yield _asked("Redis is away", answer, server.url, alive, (True, False))


def _asked(
    day: str, answer: Answer, url: str, alive: Path, expected: tuple[bool, bool]
) -> str | None:
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(answer(url, alive))
        except Exception as error:
            found.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2.0)
    if not found:
        return f"{day}, and so does your probe: set socket_timeout, and let it not retry"
    if isinstance(found[0], Exception):
        return f"{day}, and your probe raises {type(found[0]).__name__}: a probe answers"
    if found[0] == expected:
        return None
    for name, said, right in zip(("live", "ready"), found[0], expected, strict=True):
        if bool(said) != right:
            return f"{day}: is a worker then {name}? Your probe says {bool(said)}"
    return f"the answer is a pair of True or False, and not {found[0]!r}"


@exercise("f4", "a commit that counts once")
def commit(answer: Answer) -> Hints:
    """`answer(client, tile, digest)` -> whether this is the tile's first result.

    Tried twice in a row, twice at once, and after a crash; of two tiles one is then left.
    """
    with scratch_server() as server:
        try:
            with _two_tiles(server.url) as client:
                said = [bool(answer(client, "7", digest)) for digest in ("ada's", "bob's")]
                yield _tally(client, "committed twice in a row", said)
            for number in range(REQUESTS):
                yield _race(answer, server.url, number)
                yield _crash(answer, server.url, number)
        except Endless:
            yield "who died still has your lock, and all others wait: let Redis do it in one go"


@contextmanager
def _two_tiles(url: str) -> Iterator[redis.Redis]:
    """A client of a server on which two tiles are left."""
    with connected(url, gives_up) as client:
        client.flushall()
        client.set("left", 2)
        yield client


def _race(answer: Answer, url: str, number: int) -> str | None:
    """Bob commits just before this request of Ada's."""
    with _two_tiles(url) as client:
        said: list[bool] = []
        other = meanwhile(number, lambda: said.append(answer(client, "7", "bob's")))
        with connected(url, other) as slow:
            try:
                said.insert(0, answer(slow, "7", "ada's"))
            except redis.WatchError:
                return "WATCH saw that another worker was faster: catch WatchError, and look again"
            except Endless:  # a lock keeps Bob out as long as Ada lives: the crash will tell
                return None
        if len(said) == 2:
            return _tally(client, "another worker commits between two of your requests", said)
    return None


def _crash(answer: Answer, url: str, number: int) -> str | None:
    """Ada dies before this request; her tile is redelivered to Bob."""
    with _two_tiles(url) as client:
        with connected(url, dies_at(number)) as doomed, suppress(Killed, redis.ConnectionError):
            answer(doomed, "7", "ada's")
        answer(client, "7", "bob's")
        return _tally(client, "killed between two of your requests, then redelivered")


def _tally(client: Any, what: str, said: list[bool] | None = None) -> str | None:
    """What Redis holds after Ada's and Bob's commits, and what the two were told."""
    result, left = client.hget("results", "7"), int(client.get("left"))
    if result is None:
        return f"{what}: there is no result for the tile in `results`"
    if left != 1:
        return f"{what}: `left` is {left}, though 1 of 2 tiles is done"
    if said and sorted(said) != [False, True]:
        return f"{what}: exactly one of the two is the first, and you answer {said}"
    if said and result != ("ada's", "bob's")[said.index(True)]:
        return f"{what}: the first one's result was overwritten"
    return None
