"""What a chart shows of one run: lanes, bars, faults and the critical path."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from studyguide.record.looks import FAULTS, LOOKS
from studyguide.record.timeline import SPANS, Event, Timeline, critical_path

Lane = tuple[str, str]  # (process, thread)
Segment = tuple[Lane, float, float]  # lane, start and end in seconds from the start of the run
Floats = NDArray[np.float64]

CAUSES = ("backoff", "silence")  # of a wait, as it is recorded; without one the queue was empty
MAX_ROWS = 320  # more lanes are too thin to see: those of one role share a row


class Bar(NamedTuple):
    """A span as it is drawn; times in seconds from the start of the run."""

    kind: str  # a key of LOOKS
    lane: Lane
    start: float
    end: float
    span: Event


class Scene:
    """The lanes, bars and faults of one run.

    `shown` maps each lane to the one in whose row it is drawn: itself, or where they are too many
    one that stands for all lanes of its role.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.faults = timeline.of(*FAULTS)
        self.spans: dict[Lane, list[Event]] = defaultdict(list)
        self.threads: dict[str, list[Lane]] = {}  # process -> its lanes that did anything
        for span in timeline.of(*SPANS[1:]):  # all but "start"
            self.spans[span.who].append(span)
        for lane in self.spans:
            self.threads.setdefault(lane[0], []).append(lane)
        for span in timeline.of("start"):  # a process starts for all of its threads
            for lane in self.threads.setdefault(span.process, [span.who]):
                self.spans[lane].append(span)
        self.deliveries: dict[tuple[str, int], list[Event]] = defaultdict(list)
        for wait in timeline.of("wait"):
            self.deliveries[wait.what].append(wait)
        self.held = [bar for death in timeline.of("death") for bar in self._held(death)]
        self.bars = [*self.held]
        for lane, spans in self.spans.items():
            self.bars += [bar for span in spans for bar in self._parts(lane, span)]
        every = {*self.spans, *map(self.lane, self.faults)}
        self.lanes = sorted(every, key=self._order())
        self.shown = _shown(self.lanes)
        self.workers = {bar.lane for bar in self.bars if bar.kind in ("blur", "held")}

    def _parts(self, lane: Lane, span: Event) -> Iterator[Bar]:
        """A span as bars: what of it was a wait for room in a full queue stands apart."""
        start, end = self.at(span.start), self.at(span.end)
        cause = span.detail.get("cause")
        kind = cause if span.stage == "wait" and cause in CAUSES else span.stage
        if span.stage in ("enqueue", "transfer"):
            begun, start = start, min(end, start + max(0.0, span.detail.get("full_s", 0.0)))
            if start > begun:
                yield Bar("full", lane, begun, start, span)
        yield Bar(kind, lane, start, end, span)

    def at(self, moment: float) -> float:
        """Seconds from the start of the run."""
        return moment - self.timeline.start

    def blurring(self) -> float:
        """Percentage of the run that a worker lane spent blurring on average."""
        busy = sum(bar.end - bar.start for bar in self.bars if bar.kind == "blur")
        return 100 * busy / (len(self.workers) * self.timeline.seconds) if busy else 0.0

    def lane(self, fault: Event) -> Lane:
        """Where a fault stands: on its own lane if that did anything, else on its process's."""
        held = [bar.lane for bar in self.held if bar.lane[0] == fault.process]
        if fault.who in self.spans or fault.who in held:
            return fault.who
        return (held + self.threads.get(fault.process, []) + [fault.who])[0]

    def path(self) -> list[Segment]:
        """The critical path, steps that follow each other on a lane taken together."""
        parts: list[Segment] = []
        for step in reversed(critical_path(self.timeline)):
            lane, start, end = step.who, self.at(step.start), self.at(step.end)
            after = parts[-1][0] if parts else lane
            if lane not in self.spans:  # a process started: it goes on with the thread that follows
                lane = after if after[0] == lane[0] and after in self.spans else self.lane(step)
            if parts and after == lane:
                end = parts.pop()[2]
            parts.append((lane, start, end))
        return parts[::-1]

    def loser(self, reclaim: Event) -> tuple[Lane, float] | None:
        """The lane that a tile was taken from, and when that lane went silent."""
        name = reclaim.detail.get("from_worker")
        had = [wait for wait in self.deliveries[reclaim.what] if wait.end < reclaim.start]
        if not had:
            return None
        last = max(had, key=lambda wait: (name in (*wait.who, "/".join(wait.who)), wait.end))
        deaths = [bar.end for bar in self.held if bar.span is last]
        return last.who, max(deaths, default=self.at(last.end))

    def _order(self) -> Callable[[Lane], Any]:
        """Lanes in the order in which work reaches their roles, then by number."""
        work = self.timeline.of(*(stage for stage in SPANS if stage not in ("start", "wait")))
        names = dict.fromkeys(name for span in work for name in span.who)
        roles = {role: n for n, role in enumerate(dict.fromkeys(map(_role, names)))}

        def place(name: str) -> tuple[int, str, int]:
            return roles.get(_role(name), len(roles)), *_numbered(name)

        return lambda lane: [place(name) for name in lane]

    def _held(self, death: Event) -> Iterator[Bar]:
        """The tiles that were delivered to a process and not handed over when it died."""
        for lane in self.threads.get(death.process, ()):
            past = [span for span in self.spans[lane] if span.end <= death.start and span.tile >= 0]
            turns = [span for span in past if span.stage in ("wait", "transfer")]
            if turns and turns[-1].stage == "wait":
                yield Bar("held", lane, self.at(turns[-1].end), self.at(death.start), turns[-1])


def _shown(lanes: Sequence[Lane]) -> dict[Lane, Lane]:
    """Lane -> the lane in whose row it is drawn."""
    if len(lanes) <= MAX_ROWS:
        return {lane: lane for lane in lanes}
    roles = {lane: (_role(lane[0]), _role(lane[1])) for lane in lanes}
    number = Counter(roles.values())
    return {lane: (role[0], f"{number[role]:,} \u00d7 {role[1]}") for lane, role in roles.items()}


def _numbered(name: str) -> tuple[str, int]:
    """Split `worker-10` into its role and its number."""
    role = name.rstrip("0123456789")
    return role, int(name[len(role) :] or 0)


def _role(name: str) -> str:
    """`worker` of `worker-10`, `assembler` of `assembler cat.png`."""
    return _numbered(name.partition(" ")[0])[0].rstrip("-")


def shares(bars: Sequence[Bar], edges: Floats, lanes: int = 1) -> dict[str, Floats]:
    """Kind -> its share of the lanes' time in each bin between the edges."""
    found = {}
    for kind in LOOKS:
        times = np.array([(bar.start, bar.end) for bar in bars if bar.kind == kind])
        if len(times):
            spent = elapsed(times[:, 0], edges) - elapsed(times[:, 1], edges)
            found[kind] = np.diff(spent) / np.diff(edges) / lanes
    return found


def elapsed(moments: Floats, edges: Floats) -> Floats:
    """At each edge, the seconds since each moment before it, summed."""
    before = np.searchsorted(np.sort(moments), edges)
    sums: Floats = before * edges - np.append(0.0, np.cumsum(np.sort(moments)))[before]
    return sums
