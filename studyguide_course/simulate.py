"""A model of the seven approaches: how long a run takes with other workers, tiles and machines.

`simulate` runs an approach in virtual time, step by step (a discrete-event simulation, on SimPy):
the same roles, queues and limits as in the library, but each step only takes its time on a core, as
`Costs` has it. Cores are shared as a fair scheduler does it: all threads that could run get the
same part (processor sharing). What a step takes beside its pixels is Python, and one thread of a
process at a time runs that: it holds the GIL.
Source: R. Jain, The Art of Computer Systems Performance Analysis, ch. 24 (simulation).
"""

import heapq
import math
import random
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import simpy

from studyguide.approaches import APPROACHES
from studyguide.tiles import grid
from studyguide_course.costs import Cost, Costs

Steps = Generator[simpy.Event, Any, None]
LOADERS = 2  # of c


@dataclass(frozen=True)
class Scenario:
    """One run to be simulated."""

    approach: str
    shapes: Sequence[tuple[int, ...]]  # of the images, in the order in which they are loaded
    workers: int = 4
    tile_size: int = 256
    cores: int = 2  # that all share; 0: a machine for each process
    queue_size: int = 100
    images_in_memory: int = 3  # of c
    instances: int = 2  # of g
    seed: int = 0

    def tiles(self, image: int) -> list[int]:
        """Samples of the core of each tile of an image."""
        height, width, *channels = self.shapes[image]
        tiles = grid(height, width, self.tile_size)
        return [tile.height * tile.width * math.prod(channels) for tile in tiles]


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


class Simulation:
    """One run in virtual time: stores are the queues, SimPy's processes are threads and roles.

    `wall_s` is the time of the last save; `tiles` and `images` count what is in place and saved.
    """

    def __init__(self, scenario: Scenario, costs: Costs) -> None:
        self.scenario, self.approach = scenario, APPROACHES[scenario.approach]
        self.distributed = self.approach.on_cluster is not None
        # Threads have no start; processes do.
        self.costs = costs if self.distributed else replace(costs, boot=0.0, start=0.0, warm_up=0.0)
        self.env = simpy.Environment()
        self.shared = Machine(self.env, scenario.cores or 1)
        self.main, self.redis = self.host(), self.host()
        self.tasks = simpy.Store(self.env, scenario.queue_size)
        self.results = simpy.Store(self.env)
        at_once = len(scenario.shapes) if self.distributed else 1  # images in memory
        at_once = scenario.images_in_memory if self.approach.overlapping else at_once
        self.places = simpy.Container(self.env, init=at_once)
        self.missing = [len(scenario.tiles(image)) for image in range(len(scenario.shapes))]
        self.random = random.Random(scenario.seed)
        self.wall_s, self.tiles, self.images = 0.0, 0, 0

    def host(self) -> Host:
        """A new process, and where it runs."""
        return Host(self.env, self.shared if self.scenario.cores else Machine(self.env, 1))

    def run(self) -> "Simulation":
        """Start the main thread and go on until nobody has anything left to do."""
        self.env.process(self.tiled() if self.approach.tiled else self.sequential())
        self.env.run()
        return self

    # -- threads and roles

    def sequential(self) -> Steps:
        """One thread for everything: a, and after the start of its process d."""
        yield self.env.timeout(self.costs.boot)
        yield from self.main.step((self.costs.start + self.costs.warm_up, 0.0))
        for image, shape in enumerate(self.scenario.shapes):
            yield from self.load(image)
            yield from self.main.step(self.costs.blur, math.prod(shape))
            self.tiles += self.missing[image]
            yield from self.save(image, self.main)

    def tiled(self) -> Steps:
        """The main thread of b and c, and the coordinator of e, f and g."""
        yield self.env.timeout(self.costs.boot)
        self.start_workers()
        self.env.process(self.assemble(self.host() if self.distributed else self.main))
        yield from self.main.step((self.costs.start, 0.0))
        images, loaded = iter(range(len(self.scenario.shapes))), simpy.Store(self.env)
        if self.approach.overlapping:
            for _ in range(LOADERS):
                self.env.process(self.load_ahead(images, loaded))
            for _ in self.scenario.shapes:
                image = yield loaded.get()
                yield from self.cut(image)
        for image in images:
            yield from self.load(image)
            yield from self.cut(image)

    def load_ahead(self, images: Iterator[int], loaded: simpy.Store) -> Steps:
        """A loader of c."""
        for image in images:
            yield from self.load(image)
            yield loaded.put(image)

    def start_workers(self) -> None:
        """Workers: threads of this process, processes of a thread each, or some of each (g)."""
        workers = self.scenario.workers
        processes = self.scenario.instances if self.approach.pools else workers
        processes = processes if self.distributed else 1
        for _ in range(processes):
            here = self.host() if self.distributed else self.main
            self.env.process(self.crew(-(-workers // processes), here))

    def crew(self, threads: int, here: Host) -> Steps:
        """A process that starts, and then its threads."""
        yield from here.step((self.costs.start + self.costs.warm_up, 0.0))
        for _ in range(threads):
            self.env.process(self.work(here))

    def work(self, here: Host) -> Steps:
        """A worker: take a tile, blur it, hand it on, for ever."""
        spread = self.costs.spread
        while True:
            image, samples = yield self.tasks.get()
            scatter = self.random.lognormvariate(-(spread**2) / 2, spread)
            yield from here.step(self.costs.blur, samples, scatter)
            yield from self.ask_redis()
            yield from here.step(self.costs.transfer, samples)
            yield self.env.timeout(self.costs.pause)
            yield self.results.put((image, samples))

    def assemble(self, here: Host) -> Steps:
        """Put results in their places; save each image of which all are there."""
        yield from here.step((self.costs.start, 0.0))
        while True:
            image, samples = yield self.results.get()
            yield from here.step(self.costs.assemble, samples)
            self.tiles += 1
            self.missing[image] -= 1
            if not self.missing[image]:
                saving = self.env.process(self.save(image, here))
                if not self.approach.overlapping:  # c has an assembler for each image
                    yield saving

    # -- the steps

    def load(self, image: int) -> Steps:
        """Decode an image as soon as there is a place for it in memory."""
        yield self.places.get(1)
        yield from self.main.step(self.costs.load, math.prod(self.scenario.shapes[image]))

    def cut(self, image: int) -> Steps:
        """Queue the tiles of an image; wait while the queue is full."""
        for samples in self.scenario.tiles(image):
            yield from self.main.step(self.costs.split, samples)
            yield from self.main.step(self.costs.enqueue, samples)
            yield from self.ask_redis()
            yield self.tasks.put((image, samples))

    def ask_redis(self) -> Steps:
        """A call: half of what a tile costs the server's one thread."""
        if self.distributed:
            yield from self.redis.step((self.costs.server / 2, 0.0))

    def save(self, image: int, here: Host) -> Steps:
        """Encode an image; its place in memory is free again."""
        yield from here.step(self.costs.save, math.prod(self.scenario.shapes[image]))
        self.images += 1
        self.wall_s = self.env.now
        yield self.places.put(1)


def simulate(scenario: Scenario, costs: Costs) -> Simulation:
    """Simulate one run; the same scenario and seed always end the same."""
    return Simulation(scenario, costs).run()
