"""Figures of a run, computed from its events: work, bounds, shares and overlaps.

The lessons print these. Each function states its unit: CPU seconds are what cores spend and do not
grow on a busy machine; wall seconds are what a clock shows and do. No function divides one by the
other without saying so.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from studyguide.record.report import start_s as start_s
from studyguide.record.timeline import SPANS, Event, Timeline, critical_path

Span = tuple[float, float]  # start and end, in seconds
# The stages of a tile that never overlap. A hand-over may: the taker can be done before `put` ends.
CHAIN = ("split", "blur", "assemble")


def cpu_s(event: Event) -> float:
    """CPU seconds that a span recorded, at most its wall seconds; 0 where it recorded none."""
    return float(min(event.detail.get("cpu_s", 0.0), event.seconds))


def stage_cpu_s(timeline: Timeline) -> dict[str, float]:
    """CPU seconds of each stage that occurs, summed over all threads; waits are left out."""
    spent = {stage: [cpu_s(event) for event in timeline.of(stage)] for stage in SPANS}
    return {stage: sum(each) for stage, each in spent.items() if each and stage != "wait"}


def cpu_share(timeline: Timeline, stage: str) -> float:
    """Share of a stage in the CPU seconds of all stages, 0 to 1."""
    found = stage_cpu_s(timeline)
    total = sum(found.values())
    return found.get(stage, 0.0) / total if total else 0.0


# --- bounds --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LowerBound:
    """The wall seconds below which no schedule of the same work can end.

    `work_s` is the CPU seconds of all stages. `chain_s` is the CPU seconds of the longest chain of
    steps that cannot overlap: load `image`, cut, blur and place one of its tiles, save it.
    """

    work_s: float
    cores: int
    chain_s: float
    image: str

    @property
    def shared_s(self) -> float:
        """Wall seconds of the work if all cores work all the time."""
        return self.work_s / self.cores

    @property
    def seconds(self) -> float:
        """The bound in wall seconds: the greater of the shared work and the chain."""
        return max(self.shared_s, self.chain_s)


def lower_bound(timeline: Timeline, cores: int) -> LowerBound:
    """Bound the wall time of a run from below, from CPU seconds alone.

    All threads and processes of the run share the cores.
    """
    chains = _chains(timeline)
    image = max(chains, key=chains.__getitem__, default="")
    work_s = sum(stage_cpu_s(timeline).values())
    return LowerBound(work_s, cores, chains.get(image, 0.0), image)


def _chains(timeline: Timeline) -> dict[str, float]:
    """CPU seconds of the longest chain of each image that was saved.

    Of a step that was done several times the shortest counts: nobody knows which one was needed.
    """
    least: dict[tuple[str, str, int], float] = {}
    for event in timeline.of("load", "save", *CHAIN):
        step = (event.stage, event.image, event.tile)
        least[step] = min(cpu_s(event), least.get(step, float("inf")))
    tiles: dict[tuple[str, int], float] = defaultdict(float)
    ends: dict[str, float] = defaultdict(float)
    for (stage, image, tile), spent in least.items():
        if stage in CHAIN:
            tiles[image, tile] += spent
        else:
            ends[image] += spent
    longest: dict[str, float] = {}
    for (image, _), spent in tiles.items():
        longest[image] = max(spent, longest.get(image, 0.0))
    return {
        event.image: ends[event.image] + longest.get(event.image, 0.0)
        for event in timeline.of("save")
    }


@dataclass(frozen=True)
class Payoff:
    """What a distributed run can gain over a sequential one, in CPU seconds on both sides.

    `alone_s` is the CPU seconds of the sequential job on its one core. `fixed_s` and `shared_s` are
    the least wall seconds of the distributed run for its process starts and for everything else,
    with all its cores at work.
    """

    alone_s: float
    fixed_s: float
    shared_s: float

    @property
    def speed_up(self) -> float:
        """Times as fast as the sequential job, at most, for a job of this size."""
        return _ratio(self.alone_s, self.fixed_s + self.shared_s)

    @property
    def limit(self) -> float:
        """Times as fast, at most, for a job so large that the starts no longer count."""
        return _ratio(self.alone_s, self.shared_s)

    @property
    def pays_from(self) -> float:
        """How many times as large a job must be for the gain to cover the starts.

        Infinite where no size pays.
        """
        gain_s = self.alone_s - self.shared_s
        return self.fixed_s / gain_s if gain_s > 0 else float("inf")


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else float("inf")


def payoff(alone: Timeline, distributed: Timeline, cores: int) -> Payoff:
    """Compare a run of a with one of d to g on the same images by their CPU seconds.

    All processes of the distributed run share the cores.
    """
    spent = stage_cpu_s(distributed)
    fixed_s = spent.pop("start", 0.0)
    lanes = {event.who for event in distributed.of("blur")}
    blur_s = spent.get("blur", 0.0) / max(1, min(cores, len(lanes)))
    shared_s = max(sum(spent.values()) / cores, blur_s)
    return Payoff(sum(stage_cpu_s(alone).values()), fixed_s / cores, shared_s)


# --- shares of the wall time ---------------------------------------------------------------------


def path_s(timeline: Timeline) -> dict[str, float]:
    """Wall seconds of the critical path by stage, the longest first.

    Steps of the path do not overlap, so they add up to no more than the run. The rest of the run is
    time between two steps: a hand-over, or a thread that waited for a core.
    """
    found: dict[str, float] = defaultdict(float)
    until = timeline.start
    for event in critical_path(timeline):
        found[event.stage] += max(0.0, event.end - max(event.start, until))
        until = max(until, event.end)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def spans(timeline: Timeline, *stages: str, image: str = "") -> list[Span]:
    """When a run was in these stages, with every image or with one; seconds since the epoch."""
    return [(e.start, e.end) for e in timeline.of(*stages) if image in ("", e.image)]


def covered(times: Iterable[Span]) -> float:
    """Wall seconds in which at least one of the spans was open: overlaps count once."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(times):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def peak(times: Iterable[Span]) -> int:
    """How many of the spans were open at once, at most; one may start as another ends."""
    depth = most = 0
    for _, change in sorted(step for start, end in times for step in ((start, 1), (end, -1))):
        depth += change
        most = max(most, depth)
    return most


