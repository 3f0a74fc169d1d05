"""What happened when: one event schema for threads, processes, Redis and Kubernetes.

Every role records events through a `Recorder`. Threads of one process share a list; processes
append JSON lines to a file of their own in the run's `events` folder, one write per event, so that
nothing recorded is lost when a process is killed. `Timeline` puts them together again.

All times are seconds since the Unix epoch on one clock: wall time taken once at start (from Redis
where there is one), then advanced by the monotonic counter, so that a jump of the system clock
does not tear the picture.
"""

import errno
import json
import logging
import os
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from studyguide.errors import DAMAGE, MessageError

log = logging.getLogger(__name__)

SCHEMA = 1  # version of the event schema, documented in docs/event-schema.md

SPANS = ("start", "load", "split", "enqueue", "wait", "blur", "transfer", "assemble", "save")
MARKS = (
    "run",  # the run starts
    "retry",  # a tile failed and will be tried again (detail: error, delay_s)
    "reclaim",  # a tile was taken over from a worker that went silent (detail: from_worker)
    "duplicate",  # a tile was done twice; the second result, or error (in detail), was dropped
    "dead",  # a tile was given up as a dead letter (detail: error)
    "lost",  # a tile vanished with its worker and nobody will do it again
    "death",  # a process died (detail: exit_code); `tile` is what it held
    "failed",  # an image could not be done (detail: error)
)
LET_GO = ("transfer", "retry", "dead", "duplicate")  # a lane that waited for a tile is done with it
NEEDED = {"failed": ("error",), "save": ("path", "pixels_sha256")}  # texts in the detail
ENCODE = json.JSONEncoder(separators=(",", ":")).encode
END_OF_TIME = 1e11  # seconds since the epoch; beyond it no calendar goes


@dataclass(frozen=True, slots=True)
class Event:
    """A span (start < end) or a mark (start == end) on the lane of one thread.

    `tile` is the tile's index in its image, -1 where there is none; `attempt` counts from 1.
    """

    stage: str
    start: float
    end: float
    process: str
    lane: str
    image: str = ""
    tile: int = -1
    attempt: int = 1
    detail: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stage not in SPANS and self.stage not in MARKS:
            raise MessageError(f"{self.stage!r} is no stage of event schema {SCHEMA}")

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.end - self.start

    @property
    def who(self) -> tuple[str, str]:
        """Process and lane."""
        return self.process, self.lane

    @property
    def what(self) -> tuple[str, int]:
        """Image and tile."""
        return self.image, self.tile

    def to_json(self) -> str:
        """One line of JSON."""
        return ENCODE({name: getattr(self, name) for name in FIELDS})

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Event":
        """Take the fields that we know; a later version of the same schema may have more."""
        event = cls(**{key: value for key, value in raw.items() if key in FIELDS})
        event._check()
        return event

    def _check(self) -> None:
        """Raise TypeError if a field or a detail that others rely on is not what it should be."""
        texts = (self.process, self.lane, self.image)
        ok = all(isinstance(text, str) for text in texts) and isinstance(self.detail, dict)
        ok = ok and type(self.tile) is int and type(self.attempt) is int
        ok = ok and all(0 <= moment < END_OF_TIME for moment in (self.start, self.end))
        needed = NEEDED.get(self.stage, ())
        if not ok or not all(isinstance(self.detail.get(name), str) for name in needed):
            raise TypeError("a field is of another type or out of range")
        for name in ("cpu_s", "full_s"):
            if not isinstance(self.detail.get(name, 0.0), (int, float)):
                raise TypeError(f"{name} is not a number")

    @classmethod
    def from_json(cls, line: str) -> "Event":
        """Read one line back. Raises MessageError if the line is not an event of this schema."""
        try:
            return cls.from_dict(json.loads(line))
        except DAMAGE as error:
            raise MessageError(f"Not an event of schema {SCHEMA}: {line[:80]!r}") from error


FIELDS = tuple(item.name for item in fields(Event))


class Clock:
    """Seconds since the Unix epoch, monotonic after its start."""

    def __init__(self, epoch_now: float | None = None) -> None:
        self._offset = (time.time() if epoch_now is None else epoch_now) - time.perf_counter()

    def __call__(self) -> float:
        """The time now."""
        return time.perf_counter() + self._offset


