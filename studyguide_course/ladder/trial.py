"""A trial: the learner's code as a coordinator and two workers around a real Redis, and its strike.

A strike is a generator that the trial resumes at each step, as in the fault matrix: it waits for
progress, never for a clock; only how long something stays frozen or away is time.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from studyguide.machinery.processes import Child, Reaper
from studyguide.machinery.redis_server import RedisServer
from studyguide.machinery.run_folder import TemporaryFolder
from studyguide.record.timeline import Event, EventTail, Recorder
from studyguide_course.chaos.proxy import Proxy
from studyguide_course.ladder import IMAGE, TILES, WINDOW_S
from studyguide_course.ladder.runner import Part

if TYPE_CHECKING:
    from studyguide_course.ladder.rungs import Row

WORKERS = 2
COORDINATOR, NEMESIS = "coordinator", "nemesis"
START_S, QUIET_S, BOUND_S = 15.0, 3.0, 20.0  # without an event: at the start, later; in all
MOST_SWEEPS = 300  # for processes that start others faster than they are ended
MOST_POISONED = 8  # processes that a tile may kill before the trial is over
OVERHEAD = {"auth", "client", "config", "hello", "info", "select", "ping"}  # not of the learner


@dataclass
class Record:
    """What was seen of a trial."""

    row: "Row"
    victims: tuple[int, ...]
    events: list[Event] = field(default_factory=list)
    strikes: list[tuple[float, str]] = field(default_factory=list)  # when, and what was done
    commands: int = 0
    stalled: str = ""  # why it was ended before all tiles were settled

    def of(self, stage: str, tile: int = -1) -> list[Event]:
        """The events of a stage, of one tile or of all, in the order in which they ended."""
        found = [e for e in self.events if e.stage == stage and tile in (-1, e.tile)]
        return sorted(found, key=lambda event: event.end)

    def results(self) -> dict[int, str]:
        """Tile -> text, as `collect` last returned it."""
        last = {event.tile: event.detail["text"] for event in self.of("assemble")}
        return {tile: text for tile, text in last.items() if text is not None}

    def dead(self) -> set[int]:
        """The tiles that were given up."""
        return {event.tile for event in self.of("dead")}

    def holds(self, name: str) -> int:
        """The tile that a process has begun and not ended, or -1."""
        begun = [e for e in self.of("wait") if e.process == name]
        over = [e for e in self.events if e.stage in ("blur", "retry") and e.process == name]
        return begun[-1].tile if len(begun) > len(over) else -1


class Trial:
    """One run of the learner's file under one row of its rung. Use it once, with `run`."""

    def __init__(self, file: Path, row: "Row", seed: int) -> None:
        self.row, self._file = row, file.resolve()
        rng = random.Random(f"{row.name} {seed}")
        # Late tiles: what is queued behind them is done soon.
        victims = tuple(rng.sample(range(TILES // 2, TILES), max(1, len(row.plant))))
        self.record = Record(row, victims)
        self.proxies: dict[str, Proxy] = {}
        self._faults = dict(zip(map(str, victims), row.plant, strict=False))
        self._children: dict[str, Child] = {}
        self._killed: set[str] = set()  # by the nemesis
        self._count = 0

    def run(self) -> Record:
        """Do it; nothing of it is left afterwards."""
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(TemporaryFolder("ladder")))
            self._reaper = Reaper()
            stack.callback(self._reaper.close)
            stack.callback(self._end)
            self.server = RedisServer.start(self.folder / "redis", True, self._reaper)
            stack.callback(self.server.stop)
            self._tail = EventTail(self.folder / "events")
            self._recorder = Recorder(self.record.events.append, NEMESIS)
            self._go()
        return self.record

    def _go(self) -> None:
        began = time.monotonic()
        for names in ([self.start_worker() for _ in range(WORKERS)], [COORDINATOR]):
            if COORDINATOR in names:  # the workers find an empty queue at first
                self._start(COORDINATOR)
            self._moved = time.monotonic()
            while not {event.process for event in self.record.of("start")} >= set(names):
                if not self._step(START_S, began):
                    return
        strike, struck = self.row.strike(self), False
        began = time.monotonic()
        while self._step(QUIET_S, began):
            struck = struck or next(strike, self) is self
            settled = self.record.results().keys() | self.record.dead()
            if struck and len(settled) == TILES:
                break
        self._count_commands()

    def _step(self, patience_s: float, began: float) -> bool:
        """Read events, look after processes; False once the trial is over."""
        time.sleep(0.005)
        if new := self._tail.read():
            self.record.events += new
            self._moved = time.monotonic()
        for name, child in list(self._children.items()):
            if (code := child.poll()) is not None:
                del self._children[name]
                self._ended(name, code, child)
        if self.record.of("failed"):
            return False
        now = time.monotonic()
        if now - self._moved > patience_s or now - began > BOUND_S:
            bound = patience_s if now - self._moved > patience_s else BOUND_S
            self.record.stalled = f"not all tiles were settled: stopped after {bound:g} s"
            if bound == patience_s:
                self.record.stalled += " in which nothing happened"
        return not self.record.stalled

    def _ended(self, name: str, code: int, child: Child) -> None:
        """A process has ended: by the nemesis, by poison, or by itself, which is a failure."""
        self.record.events += self._tail.read()
        tile = self.record.holds(name)
        if name not in self._killed and self._faults.get(str(tile)) != "poison":
            if not self.record.of("failed"):
                error = f"it ended with exit code {code}"
                self.record.events.append(self._event("failed", name, error=error))
            return
        self.record.events.append(self._event("death", name, tile, exit_code=code))
        if len(self.record.of("death")) > MOST_POISONED:
            self.record.stalled = f"it was ended after {MOST_POISONED} deaths"
        self.start_worker(name if self.row.same_name else "")

    def _event(self, stage: str, name: str, tile: int = -1, **detail: object) -> Event:
        now = self._recorder.clock()
        return Event(stage, now, now, name, "MainThread", IMAGE, tile, 1, detail)

    # -- processes

    def start_worker(self, name: str = "") -> str:
        """Start a worker, under a new name unless one is given; return its name."""
        if not name:
            name, self._count = f"worker-{self._count}", self._count + 1
        self._start(name)
        return name

    def _start(self, name: str) -> None:
        url = self.server.url
        if self.row.proxied and name != COORDINATOR:
            proxy = self.proxies[name] = Proxy(self.server.port, latency_s=0.0)
            url = url.replace(f":{self.server.port}", f":{proxy.port}")
        part = Part(str(self._file), name, url, str(self.folder), self._faults)
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(asdict(part)))
        argv = [sys.executable, "-m", "studyguide_course.ladder.runner", str(path)]
        env = {**os.environ, "STUDYGUIDE_TRIAL": str(self.folder)}
        log = self.folder / f"{name}.log"
        self._children[name] = Child(name, argv, env, log, self._reaper)

    def _end(self) -> None:
        """End every process, those that the learner's code started among them."""
        for child in self._children.values():
            child.kill()
            child.wait()
        for proxy in self.proxies.values():
            proxy.close()
        end_all(str(self.folder))  # the server is ended by now

    # -- what strikes do and wait for

    def strike(self, what: str) -> None:
        """Note what the nemesis does now."""
        self.record.strikes.append((self._recorder.clock(), what))

    def held(self) -> Generator[None, None, str]:
        """Wait until a process holds the victim, which it does until `release`; return its name."""
        while True:
            for name in self._children:
                if self.record.holds(name) == self.record.victims[0]:
                    return name
            yield

    def release(self) -> None:
        """Let the blur of the victim end."""
        (self.folder / "release").touch()

    def windows(self, number: float) -> Iterator[None]:
        """Let so many visibility windows pass."""
        end = time.monotonic() + number * WINDOW_S
        while time.monotonic() < end:
            self._moved = time.monotonic()  # the nemesis acts, so the trial does not stand still
            yield

    def kill(self, name: str) -> None:
        """End a process as a crash would."""
        self._killed.add(name)
        self._children[name].kill()

    def child(self, name: str) -> Child:
        """A running process."""
        return self._children[name]

    def kill_server(self) -> None:
        """End the server as a crash would; its append-only file stays."""
        self._count_commands()
        self.server.kill()

    def _count_commands(self) -> None:
        quick: Any = {"socket_timeout": 1.0, "retry": Retry(NoBackoff(), 0)}  # it may be blocked
        with suppress(redis.RedisError), redis.Redis.from_url(self.server.url, **quick) as client:
            stats = client.info("commandstats")
            assert isinstance(stats, dict)
            for name, counts in stats.items():
                if name.removeprefix("cmdstat_").partition("|")[0] not in OVERHEAD:
                    self.record.commands += counts["calls"]


def end_all(folder: str) -> None:
    """End every process in whose environment this folder is named; on Linux."""
    for _ in range(MOST_SWEEPS):
        for pid in (left := _having(folder)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            break
        time.sleep(0.01)


def _having(folder: str) -> list[int]:
    """The processes in whose environment this folder is named, without us and what has ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if folder.encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found
