"""A model of the seven approaches: what would happen with other workers, tiles and machines.

`simulate` plays one run in virtual time, step by step (a discrete-event simulation, on SimPy): the
same roles, queues and limits as in the library, but each step only takes its time on a core.
`Costs.fit` reads these times off the events of recorded runs. Cores are shared as a fair scheduler
does it: all threads that could run get the same part (processor sharing). What a step takes beside
its pixels is Python, and one thread of a process at a time runs that: it holds the GIL.
`bound` is the classic short cut for sizes that are too large to simulate: no run ends before its
busiest station has done its share.
Source: R. Jain, The Art of Computer Systems Performance Analysis, ch. 24 (simulation) and 33 (the
operational laws).
"""

import heapq
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, pairwise
from typing import Any

import numpy as np
import simpy

from studyguide.approaches import APPROACHES
from studyguide.record.report import RunReport
from studyguide.record.timeline import Event
from studyguide.tiles import grid

Steps = Generator[simpy.Event, Any, None]
Cost = tuple[float, float]  # CPU seconds each time, and for each sample (pixels times channels)
FREE: Cost = (0.0, 0.0)
STAGES = ("load", "save", "split", "enqueue", "blur", "assemble")  # fitted to their spans alone
OF_TILE = ("split", "enqueue", "blur", "transfer", "assemble")
LOADERS = 2  # of c
PER_IMAGE = 8  # tiles of an image, where nothing else is said


def seconds(cost: Cost, samples: int) -> float:
    """CPU seconds of one step on so many samples."""
    return cost[0] + cost[1] * samples


@dataclass(frozen=True)
class Costs:
    """What each step takes."""

    load: Cost = FREE
    save: Cost = FREE
    split: Cost = FREE
    enqueue: Cost = FREE  # the coordinator's side of handing a tile to the queue
    blur: Cost = FREE
    transfer: Cost = FREE  # a worker's side of handing a result on and taking the next tile
    assemble: Cost = FREE
    pause: float = 0.0  # of a transfer, when no core of ours works: the disk does
    boot: float = 0.0  # until a process runs its first line of Python
    start: float = 0.0  # CPU seconds of a process, from its first line to its role
    warm_up: float = 0.0  # the same for the kernels of one that blurs
    server: float = 0.0  # CPU seconds of Redis for one tile, from enqueue to commit
    spread: float = 0.0  # standard deviation of the logarithm of a blur's time

    @classmethod
    def fit(cls, reports: Iterable[RunReport], server: float = 0.0) -> "Costs":
        """Costs as the events of recorded runs tell them.

        Parameters
        ----------
        reports : iterable of RunReport
            Runs of the same kernel. Tiles of two or more sizes tell a step's fixed part; a run of
            one worker tells what a transfer takes, which others make longer.
        server : float
            CPU seconds of Redis for one tile, which events do not know.
        """
        reports = list(reports)
        spans = {stage: list(_spans(reports, stage)) for stage in STAGES}
        fitted = {stage: mean_line(pairs) for stage, pairs in spans.items()}
        transfer, pause = min(map(_transfer, reports))[1:]
        boot, start, warm_up = _starts(reports)
        blurs = [math.log(cpu / seconds(fitted["blur"], size)) for cpu, size in spans["blur"]]
        return cls(
            **fitted,
            transfer=transfer,
            pause=pause,
            boot=boot,
            start=start,
            warm_up=warm_up,
            server=server,
            spread=statistics.pstdev(blurs),
        )


def line(pairs: Sequence[tuple[float, int]]) -> Cost:
    """Least squares of the relative errors of fixed + each * samples, neither of them negative."""
    if not pairs:
        return FREE
    took, samples = np.array(pairs, float).T
    terms = np.stack([1 / took, samples / took], axis=1)
    candidates: list[tuple[float, Cost]] = []
    for kept in ([True, True], [True, False], [False, True]):
        cost = np.zeros(2)
        cost[kept] = np.linalg.lstsq(terms[:, kept], np.ones_like(took), rcond=None)[0]
        if cost.min() >= 0:
            fixed, each = cost.tolist()
            candidates.append((float(np.square(terms @ cost - 1).sum()), (fixed, each)))
    return min(candidates)[1]