def tiles_in_flight(timeline: Timeline) -> int:
    """How many tiles at most were between the start of `enqueue` and the end of their blur."""
    cut = {e.what: e.start for e in timeline.of("enqueue")}
    return peak((cut[e.what], e.end) for e in timeline.of("blur") if e.what in cut)


def overlap_s(timeline: Timeline, one: str, other: str) -> float:
    """Wall seconds in which both stages were under way, on whatever threads."""
    first, second = spans(timeline, one), spans(timeline, other)
    return covered(first) + covered(second) - covered(first + second)


def in_memory(timeline: Timeline) -> list[Span]:
    """For each saved image, from the start of its load to the end of its save; seconds."""
    loads = {event.image: event.start for event in timeline.of("load")}
    saves = (event for event in timeline.of("save") if event.image in loads)
    return [(loads[event.image], event.end) for event in saves]


def idle_s(timeline: Timeline) -> float:
    """Wall seconds in which no worker was blurring."""
    return timeline.seconds - covered(spans(timeline, "blur"))


def starts_s(timeline: Timeline, role: str = "") -> list[float]:
    """Wall seconds of each process start, from its first line of Python until it can work.

    With a role, for example "worker", only of the processes whose name begins so.
    """
    return [event.seconds for event in timeline.of("start") if event.process.startswith(role)]


def start_share(timeline: Timeline) -> float:
    """Share of process starts in the CPU seconds of a run, 0 to 1."""
    spent = stage_cpu_s(timeline)
    return spent.get("start", 0.0) / (sum(spent.values()) or 1.0)


def after_starts_s(timeline: Timeline) -> float:
    """Wall seconds of a run after its last first process start."""
    return timeline.seconds - start_s(timeline)


def cores_at_work(timeline: Timeline) -> float:
    """Cores that blurred, on average, while any blur was open: CPU seconds by wall seconds."""
    blur_s = stage_cpu_s(timeline).get("blur", 0.0)
    return blur_s / (covered(spans(timeline, "blur")) or 1.0)