@dataclass
class Recorder:
    """Records events of one process; the lane is the name of the calling thread."""

    sink: Callable[[Event], None]
    process: str = "main"
    clock: Clock = field(default_factory=Clock)

    @contextmanager
    def span(
        self, stage: str, image: str = "", tile: int = -1, attempt: int = 1
    ) -> Iterator[dict[str, Any]]:
        """Record the time that the body takes; what it puts into the yielded dict is the detail."""
        detail: dict[str, Any] = {}
        start, cpu = self.clock(), time.thread_time()
        yield detail
        detail["cpu_s"] = round(time.thread_time() - cpu, 6)
        self.add(stage, start, image, tile, attempt, **detail)

    def add(
        self,
        stage: str,
        start: float | None,
        image: str = "",
        tile: int = -1,
        attempt: int = 1,
        **detail: Any,
    ) -> None:
        """Record a span that began at `start` and ends now; None: something that takes no time."""
        lane, now = threading.current_thread().name, self.clock()
        start = now if start is None else start
        self.sink(Event(stage, start, now, self.process, lane, image, tile, attempt, detail))

    def mark(
        self, stage: str, image: str = "", tile: int = -1, attempt: int = 1, **detail: Any
    ) -> None:
        """Record something that takes no time."""
        self.add(stage, None, image, tile, attempt, **detail)