def mean_line(pairs: Sequence[tuple[float, int]]) -> Cost:
    """`line`, with the mean of what it was fitted to."""
    fixed, each = line(pairs)
    level = sum(took for took, _ in pairs) / (sum(seconds((fixed, each), n) for _, n in pairs) or 1)
    return fixed * level, each * level


def _spans(reports: Iterable[RunReport], stage: str) -> Iterator[tuple[float, int]]:
    """(CPU seconds, samples) of every span of a stage."""
    for report in reports:
        for event in report.timeline.of(stage):
            yield max(event.detail.get("cpu_s", event.seconds), 1e-6), _samples(event, report)


def _transfer(report: RunReport) -> tuple[float, Cost, float]:
    """How long workers are between two blurs, their CPU seconds of it, and what uses no core."""
    lanes = defaultdict(list)
    for event in report.timeline.of("blur"):
        lanes[event.process, event.lane].append(event)
    pairs = [
        (after.start - event.end, _samples(event, report))
        for lane in lanes.values()
        for event, after in pairwise(lane)
        if event.tile >= 0 and event.image == after.image
    ]
    if not pairs:
        return math.inf, FREE, 0.0
    idle = [event.seconds - event.detail["cpu_s"] for event in report.timeline.of("transfer")]
    fixed, each = line(pairs)
    pause = min(fixed, statistics.median(idle))
    return statistics.median(gap for gap, _ in pairs), (fixed - pause, each), pause


def _starts(reports: Iterable[RunReport]) -> tuple[float, float, float]:
    """Means of a process' boot, of its start, and of what it adds to have kernels."""
    boots, plain, blurring = [0.0], [0.0], [0.0]
    for report in reports:
        for event in report.timeline.of("start"):
            boots.append(event.start - report.timeline.start)
            blurs = event.process.startswith(("worker", "sequential"))
            (blurring if blurs else plain).append(min(event.detail["cpu_s"], event.seconds))
    boot, start, both = (sum(each) / max(1, len(each) - 1) for each in (boots, plain, blurring))
    return boot, start, max(0.0, both - start)


def image_shapes(report: RunReport) -> dict[str, tuple[int, ...]]:
    """Shape of each image of a run, as its loading tells it."""
    loads = report.timeline.of("load")
    return {event.image: tuple(event.detail["shape"]) for event in loads if "shape" in event.detail}


def _samples(event: Event, report: RunReport) -> int:
    shape = image_shapes(report).get(event.image, (0, 0))
    if event.tile < 0:
        return math.prod(shape)
    tile = grid(shape[0], shape[1], int(report.settings["tile_size"]))[event.tile]
    return tile.height * tile.width * math.prod(shape[2:])


@dataclass(frozen=True)
class Scenario:
    """One run to be played."""

    approach: str
    shapes: Sequence[tuple[int, ...]]  # of the images, in the order in which they are loaded
    workers: int = 4
    tile_size: int = 256
    cores: int = 2  # that all share; 0: a machine for each process
    queue_size: int = 100
    images_in_memory: int = 3
    instances: int = 2  # of g
    deaths: int = 0  # workers' processes that are killed in the middle of a tile
    visibility_s: float = 3.0
    flaky: float = 0.0  # share of the tiles that fail once
    backoff_s: float = 0.1
    seed: int = 0

    @cached_property
    def tiles(self) -> list[tuple[int, int]]:
        """(image, samples of its core) of every tile."""
        return [
            (image, tile.height * tile.width * math.prod(shape[2:]))
            for image, shape in enumerate(self.shapes)
            for tile in grid(shape[0], shape[1], self.tile_size)
        ]


@dataclass
class Outcome:
    """What came of a run that was played."""

    wall_s: float = 0.0
    tiles: int = 0  # that are in their place
    lost: int = 0
    redelivered: int = 0
    retried: int = 0
    images: int = 0  # that are saved


class Killed(Exception):
    """What a thread meets when its process is killed."""