def with_starts_of(timeline: Timeline, other: Timeline) -> float:
    """Wall seconds that a run would take if its processes started as fast as those of another."""
    return start_s(other) + after_starts_s(timeline)


def gain_of_threads(after: int, before: int, cores: int) -> float:
    """Times as fast with so many threads as before, if only the cores count that they can use."""
    return min(after, cores) / min(before, cores)


@dataclass(frozen=True)
class Versus:
    """Two runs of the same job by their wall seconds."""

    one_s: float
    other_s: float

    @property
    def extra_s(self) -> float:
        """Wall seconds that the one takes longer than the other; negative if it is faster."""
        return self.one_s - self.other_s

    @property
    def times_as_long(self) -> float:
        """Wall time of the one divided by that of the other."""
        return _ratio(self.one_s, self.other_s)

    @property
    def times_as_fast(self) -> float:
        """The speed-up of the one over the other."""
        return _ratio(self.other_s, self.one_s)


def versus(one: Timeline, other: Timeline) -> Versus:
    """Compare two runs of the same job by their wall seconds, process starts included."""
    return Versus(one.seconds, other.seconds)


def added(totals: Sequence[float]) -> list[float]:
    """What each total adds to the one before it, in the unit of `totals`."""
    return [total - before for before, total in pairwise([0.0, *totals])]


# --- figures of a tile ---------------------------------------------------------------------------


def beside_blur_s(timeline: Timeline) -> float:
    """Median wall seconds from one result of a worker to its next, without the blur; 0 if none."""
    blurs = {(e.process, *e.what): e.seconds for e in timeline.of("blur")}
    before: dict[tuple[str, str], float] = {}
    found = []
    for event in timeline.of("transfer"):
        blur_s = blurs.get((event.process, *event.what))
        if event.who in before and blur_s is not None:
            found.append(event.end - before[event.who] - blur_s)
        before[event.who] = event.end
    return _median(found)


def tile_s(timeline: Timeline, stage: str) -> float:
    """Median wall seconds of a stage for one tile; 0 if there is none."""
    return _median([event.seconds for event in timeline.of(stage) if event.tile >= 0])


def tile_cpu_s(timeline: Timeline, stage: str) -> float:
    """Median CPU seconds of a stage for one tile; 0 if there is none."""
    return _median([cpu_s(event) for event in timeline.of(stage) if event.tile >= 0])


def _median(times: Sequence[float]) -> float:
    return statistics.median(times) if times else 0.0


def tile_cycle_s(timeline: Timeline) -> float:
    """Seconds of a worker for one tile: CPU seconds of its blur, wall seconds of all the rest.

    The blur is work, which a busy machine stretches in wall time alone; the rest is mostly waiting.
    """
    return tile_cpu_s(timeline, "blur") + beside_blur_s(timeline)


@dataclass(frozen=True)
class Little:
    """Little's law for the tile queue: mean depth = rate x mean wait.

    `depth` is tiles, `rate` tiles per second, `wait_s` wall seconds that a tile is in the queue.
    """

    depth: float
    rate: float
    wait_s: float

    def wait_at(self, depth: float) -> float:
        """Wall seconds that a tile would be in a queue of this mean depth at the same rate."""
        return depth / self.rate if self.rate else 0.0


def little(timeline: Timeline) -> Little:
    """Measure both sides of Little's law, each on its own, while the queue was in use.

    A tile that is taken before its `put` returns is never in the queue.
    """
    puts = {put.what: put.end for put in reversed(timeline.of("enqueue")) if put.tile >= 0}
    taken = timeline.delivered()
    stays = [(min(put, taken[tile]), taken[tile]) for tile, put in puts.items() if tile in taken]
    changes = sorted(change for put, end in stays for change in ((put, 1), (end, -1)))
    open_s = changes[-1][0] - changes[0][0] if changes else 0.0
    if not open_s:
        return Little(0.0, 0.0, 0.0)
    area = depth = 0.0
    for (at, step), (after, _) in pairwise(changes):
        depth += step
        area += depth * (after - at)
    return Little(area / open_s, len(stays) / open_s, sum(e - put for put, e in stays) / len(stays))
