"""One process of a trial: runs the learner's functions and records what they do.

`python -m studyguide_course.ladder.runner FILE`, where FILE has a `Part` as JSON. The events go to
a file that the learner's code is never shown, so the verdict does not rely on its bookkeeping.
"""

import errno
import hashlib
import importlib.util
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from studyguide.record.timeline import EventFile, Recorder
from studyguide_course.ladder import BLUR_S, IMAGE, OUTPUT_BYTES, TICK_S, TILES, WINDOW_S

HELD_S = 20.0  # a tile that is held ends at the latest then, whatever became of the nemesis
POLL_S = 0.005
NEEDED = ("submit", "work", "collect")
LONGEST = 300  # characters of an error


@dataclass(frozen=True)
class Part:
    """What a process of a trial has to know."""

    file: str  # the learner's
    name: str  # of the process
    url: str
    folder: str  # of the trial
    faults: dict[str, str] = field(default_factory=dict)  # tile -> kind

    @property
    def worker(self) -> bool:
        """Whether it is a worker; else it is the coordinator."""
        return self.name.startswith("worker")


class BlurError(Exception):
    """What `blur` raises if a tile cannot be blurred."""


class Blur:
    """The function `blur` that a worker is handed: a stand-in that hashes, sleeps and records."""

    def __init__(self, part: Part, recorder: Recorder) -> None:
        self._part, self._recorder = part, recorder
        self._folder = Path(part.folder)
        self._free = recorder.clock()  # when the last tile was over
        self._count = 0

    def __call__(self, tile: Any) -> str:
        """Return a text that no other call returns. Raises BlurError where a fault is planted."""
        number = int(tile)
        if number not in range(TILES):
            raise ValueError(f"blur was called with {tile!r}, which is not a tile")
        first = self._is_first(number)  # before anybody can see that it is begun
        self._recorder.add("wait", min(self._free, self._recorder.clock()), IMAGE, number)
        began, self._count = self._recorder.clock(), self._count + 1
        text = f"{_digest(number)} {self._part.name}.{self._count}"
        try:
            self._suffer(self._part.faults.get(str(number), ""), number, first)
        except BlurError as error:
            self._recorder.mark("retry", IMAGE, number, error=str(error))
            raise
        finally:
            self._free = self._recorder.clock()
        self._recorder.add("blur", began, IMAGE, number, text=text)
        self._recorder.add("transfer", None, IMAGE, number)
        return text

    def _suffer(self, fault: str, tile: int, first: bool) -> None:
        """Take the time of a blur; let the fault happen that is planted on this tile."""
        time.sleep(BLUR_S)
        if fault == "slow":
            time.sleep(3 * WINDOW_S)
        elif fault == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "hold" and first:
            end = time.monotonic() + HELD_S
            while not (self._folder / "release").exists() and time.monotonic() < end:
                time.sleep(POLL_S)
        elif fault == "raise" or (fault == "flaky" and first):
            raise BlurError(f"tile {tile} cannot be blurred")

    def _is_first(self, tile: int) -> bool:
        """Whether no process has begun this tile before."""
        try:
            (self._folder / f"first-{tile}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def _digest(tile: int) -> str:
    return hashlib.sha256(b"%d" % tile).hexdigest()[:8]


def coordinate(learner: ModuleType, client: redis.Redis, recorder: Recorder) -> None:
    """Submit the tiles; then do the chores and record what is delivered, until we are killed."""
    began = recorder.clock()
    learner.submit(client, list(range(TILES)))
    for tile in range(TILES):
        recorder.add("enqueue", began, IMAGE, tile)
    seen: dict[int, str] = {}
    gone: set[int] = set()
    while True:
        try:
            found, given_up = _look(learner, client)
        except redis.ConnectionError:  # the server is away: look again later
            found, given_up = seen, gone
        for tile in found.keys() | seen.keys():
            if found.get(tile) != seen.get(tile):
                recorder.mark("assemble", IMAGE, tile, text=found.get(tile))
        for tile in given_up - gone:
            recorder.mark("dead", IMAGE, tile)
        seen, gone = found, gone | given_up
        time.sleep(TICK_S)


def _look(learner: ModuleType, client: redis.Redis) -> tuple[dict[int, str], set[int]]:
    """Have the chores done; return what is delivered and what is given up."""
    if hasattr(learner, "tick"):
        learner.tick(client)
    results = learner.collect(client)
    if not isinstance(results, Mapping):
        raise TypeError(f"collect returned {type(results).__name__}, not a dict of tile to text")
    dead = learner.dead(client) if hasattr(learner, "dead") else ()
    if not isinstance(dead, Collection):
        raise TypeError(f"dead returned {type(dead).__name__}, not a collection of tiles")
    return {int(tile): str(text) for tile, text in results.items()}, {int(tile) for tile in dead}


def load(path: Path) -> ModuleType:
    """Import the learner's file; TypeError if a function is missing."""
    spec = importlib.util.spec_from_file_location("my_queue", path)
    assert spec is not None
    assert spec.loader is not None
    learner = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = learner  # dataclasses look there
    spec.loader.exec_module(learner)
    missing = [name for name in NEEDED if not callable(getattr(learner, name, None))]
    if missing:
        raise TypeError(f"{path.name} does not define {', '.join(missing)}")
    return learner


def explain(error: BaseException, file: str) -> str:
    """Say what ended the learner's code, and on which of its lines."""
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return f"it printed more than {OUTPUT_BYTES >> 20} MiB"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    where = f" (line {lines[-1]} of {Path(file).name})" if lines else ""
    return f"{type(error).__name__}: {error}"[:LONGEST] + where


def main(path: Path) -> None:
    """Run a process of a trial; it goes on until it is killed, or the learner's code ends."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES, OUTPUT_BYTES))
    sys.dont_write_bytecode = True
    part = Part(**json.loads(path.read_bytes()))
    recorder = Recorder(EventFile(Path(part.folder) / "events", part.name), part.name)
    options: Any = {"decode_responses": True, "retry": Retry(NoBackoff(), 0), "protocol": 2}
    client = redis.Redis.from_url(part.url, **options)
    try:
        learner = load(Path(part.file))
        recorder.add("start", recorder.clock())
        if part.worker:
            learner.work(client, part.name, Blur(part, recorder))
            raise RuntimeError("work came back; it has to go on for ever")
        coordinate(learner, client, recorder)
    except BaseException as error:
        recorder.mark("failed", error=explain(error, part.file))
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