class Machine:
    """Cores that all threads that could run share equally."""

    def __init__(self, env: simpy.Environment, cores: int) -> None:
        self.env, self.cores = env, cores
        self.jobs: list[tuple[float, int, simpy.Event]] = []  # a heap: who is due first
        self.number = count()
        self.given = 0.0  # CPU seconds that a thread would have got that ran all the time
        self.since = 0.0  # when that was so
        self.timer: simpy.Event | None = None

    def burn(self, cpu_s: float) -> Steps:
        """Use so much of a core."""
        self._advance()
        done = self.env.event()
        heapq.heappush(self.jobs, (self.given + cpu_s, next(self.number), done))
        self._set_timer()
        yield done

    def _share(self) -> float:
        return min(1.0, self.cores / max(1, len(self.jobs)))

    def _advance(self) -> None:
        self.given += (self.env.now - self.since) * self._share()
        self.since = self.env.now

    def _set_timer(self) -> None:
        if self.jobs:
            wait_s = max(0.0, self.jobs[0][0] - self.given) / self._share()
            self.timer = self.env.timeout(wait_s)
            self.timer.callbacks.append(self._end)

    def _end(self, timer: simpy.Event) -> None:
        if timer is self.timer:
            self._advance()
            self.given = max(self.given, self.jobs[0][0])  # whatever was lost to rounding
            while self.jobs and self.jobs[0][0] <= self.given:
                heapq.heappop(self.jobs)[2].succeed()
            self._set_timer()


class Host:
    """A process: its threads share a machine, and one GIL."""

    def __init__(self, env: simpy.Environment, machine: Machine) -> None:
        self.env, self.machine = env, machine
        self.gil = simpy.Resource(env)

    def step(self, cost: Cost, samples: int = 0, scatter: float = 1.0) -> Steps:
        """Python first, then what works on pixels and lets others run Python meanwhile."""
        if cost[0]:
            with self.gil.request() as turn:
                yield turn
                yield from self.machine.burn(cost[0] * scatter)
        if cost[1]:
            yield from self.machine.burn(cost[1] * samples * scatter)


