"""e: a Redis list, which forgets what it hands out, and the loops of the three roles around it.

A tile is delivered at most once: one that was popped is known to its worker alone. Left to right:
coordinator -> tasks -> worker -> results -> assembler.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from studyguide import work
from studyguide.errors import Cancelled, ImageError
from studyguide.machinery.faults import Fault, strike
from studyguide.machinery.link import LONGEST_PAUSE_S
from studyguide.states import Queue
from studyguide.tiles import Tile
from studyguide.work import Canvas, ImageJob, Run, plan, process

POLL_S = 0.05  # how often a coordinator looks how far the run is
BLOCK_S = 0.2  # seconds that a read waits for work; after them `stop` is looked at


@dataclass
class ListQueue(Queue):
    """Redis lists `tasks` and `results`; what is popped exists in its worker's memory only.

    The set `received` lets the coordinator see how far a run is. Whoever takes messages under a
    name counts in `turn:<name>` how often it asked; that key is gone when nobody has renewed it for
    `ttl_s`. It tells the coordinator who is alive and may have a message in hand, and nothing else:
    a list has no acknowledgement.
    """

    name: str = ""  # under which messages are taken
    ttl_s: float = 3.0

    def put(self, name: str, message: bytes) -> None:
        """Append a message to the list `tasks` or `results`."""
        self.link(lambda client: client.lpush(self.prefix + name, message))

    def take(self, name: str) -> bytes | None:
        """Pop the oldest message, or None after `BLOCK_S`; from here on it is ours alone."""

        def ask(client: Any) -> Any:
            pipe = client.pipeline(transaction=False)
            if self.name:
                pipe.incr(f"{self.prefix}turn:{self.name}")
                self._renew(pipe, self.name, self.ttl_s)
            pipe.brpop([self.prefix + name], BLOCK_S)
            return pipe.execute()[-1]

        popped = self.link(ask, BLOCK_S)
        return popped[1] if popped else None

    def beat(self, _list: str, name: str, ttl_s: float, _entries: Sequence[str]) -> None:
        """Say that whoever takes messages under this name is alive."""

        def say(client: Any) -> None:
            pipe = client.pipeline(transaction=False)
            pipe.set(f"{self.prefix}turn:{name}", 0, nx=True)  # a server that died forgot it
            self._renew(pipe, name, ttl_s)
            pipe.execute()

        self.link(say)

    def _renew(self, pipe: Any, name: str, ttl_s: float) -> None:
        pipe.pexpire(f"{self.prefix}turn:{name}", int(ttl_s * 1000))
        pipe.sadd(f"{self.prefix}names", name)

    def stop_beating(self, name: str) -> None:
        """Say that this name is leaving."""
        self.link(lambda client: client.delete(f"{self.prefix}turn:{name}"))

    def turns(self) -> dict[str, int]:
        """How often everybody who is alive has asked for a message.

        A server that lost its data since the last call has forgotten them: it was not healthy.
        """

        def ask(client: Any) -> Any:
            if client.set(f"{self.prefix}known", 1, nx=True):
                self.link.healthy_since = time.monotonic()
            names = sorted(client.smembers(f"{self.prefix}names"))
            keys = [f"{self.prefix}turn:".encode() + name for name in names]
            return zip(names, client.mget(keys) if keys else [], strict=True)

        return {name.decode(): int(turn) for name, turn in self.link(ask) if turn is not None}

    def length(self, name: str) -> int:
        """Messages that wait in a list."""
        return int(self.link(lambda client: client.llen(self.prefix + name)))

    def note_received(self, job: ImageJob, *tiles: Tile) -> None:
        """The assembler has these tiles."""
        members = _members(job, tiles)
        self.link(lambda client: client.sadd(f"{self.prefix}received", *members))

    def forget_received(self) -> None:
        """A new assembler has nothing: what the one before it held in memory is gone."""
        keys = [f"{self.prefix}received", f"{self.prefix}decided"]
        self.link(lambda client: client.delete(*keys))

    def decide(self, job: ImageJob, who: str) -> bool:
        """Whether `who` may say how an image ends: the first to ask may."""

        def ask(client: Any) -> Any:
            client.hsetnx(f"{self.prefix}decided", job.key, who)
            return client.hget(f"{self.prefix}decided", job.key)

        return bool(self.link(ask) == who.encode())

    def count_received(self) -> int:
        """How many tiles the assembler has, of all jobs."""
        return int(self.link(lambda client: client.scard(f"{self.prefix}received")))

    def missing(self, job: ImageJob) -> list[Tile]:
        """Tiles of a job that the assembler does not have."""
        members = _members(job, job.tiles)
        found = self.link(lambda client: client.smismember(f"{self.prefix}received", members))
        return [tile for tile, there in zip(job.tiles, found, strict=True) if not there]


def _members(job: ImageJob, tiles: Iterable[Tile]) -> list[str]:
    return [f"{job.key}:{tile.index}" for tile in tiles]


def coordinate_list(run: Run, queue: ListQueue, stop: threading.Event) -> None:
    """Queue the tiles of all images with their pixels, then watch until each image has ended."""
    jobs, hands = [], Hands(queue, run.settings.delivery.visibility_s)
    for path in run.paths(stop):
        with run.guarded(path.name):
            job, pixels = run.load(path)
            jobs.append(job)
            for task in plan(job, pixels, run.recorder):
                with run.recorder.span("enqueue", job.image, task.tile.index) as detail:
                    begun = run.recorder.clock()
                    while queue.length("tasks") >= run.settings.queue_size and not stop.is_set():
                        time.sleep(0.005)
                        detail["full_s"] = round(run.recorder.clock() - begun, 6)
                    queue.put("tasks", work.encode(task))
    _watch_list(run, queue, jobs, hands, stop)
    if stop.is_set():
        raise Cancelled


def _watch_list(
    run: Run, queue: ListQueue, jobs: list[ImageJob], hands: "Hands", stop: threading.Event
) -> None:
    """Nobody reports a lost tile: give up after a long silence in which all hands are empty."""
    silence = Silence(run.settings.delivery.quiet_s)
    while jobs and not stop.wait(POLL_S):
        turns = queue.turns()
        jobs = queue.unfinished(jobs)
        waiting = queue.length("tasks") + queue.length("results")
        state = (queue.count_received(), waiting, len(jobs))
        if all([silence.lasts(state), hands.are_empty(turns, state), not waiting]):
            begun = run.recorder.clock() - silence.seconds
            for job in jobs:
                _give_up(run, queue, job, begun)


def _give_up(run: Run, queue: ListQueue, job: ImageJob, begun: float) -> None:
    lost = queue.missing(job)
    if not lost or not queue.decide(job, "coordinator"):
        return  # the assembler has all of it and is still saving
    run.recorder.add("wait", begun, job.image, cause="silence")
    for tile in lost:
        run.recorder.mark("lost", job.image, tile.index)
    queue.set_state(job, "failed")
    error = f"{len(lost)} of {len(job.tiles)} tiles were lost, so {job.image} is not saved"
    remedy = "Run it again, or use approach f, which redelivers them"
    run.recorder.mark("failed", job.image, error=str(ImageError(error, remedy)))


class Silence:
    """Tells when nothing has changed for long, as measured by how often it usually does."""

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._longest_s = 0.0  # pause between two changes so far, the one before the first left out
        self._changes = 0
        self._since = time.monotonic()
        self._last: object = None

    @property
    def seconds(self) -> float:
        """Time since the last change."""
        return time.monotonic() - self._since

    def lasts(self, state: object) -> bool:
        """Whether `state` stayed the same for `least_s` and five times the longest pause yet."""
        pause = self.seconds
        if state == self._last:
            return pause > max(self._least_s, 5 * self._longest_s)
        # The first change is our own first look, the second ends the workers' start.
        if self._changes >= 2:
            self._longest_s = max(self._longest_s, pause)
        self._last, self._since = state, time.monotonic()
        self._changes += 1
        return False


class Hands:
    """Tells when nobody who is alive has a message in hand, from how often each asked for one.

    Who asks again has nothing in hand. All have to ask again twice: a result may be on its way from
    a worker to the assembler while both ask for the first time. A server that was away may have
    forgotten who is alive; after `beat_s` all have said so again.
    """

    def __init__(self, queue: ListQueue, beat_s: float) -> None:
        queue.turns()
        self._link = queue.link
        self._began = self._link.healthy_since
        self._time_s = beat_s + LONGEST_PAUSE_S
        self._before: dict[str, int] = {}
        self._rounds = 0
        self._last: object = None

    def are_empty(self, turns: dict[str, int], state: object) -> bool:
        """Whether all of `turns`, looked up before `state`, advanced twice and `state` did not."""
        troubled = self._link.healthy_since
        recovers = troubled != self._began and time.monotonic() - troubled < self._time_s
        if state != self._last or recovers:
            self._last, self._before, self._rounds = state, {}, 0
            return False
        self._before = {**turns, **self._before}
        if all(turn != self._before[name] for name, turn in turns.items()):
            self._rounds += 1
            self._before = {}  # the next round begins with the next look
        return self._rounds >= 2


def work_list(run: Run, queue: ListQueue, stop: threading.Event, faults: Sequence[Fault]) -> None:
    """Pop a tile, blur it, push the result. Whoever dies in between takes the tile along."""
    recorder = run.recorder
    while not stop.is_set():
        start = recorder.clock()
        message = queue.take("tasks")
        if message is None:
            continue
        task = work.decode_task(message)
        image, tile = task.job.image, task.tile.index
        recorder.add("wait", start, image, tile)
        strike(faults, image, tile, task.attempt)
        result = process(task, recorder)
        with recorder.span("transfer", image, tile):
            queue.put("results", work.encode(result))


def assemble_list(run: Run, queue: ListQueue, stop: threading.Event) -> None:
    """Collect results; save each image of which every tile has come."""
    canvases: dict[str, Canvas] = {}
    placed: dict[ImageJob, set[int]] = {}
    states: dict[ImageJob, str] = {}
    queue.forget_received()
    while not stop.is_set():
        message = queue.take("results")
        if message is None:
            if queue.count_received() != sum(map(len, placed.values())):
                _say_again(queue, placed, states)
            continue
        result = work.decode_result(message)
        job = result.job
        canvas = canvases.setdefault(job.key, Canvas(job))
        complete = canvas.add(result, run.recorder)
        placed.setdefault(job, set()).add(result.tile.index)
        queue.note_received(job, result.tile)
        if complete:
            states[job] = "failed"
            given_up = queue.state(job) == "failed" or not queue.decide(job, "assembler")
            if not given_up:
                with run.guarded(job.image):
                    run.save(job.image, canvas.pixels)
                    states[job] = "saved"
            queue.set_state(job, states[job])
            del canvases[job.key]


def _say_again(
    queue: ListQueue, placed: dict[ImageJob, set[int]], states: dict[ImageJob, str]
) -> None:
    """A server that died has forgotten what the assembler has, and how images ended."""
    for job, tiles in placed.items():
        queue.note_received(job, *(job.tiles[index] for index in tiles))
    for job, state in states.items():
        queue.set_state(job, state)
