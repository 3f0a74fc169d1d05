"""A model of the seven approaches: what would happen with other workers, tiles and machines.

`simulate` plays one run in virtual time, step by step (a discrete-event simulation, on SimPy): the
same roles, queues and limits as in the library, but each step only takes its CPU time. `Costs.fit`
reads these times off the events of recorded runs. `bound` is the classic short cut for sizes that
nobody wants to play: no run ends before its busiest station has done its share.
Source: R. Jain, The Art of Computer Systems Performance Analysis, ch. 24 (simulation) and 33 (the
operational laws).
"""

import math
import random
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from studyguide.report import RunReport
from studyguide.tiles import grid
from studyguide.timeline import Event

Steps = Generator[simpy.Event, Any, None]
SLICE_S = 0.004  # how long a thread keeps its core while others wait, as schedulers have it
LOADERS = 2  # of c


@dataclass(frozen=True)
class Costs:
    """CPU seconds of each step.

    `load`, `split`, `assemble` and `save` count for each sample of an image (pixels times
    channels), `blur` is (for each tile, for each sample of its core), all others for each tile or
    process.
    """

    load: float
    save: float
    split: float = 0.0
    blur: tuple[float, float] = (0.0, 0.0)
    assemble: float = 0.0
    boot: float = 0.0  # wall time until a process runs its first line of Python
    start: float = 0.0  # a process, from its first line to its role
    enqueue: float = 0.0  # the coordinator's side of handing a tile to the queue
    transfer: float = 0.0  # the worker's side of taking a tile and handing its result on
    server: float = 0.0  # Redis' own, for one tile from enqueue to commit
    spread: float = 0.0  # standard deviation of the logarithm of a blur's time
    crowding: float = 1.0  # by how much all is slower when all cores are busy: they share caches

    @classmethod
    def fit(cls, reports: Iterable[RunReport], server: float = 0.0) -> "Costs":
        """Costs as the events of recorded runs tell them.

        Parameters
        ----------
        reports : iterable of RunReport
            Runs of the same kernel: blurs of two or more tile sizes tell a tile's fixed part, a run
            on one core beside one on all tells the crowding, one of processes their start.
        server : float
            CPU seconds of Redis for one tile, which events do not know.
        """
        reports = list(reports)
        crowding = _crowding(reports)
        facts = Facts.of(reports, crowding)
        fixed, each, spread = facts.fit_blur()
        return cls(
            boot=_boot(reports),
            crowding=crowding,
            **{name: facts.per_sample(name) for name in ("load", "save", "split", "assemble")},
            **{name: facts.per_event(name) for name in ("start", "enqueue", "transfer")},
            blur=(fixed, each),
            server=server,
            spread=spread,
        )