class Play:
    """One run in virtual time: stores are the queues, processes are the threads and roles."""

    def __init__(self, scenario: Scenario, costs: Costs) -> None:
        self.scenario, self.costs = scenario, costs
        self.env = env = simpy.Environment()
        self.shared = Machine(env, scenario.cores or 1)
        self.main, self.redis = self.host(), self.host()
        self.approach = APPROACHES[scenario.approach]
        self.on_queue = self.approach.queue != "none"
        self.tasks = simpy.Store(env, scenario.queue_size)
        self.results = simpy.Store(env)
        self.places = simpy.Container(env, init=scenario.images_in_memory, capacity=math.inf)
        self.saved = [env.event() for _ in scenario.shapes]
        self.random = random.Random(scenario.seed)
        self.missing = [0] * len(scenario.shapes)
        self.cuts: list[list[tuple[int, int]]] = [[] for _ in scenario.shapes]  # number, samples
        for number, (image, samples) in enumerate(scenario.tiles):
            self.missing[image] += 1
            self.cuts[image].append((number, samples))
        self.deaths_left = scenario.deaths
        self.outcome = Outcome()

    def road(self) -> Callable[[], Steps]:
        """The steps that its tiles take."""
        if self.approach.on_cluster:
            return self.distributed
        if not self.approach.tiled:
            return self.sequential
        return self.overlapped if self.approach.overlapping else self.by_tiles

    def host(self) -> Host:
        """A new process, and where it runs."""
        return Host(self.env, self.shared if self.scenario.cores else Machine(self.env, 1))

    def play(self) -> Outcome:
        """Start all roles and run until every image has ended, as far as it can."""
        self.env.process(self.road()())
        self.env.run()
        self.outcome.images = sum(event.triggered for event in self.saved)
        return self.outcome

    # -- the approaches

    def sequential(self) -> Steps:
        """One thread for everything: a, and after the start of its process d."""
        for image, shape in enumerate(self.scenario.shapes):
            yield from self.load(image, self.main)
            yield from self.main.step(self.costs.blur, math.prod(shape))
            yield from self.save(image, self.main)
            self.outcome.tiles += self.missing[image]

    def by_tiles(self) -> Steps:
        """Images one after the other, tiles in parallel."""
        self.start_workers()
        self.env.process(self.assemble(self.main))
        for image in range(len(self.scenario.shapes)):
            yield from self.load(image, self.main)
            yield from self.cut(image, self.main)
            yield self.saved[image]

    def overlapped(self) -> Steps:
        """Loading, blurring and assembling overlap, as far as there are places in memory."""
        self.start_workers()
        self.env.process(self.assemble(self.main))
        loaded = simpy.Store(self.env)
        images = iter(range(len(self.scenario.shapes)))
        for _ in range(LOADERS):
            self.env.process(self.loader(images, loaded))
        for _ in self.scenario.shapes:
            image = yield loaded.get()
            yield from self.cut(image, self.main)

    def loader(self, images: Iterable[int], loaded: simpy.Store) -> Steps:
        """Load images while there are places."""
        for image in images:
            yield self.places.get(1)
            yield from self.load(image, self.main)
            yield loaded.put(image)

    def distributed(self) -> Steps:
        """Every role is a process that has to start first: d, e, f, g."""
        yield self.env.timeout(self.costs.boot)
        if not self.approach.tiled:
            yield from self.main.step((self.costs.start + self.costs.warm_up, 0.0))
            yield from self.sequential()
            return
        self.start_workers()
        self.env.process(self.assemble(self.host(), self.costs.start))
        yield from self.main.step((self.costs.start, 0.0))
        for image in range(len(self.scenario.shapes)):
            yield from self.load(image, self.main)
            yield from self.cut(image, self.main)

    # -- the steps

    def load(self, image: int, here: Host) -> Steps:
        """Decode an image."""
        yield from here.step(self.costs.load, math.prod(self.scenario.shapes[image]))

    def cut(self, image: int, here: Host) -> Steps:
        """Queue the tiles of an image; wait while the queue is full."""
        for number, samples in self.cuts[image]:
            yield from here.step(self.costs.split, samples)
            yield from here.step(self.costs.enqueue, samples)
            yield from self.ask_redis()
            yield self.tasks.put((number, image, samples, 1))

    def ask_redis(self) -> Steps:
        """A call: half of what a tile costs the server's one thread."""
        if self.on_queue:
            yield from self.redis.step((self.costs.server / 2, 0.0))

    def start_workers(self) -> None:
        """Workers: threads of this process, processes of a thread each, or some of each (g)."""
        scenario = self.scenario
        processes = scenario.instances if self.approach.pools else scenario.workers
        number = processes if self.on_queue else 1
        for _ in range(number):
            here = self.host() if self.on_queue else self.main
            self.env.process(self.crew(-(-scenario.workers // number), here))

    def crew(self, threads: int, here: Host) -> Steps:
        """A process with its threads; one that is killed starts again."""
        while True:
            if self.on_queue:
                yield from here.step((self.costs.start + self.costs.warm_up, 0.0))
            crew = [self.env.process(self.work(here)) for _ in range(threads)]
            yield self.env.any_of(crew)
            for thread in crew:
                if thread.is_alive:
                    thread.interrupt()

    def work(self, here: Host) -> Steps:
        """A worker: take a tile, blur it, hand it on, for ever."""
        task = None
        try:
            while True:
                request = self.tasks.get()
                task = yield request
                yield from self.blur(task, here)
                task = None
        except (Killed, simpy.Interrupt):
            request.cancel()
            task = request.value if request.triggered and task is None else task
            if task:
                self.env.process(self.mourn(task))

    def blur(self, task: tuple[int, int, int, int], here: Host) -> Steps:
        """One tile in a worker's hand."""
        number, image, samples, attempt = task
        scatter = self.random.lognormvariate(-(self.costs.spread**2) / 2, self.costs.spread)
        if self.deaths_left and number >= len(self.scenario.tiles) // (self.deaths_left + 1):
            self.deaths_left -= 1
            yield from here.step(self.costs.blur, samples, scatter / 2)
            raise Killed
        yield from here.step(self.costs.blur, samples, scatter)
        if attempt == 1 and self.random.random() < self.scenario.flaky:
            self.outcome.retried += 1
            self.env.process(self.again(task, self.scenario.backoff_s))
            return
        yield from self.ask_redis()
        yield from here.step(self.costs.transfer, samples)
        yield self.env.timeout(self.costs.pause)
        yield self.results.put((image, samples))

    def mourn(self, task: tuple[int, int, int, int]) -> Steps:
        """The tile of a worker that was killed: lost in e, redelivered in f and g."""
        if not self.approach.resumable:
            self.outcome.lost += 1
            return
        self.outcome.redelivered += 1
        yield from self.again(task, self.scenario.visibility_s)

    def again(self, task: tuple[int, int, int, int], after_s: float) -> Steps:
        """Queue a tile once more."""
        yield self.env.timeout(after_s)
        yield self.tasks.put((*task[:3], task[3] + 1))

    def assemble(self, here: Host, start_s: float = 0.0) -> Steps:
        """Put results in their places; save each image of which all are there."""
        yield from here.step((start_s, 0.0))
        while True:
            image, samples = yield self.results.get()
            yield from here.step(self.costs.assemble, samples)
            self.outcome.tiles += 1
            self.missing[image] -= 1
            if not self.missing[image]:
                if self.approach.overlapping:  # an assembler for each image
                    self.env.process(self.save(image, here))
                else:
                    yield from self.save(image, here)

    def save(self, image: int, here: Host) -> Steps:
        """Encode an image; its place in memory is free again."""
        yield from here.step(self.costs.save, math.prod(self.scenario.shapes[image]))
        self.saved[image].succeed()
        self.outcome.wall_s = self.env.now
        yield self.places.put(1)


def simulate(scenario: Scenario, costs: Costs) -> Outcome:
    """Play one run; the same scenario and seed always end the same."""
    return Play(scenario, costs).play()


# --- laws ----------------------------------------------------------------------------------------


def amdahl(serial: float, workers: float) -> float:
    """Speed-up of a fixed job of which the share `serial` cannot be shared out (Amdahl, 1967)."""
    return 1 / (serial + (1 - serial) / workers)


def gustafson(serial: float, workers: float) -> float:
    """Speed-up of a job that grows with its workers (Gustafson, 1988)."""
    return workers + (1 - workers) * serial


def demands(
    costs: Costs, workers: int, samples: int, others: int = 1, tiles: int = PER_IMAGE
) -> dict[str, float]:
    """Seconds that each station of e, f or g is busy for one tile, each process on its own core.

    The greatest of them is the bottleneck: no more than 1 / demand tiles a second pass it.

    Parameters
    ----------
    samples : int
        Of a tile: pixels of its core times channels.
    others : int
        How many coordinators there are, and assemblers; Redis is one.
    tiles : int
        Of an image. Loading and saving have a fixed part for each image, not for each tile.
    """
    of_tile = {stage: seconds(getattr(costs, stage), samples) for stage in OF_TILE}
    load, save = (seconds(cost, tiles * samples) / tiles for cost in (costs.load, costs.save))
    return {
        "coordinator": (load + of_tile["split"] + of_tile["enqueue"]) / others,
        "Redis": costs.server,
        "workers": (of_tile["blur"] + of_tile["transfer"] + costs.pause) / workers,
        "assembler": (of_tile["assemble"] + save) / others,
    }


def bottleneck(busy: dict[str, float]) -> tuple[str, float]:
    """The busiest of the stations in `demands`, and the tiles a second that it passes at most."""
    station = max(busy, key=busy.__getitem__)
    return station, 1 / busy[station] if busy[station] else math.inf


def bound(costs: Costs, busy: dict[str, float], tiles: int) -> float:
    """Seconds below which no run of so many equal tiles can end (the bottleneck law).

    `busy` is what `demands` returns. A worker compiles its kernels first. Blurs take their mean
    time: a single run whose blurs scatter can be a little faster.
    """
    first = dict.fromkeys(busy, costs.boot + costs.start) | {"Redis": costs.boot}
    first["workers"] += costs.warm_up
    return max(first[station] + tiles * each for station, each in busy.items())


def rate(costs: Costs, workers: int, samples: int, tiles: int = PER_IMAGE) -> float:
    """Tiles a second of a simulated run of f whose processes are all up when it begins.

    It never exceeds 1 / max(demands(costs, workers, samples, tiles=tiles).values()): blurs take
    their mean time, every process has a core of its own, and no start is counted.

    Parameters
    ----------
    samples, tiles : int
        As for `demands`.
    """
    warm = replace(costs, boot=0.0, start=0.0, warm_up=0.0, spread=0.0)
    images = max(4, math.ceil((32 * workers + 64) / tiles))
    scenario = Scenario("f", [(1, tiles * samples)] * images, workers, samples, cores=0)
    wall_s = simulate(scenario, warm).wall_s
    return images * tiles / wall_s if wall_s else math.inf