class EventFile:
    """A sink that appends JSON lines to `<folder>/<process>.jsonl`, unbuffered.

    One `write` per event: what was recorded survives the death of its process, and a process that
    is restarted under the same name goes on in the same file.
    """

    def __init__(self, folder: Path, process: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{process}.jsonl"
        before = self.path.read_bytes()[-1:] if self.path.exists() else b""
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if before.strip():  # a full disk took the end of the last line: ours is not joined to it
            os.write(self._fd, b"\n")

    def __call__(self, event: Event) -> None:
        """Append one event; OSError if the disk is full."""
        line = (event.to_json() + "\n").encode()
        if os.write(self._fd, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


@dataclass
class EventTail:
    """Follows all event files of a folder; each call of `read` returns what is new."""

    folder: Path
    _offsets: dict[Path, int] = field(default_factory=dict)

    def read(self) -> list[Event]:
        """New events, those of one process in order. A half-written last line waits."""
        return [event for path in sorted(self.folder.glob("*.jsonl")) for event in self._new(path)]

    def _new(self, path: Path) -> Iterator[Event]:
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            whole, _, _ = file.read().rpartition(b"\n")
        self._offsets[path] = self._offsets.get(path, 0) + (len(whole) + 1 if whole else 0)
        for line in whole.decode(errors="replace").splitlines():
            try:
                yield Event.from_json(line)
            except MessageError as error:
                log.warning("skipped a line of %s: %s", path.name, error)


class Timeline:
    """All events of one run, sorted by start."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = sorted(events, key=lambda event: (event.start, event.end))
        # From the first event to the end of the last; 0.0 for an empty timeline.
        self.start = self.events[0].start if self.events else 0.0
        self.end = max((event.end for event in self.events), default=0.0)
        self.seconds = self.end - self.start
        self._of: dict[str, list[Event]] = {}
        for event in self.events:
            self._of.setdefault(event.stage, []).append(event)

    def of(self, *stages: str) -> list[Event]:
        """The events of these stages."""
        if len(stages) == 1:
            return list(self._of.get(stages[0], ()))
        return [event for event in self.events if event.stage in stages]

    def lanes(self) -> list[tuple[str, str]]:
        """(process, lane) of every thread, in order of first appearance, grouped by process."""
        seen = dict.fromkeys(event.who for event in self.events)
        order = {name: n for n, name in enumerate(dict.fromkeys(name for name, _ in seen))}
        return sorted(seen, key=lambda lane: order[lane[0]])

    def tiles(self, *stages: str) -> list[Event]:
        """The events of these stages that are about a tile."""
        return [event for event in self.of(*stages) if event.tile >= 0]

    def delivered(self) -> dict[tuple[str, int], float]:
        """Each tile that a worker was handed -> the end of its first delivery."""
        return {wait.what: wait.end for wait in reversed(self.tiles("wait"))}

    def queue_depth(self) -> list[tuple[float, int]]:
        """(time, tiles enqueued and not yet delivered for the first time) after each change."""
        changes = [(put.end, 1) for put in self.tiles("enqueue")]
        changes += [(moment, -1) for moment in self.delivered().values()]
        depth, curve = 0, []
        for moment, step in sorted(changes):
            depth += step
            curve.append((moment, max(0, depth)))  # a tile may be taken before its `put` returns
        return curve


# --- cause and effect ----------------------------------------------------------------------------

IDLE_S = 0.001  # a longer gap on a lane: its thread looked into an empty queue meanwhile


def critical_path(timeline: Timeline) -> list[Event]:
    """The chain of steps that the end of the run waited for, in order of time.

    It is followed backwards from the last save; from a wait in silence or a failure if that came
    later; or else from the span that ended last. The cause of a span is what ended last of all that
    had to end before it could: the span before it on its lane, or the start of its process; `load`
    before `split` and `enqueue`; `enqueue`, or an earlier delivery, before `wait`; `transfer`
    before `assemble`, that of the image's last tile where all of it is assembled at once;
    `assemble` before `save`; `save`, which frees a place in memory, before a `load` that had to
    wait for one; the last `assemble` or `save` before a wait in silence.

    A step is the part of its span that is on the path: it begins when its cause is over and ends
    when its effect can begin. So steps never overlap, and add up to no more than the run.
    """
    spans, overs = _by_end(timeline)
    causes = _causes(spans)
    chain, n = [], _last(timeline, spans, overs)
    while n >= 0:
        chain.append(n)
        n = causes[n]
    path: list[Event] = []
    for n, effect in zip(chain[::-1], [*chain[-2::-1], -1], strict=True) if chain else ():
        start = max(spans[n].start, path[-1].end) if path else spans[n].start
        end = overs[n]
        if effect >= 0 and spans[effect].stage != "wait":  # which begins before its cause is over
            end = min(end, spans[effect].start)
        path.append(replace(spans[n], start=start, end=max(start, end)))
    return path


def _last(timeline: Timeline, spans: list[Event], overs: list[float]) -> int:
    """The index of the span that ended the run, -1 for none."""
    saves = [n for n, span in enumerate(spans) if span.stage == "save"]
    last = saves[-1] if saves else -1
    for failed in timeline.of("failed")[-1:]:
        if last < 0 or failed.end > overs[last]:
            mine = (n for n, span in enumerate(spans) if span.who == failed.who)
            last = max((n for n in mine if overs[n] <= failed.end), default=last)
    return last if last >= 0 else len(spans) - 1


def _causes(spans: list[Event]) -> list[int]:
    """For each span, in order of their ends, the index of its cause, -1 for none."""
    left = Counter(span.image for span in spans if span.stage == "transfer")
    last: dict[object, int] = {}  # what is over -> the span that ended it, the last of several
    saves: list[int] = []
    causes: list[int] = []
    for n, span in enumerate(spans):
        before = max(last.get(span.who, -1), last.get(span.process, -1))
        freed = _freed(span, spans, last, saves)
        if freed >= 0 and (before < 0 or spans[before].end < span.start - IDLE_S):
            causes.append(freed)
        else:
            causes.append(max(before, *(last.get(key, -1) for key in _needs(span))))
        left[span.image] -= span.stage == "transfer"
        keys = (span.who, (span.stage, span.what), (span.stage, span.image), (span.stage,))
        last |= dict.fromkeys(keys, n)
        if span.stage == "start":
            last[span.process] = n
        if span.stage == "save":
            saves.append(n)
        if not left[span.image] and ("assemble", span.image) not in last:
            last.setdefault(("whole", span.image), n)
    return causes


def _freed(span: Event, spans: list[Event], last: dict[object, int], saves: list[int]) -> int:
    """What a free thread waited for: a lease that had to lapse, a place in memory, progress."""
    if span.stage == "wait" and span.detail.get("cause") == "silence":
        return max(last.get(("assemble",), -1), last.get(("save",), -1))
    if span.stage == "wait":
        return last.get(("wait", span.what), -1)
    if span.stage == "load":
        n = bisect_right(saves, span.start, key=lambda save: spans[save].end)
        return saves[n - 1] if n else -1
    return -1


def _by_end(timeline: Timeline) -> tuple[list[Event], list[float]]:
    """All spans in order of when each was over, and these moments; effects stand behind causes.

    A span is over when its effect can begin: what is handed over may be taken before `put` returns.
    """
    spans = timeline.of(*SPANS)
    first: dict[object, float] = {}  # when the first span of a stage, and of a tile in it, ended
    for span in sorted(spans, key=lambda span: span.end):
        first.setdefault((span.stage, span.image), span.end)
        first.setdefault((span.stage, span.what), span.end)

    def key(span: Event) -> tuple[float, int, float]:
        takers: dict[str, list[object]] = {
            "enqueue": [("wait", span.what)],
            "transfer": [("assemble", span.what), ("assemble", span.image)],
        }
        ends = [first.get(taker, span.end) for taker in takers.get(span.stage, [])]
        over = min([span.end, *(end for end in ends if end > span.start)])
        return over, SPANS.index(span.stage), span.start

    spans.sort(key=key)
    return spans, [key(span)[0] for span in spans]


def _needs(span: Event) -> list[object]:
    """What had to be over before a span could end, beside what its own thread did."""
    needs: dict[str, list[object]] = {
        "split": [("load", span.image)],
        "enqueue": [("load", span.image)],
        "wait": [("enqueue", span.what)],
        "assemble": [("transfer", span.what), ("whole", span.image)],
        "save": [("assemble", span.image)],
    }
    return needs.get(span.stage, [None])