@dataclass
class Facts:
    """(CPU seconds, samples) of every span of some runs, by stage."""

    seen: dict[str, list[tuple[float, int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, reports: Iterable[RunReport], crowding: float) -> "Facts":
        """Gather what the spans would take on one core alone, and on how many samples."""
        facts = cls()
        for report in reports:
            shapes, slower = image_shapes(report), 1 + (crowding - 1) * _crowd(report)
            for event in report.timeline.events:
                if event.seconds > 0 or event.stage == "blur":
                    samples = _samples(event, shapes, int(report.settings["tile_size"]))
                    cpu_s = event.detail.get("cpu_s", event.seconds) / slower
                    facts.seen.setdefault(event.stage, []).append((cpu_s, samples))
        return facts

    def per_sample(self, stage: str) -> float:
        """Mean CPU seconds for each sample."""
        pairs = self.seen.get(stage, [])
        return sum(cpu for cpu, _ in pairs) / max(1, sum(samples for _, samples in pairs))

    def per_event(self, stage: str) -> float:
        """Mean CPU seconds for each event."""
        pairs = self.seen.get(stage, [])
        return sum(cpu for cpu, _ in pairs) / max(1, len(pairs))

    def fit_blur(self) -> tuple[float, float, float]:
        """Least squares of cpu = fixed + each * samples, and the spread around it."""
        pairs = np.array(self.seen["blur"])
        cpu, samples = pairs[:, 0], pairs[:, 1]
        terms = np.stack([np.ones_like(samples), samples], axis=1) / cpu[:, None]  # relative errors
        (fixed, each), *_ = np.linalg.lstsq(terms, np.ones_like(cpu), rcond=None)
        if fixed < 0 or each < 0:
            fixed, each = 0.0, cpu.sum() / samples.sum()
        spread = np.log(cpu / (fixed + each * samples)).std()
        return float(fixed), float(each), float(spread)


def _crowd(report: RunReport) -> float:
    """How many of the other cores were busy on average, 0 to 1."""
    cpu_s = sum(float(event.detail.get("cpu_s", 0.0)) for event in report.timeline.events)
    cores = int(report.machine["cores"])
    return min(1.0, max(0.0, cpu_s / report.timeline.seconds - 1) / max(1, cores - 1))


def _crowding(reports: Sequence[RunReport]) -> float:
    """Least squares of: blur time of the same images = alone * (1 + (crowding - 1) * crowd)."""
    crowd = np.array([_crowd(report) for report in reports])
    if np.ptp(crowd) < 0.2:
        return 1.0  # all ran alone, or all together: nothing to compare
    blur_s = [report.blur_s for report in reports]
    slope, alone = np.polyfit(crowd, blur_s, 1)
    return float(max(1.0, 1 + slope / alone))


def _boot(reports: Iterable[RunReport]) -> float:
    """Mean seconds from the start of the run to a process' first line."""
    gaps = [
        event.start - report.timeline.of("run")[0].start
        for report in reports
        for event in report.timeline.of("start")
    ]
    return sum(gaps) / max(1, len(gaps))


def image_shapes(report: RunReport) -> dict[str, tuple[int, ...]]:
    """Shape of each image of a run, as its loading tells it."""
    loads = report.timeline.of("load")
    return {event.image: tuple(event.detail["shape"]) for event in loads if "shape" in event.detail}


def _samples(event: Event, shapes: dict[str, tuple[int, ...]], tile_size: int) -> int:
    shape = shapes.get(event.image, (0, 0))
    if event.tile < 0:
        return math.prod(shape)
    tile = grid(shape[0], shape[1], tile_size)[event.tile]
    return tile.height * tile.width * math.prod(shape[2:])


@dataclass(frozen=True)
class Scenario:
    """One run to be played."""

    approach: str
    shapes: Sequence[tuple[int, ...]]  # of the images
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

    @property
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
    """Cores that threads share in slices, or one that a process has for itself."""

    def __init__(self, env: simpy.Environment, cores: int, crowding: float = 1.0) -> None:
        self.env = env
        self.cores = simpy.Resource(env, cores)
        self.slower_each = (crowding - 1) / max(1, cores - 1)  # for each other core that is busy

    def burn(self, seconds: float) -> Steps:
        """Use a core for so long, giving way to others after each slice."""
        while seconds > 0:
            with self.cores.request() as turn:
                yield turn
                slice_s = min(seconds, SLICE_S)
                yield self.env.timeout(slice_s * (1 + self.slower_each * (self.cores.count - 1)))
            seconds -= slice_s


class Play:
    """One run in virtual time: stores are the queues, processes are the threads and roles."""

    def __init__(self, scenario: Scenario, costs: Costs) -> None:
        self.scenario, self.costs = scenario, costs
        self.env = env = simpy.Environment()
        self.shared = Machine(env, scenario.cores or 1, costs.crowding)
        self.redis = simpy.Resource(env, 1)
        self.redis_machine = self.machine()
        self.on_queue = scenario.approach in "efg"
        self.tasks = simpy.Store(env, scenario.queue_size)
        self.results = simpy.Store(env)
        self.places = simpy.Container(env, init=scenario.images_in_memory, capacity=math.inf)
        self.saved = [env.event() for _ in scenario.shapes]
        self.random = random.Random(scenario.seed)
        self.missing = [0] * len(scenario.shapes)
        for image, _ in scenario.tiles:
            self.missing[image] += 1
        self.deaths_left = scenario.deaths
        self.outcome = Outcome()

    def machine(self) -> Machine:
        """Where a new process runs."""
        return self.shared if self.scenario.cores else Machine(self.env, 1)

    def play(self) -> Outcome:
        """Start all roles and run until every image has ended, as far as it can."""
        roles = {"a": self.sequential, "b": self.by_tiles, "c": self.overlapped}
        self.env.process(roles.get(self.scenario.approach, self.distributed)())
        self.env.run()
        self.outcome.images = sum(event.triggered for event in self.saved)
        return self.outcome

    # -- the approaches

    def sequential(self) -> Steps:
        """One thread for everything: a, and after the start of its process d."""
        burn = self.shared.burn
        for image, shape in enumerate(self.scenario.shapes):
            samples = math.prod(shape)
            yield from burn(self.costs.load * samples)
            yield from burn(self.costs.blur[0] + self.costs.blur[1] * samples)
            yield from self.save(image, self.shared)
            self.outcome.tiles += self.missing[image]

    def by_tiles(self) -> Steps:
        """Images one after the other, tiles in parallel."""
        self.start_workers()
        self.env.process(self.assemble(self.shared))
        for image in range(len(self.scenario.shapes)):
            yield from self.load(image, self.shared)
            yield from self.cut(image, self.shared)
            yield self.saved[image]

    def overlapped(self) -> Steps:
        """Loading, blurring and assembling overlap, as far as there are places in memory."""
        self.start_workers()
        self.env.process(self.assemble(self.shared))
        loaded = simpy.Store(self.env)
        images = iter(range(len(self.scenario.shapes)))
        for _ in range(LOADERS):
            self.env.process(self.loader(images, loaded))
        for _ in self.scenario.shapes:
            image = yield loaded.get()
            yield from self.cut(image, self.shared)

    def loader(self, images: Iterable[int], loaded: simpy.Store) -> Steps:
        """Load images while there are places."""
        for image in images:
            yield self.places.get(1)
            yield from self.load(image, self.shared)
            yield loaded.put(image)

    def distributed(self) -> Steps:
        """Every role is a process that has to start first: d, e, f, g."""
        yield self.env.timeout(self.costs.boot)
        if self.scenario.approach == "d":
            yield from self.shared.burn(self.costs.start)
            yield from self.sequential()
            return
        self.start_workers()
        self.env.process(self.assemble(self.machine(), self.costs.start))
        here = self.machine()
        yield from here.burn(self.costs.start)
        for image in range(len(self.scenario.shapes)):
            yield from self.load(image, here)
            yield from self.cut(image, here)

    # -- the steps

    def load(self, image: int, here: Machine) -> Steps:
        """Decode an image."""
        yield from here.burn(self.costs.load * math.prod(self.scenario.shapes[image]))

    def cut(self, image: int, here: Machine) -> Steps:
        """Queue the tiles of an image; wait while the queue is full."""
        for number, (owner, samples) in enumerate(self.scenario.tiles):
            if owner == image:
                yield from here.burn(self.costs.split * samples)
                if self.on_queue:
                    yield from self.ask_redis(here, self.costs.enqueue)
                yield self.tasks.put((number, image, samples, 1))

    def ask_redis(self, here: Machine, client_s: float, share: float = 1 / 3) -> Steps:
        """A call: the client's part, then a third of what a tile costs the server's one thread."""
        yield from here.burn(client_s)
        with self.redis.request() as turn:
            yield turn
            yield from self.redis_machine.burn(self.costs.server * share)

    def start_workers(self) -> None:
        """Workers: threads of this process, processes of a thread each, or some of each (g)."""
        scenario = self.scenario
        processes = {"g": scenario.instances, "e": scenario.workers, "f": scenario.workers}
        count = processes.get(scenario.approach, 1)
        for n in range(count):
            threads = len(range(n, scenario.workers, count))
            self.env.process(self.host(threads, self.machine()))

    def host(self, threads: int, here: Machine) -> Steps:
        """A process with its threads; one that is killed starts again."""
        while True:
            if self.on_queue:
                yield from here.burn(self.costs.start)
            crew = [self.env.process(self.work(here)) for _ in range(threads)]
            yield self.env.any_of(crew)
            for thread in crew:
                if thread.is_alive:
                    thread.interrupt()

    def work(self, here: Machine) -> Steps:
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

    def blur(self, task: tuple[int, int, int, int], here: Machine) -> Steps:
        """One tile in a worker's hand."""
        number, image, samples, attempt = task
        if self.on_queue:
            yield from self.ask_redis(here, self.costs.transfer / 2)
        fixed, each = self.costs.blur
        scatter = self.random.lognormvariate(-(self.costs.spread**2) / 2, self.costs.spread)
        seconds = (fixed + each * samples) * scatter
        if self.deaths_left and number >= len(self.scenario.tiles) // (self.deaths_left + 1):
            self.deaths_left -= 1
            yield from here.burn(seconds / 2)
            raise Killed
        yield from here.burn(seconds)
        if attempt == 1 and self.random.random() < self.scenario.flaky:
            self.outcome.retried += 1
            self.env.process(self.again(task, self.scenario.backoff_s))
            return
        if self.on_queue:
            yield from self.ask_redis(here, self.costs.transfer / 2)
        yield self.results.put((image, samples))

    def mourn(self, task: tuple[int, int, int, int]) -> Steps:
        """The tile of a worker that was killed: lost in e, redelivered in f and g."""
        if self.scenario.approach == "e":
            self.outcome.lost += 1
            return
        self.outcome.redelivered += 1
        yield from self.again(task, self.scenario.visibility_s)

    def again(self, task: tuple[int, int, int, int], after_s: float) -> Steps:
        """Queue a tile once more."""
        yield self.env.timeout(after_s)
        yield self.tasks.put((*task[:3], task[3] + 1))

    def assemble(self, here: Machine, start_s: float = 0.0) -> Steps:
        """Put results in their places; save each image of which all are there."""
        yield from here.burn(start_s)
        while True:
            image, samples = yield self.results.get()
            yield from here.burn(self.costs.assemble * samples)
            self.outcome.tiles += 1
            self.missing[image] -= 1
            if not self.missing[image]:
                if self.scenario.approach == "c":  # an assembler for each image
                    self.env.process(self.save(image, here))
                else:
                    yield from self.save(image, here)

    def save(self, image: int, here: Machine) -> Steps:
        """Encode an image; its place in memory is free again."""
        yield from here.burn(self.costs.save * math.prod(self.scenario.shapes[image]))
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


def demands(costs: Costs, workers: int, samples: int, others: int = 1) -> dict[str, float]:
    """Seconds that each station of e, f or g is busy for one tile, each process on its own core.

    The greatest of them is the bottleneck: no more than 1 / demand tiles a second pass it.
    `others` is how many coordinators there are, and assemblers; Redis is one.
    """
    blur = costs.blur[0] + costs.blur[1] * samples
    return {
        "coordinator": ((costs.load + costs.split) * samples + costs.enqueue) / others,
        "Redis": costs.server,
        "workers": (blur + costs.transfer) / workers,
        "assembler": (costs.assemble + costs.save) * samples / others,
    }


def bound(costs: Costs, busy: dict[str, float], tiles: int) -> float:
    """Seconds below which no run of so many equal tiles can end (the bottleneck law)."""
    return costs.start + tiles * max(busy.values())
