"""Latency: how long a tile takes from its arrival to the end of its blur; and who goes first."""

import heapq
import time
from collections.abc import Sequence
from itertools import accumulate
from math import inf, log
from random import Random
from statistics import fmean, pstdev

from studyguide.record.timeline import Event, Recorder, Timeline
from studyguide.threads import Crew, blur_tiles
from studyguide.work import TileTask
from studyguide_course.costs import Costs
from studyguide_course.measures import cpu_s
from studyguide_course.simulate import Scenario, Simulation, Steps


def latencies(timeline: Timeline) -> list[float]:
    """Wall seconds of each tile from the start of its `enqueue` to the end of its blur."""
    came = {event.what: event.start for event in timeline.of("enqueue")}
    return [event.end - came[event.what] for event in timeline.of("blur")]


def arrivals(count: int, rate: float) -> list[float]:
    """Seconds at which tiles arrive at random, `rate` a second on average (a Poisson process)."""
    random = Random(0)
    return list(accumulate(random.expovariate(rate) for _ in range(count)))


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last job ends, if each in this order goes to the worker that is free first."""
    free = [0.0] * workers
    for job in seconds:
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def offer(tasks: Sequence[TileTask], workers: int, rate: float = inf) -> Timeline:
    """Blur tiles that arrive at `rate` a second, whether or not one of the threads is free.

    The `enqueue` of a tile starts when it is due, not when this thread gets to queue it: a busy
    machine would otherwise hide the waits that are to be measured.
    """
    events: list[Event] = []
    recorder = Recorder(events.append)
    with Crew() as crew:
        queue, results = crew.channel(len(tasks)), crew.channel(len(tasks), workers)
        for n in range(workers):
            crew.start(f"worker-{n}", blur_tiles, queue, results, recorder)
        begun = recorder.clock()
        for task, due_s in zip(tasks, arrivals(len(tasks), rate), strict=True):
            time.sleep(max(0.0, begun + due_s - recorder.clock()))
            recorder.add("enqueue", begun + due_s, task.job.image, task.tile.index)
            queue.put(task)
        queue.close()
    return Timeline(events)


def model(measured: Timeline, workers: int, load: float, tiles: int = 5000) -> list[float]:
    """Simulate `offer` on a core for each worker, at a share `load` of the rate that they can do.

    Blurs take the CPU seconds of a measured run. Returns the seconds of each tile.
    """
    took = [max(cpu_s(event), 1e-6) for event in measured.of("blur")]
    costs = Costs(blur=(0.0, fmean(took)), spread=pstdev(map(log, took)))
    run = Simulation(Scenario("c", [], workers, cores=workers, queue_size=tiles), costs)
    moments, late = arrivals(tiles, load * workers / fmean(took)), list[float]()

    def arrive() -> Steps:
        for number, moment in enumerate(moments):
            yield run.env.timeout(moment - run.env.now)
            yield run.tasks.put((number, 1))  # its number stands where an image's does

    def collect() -> Steps:
        while True:
            number, _ = yield run.results.get()
            late.append(run.env.now - moments[number])

    run.start_workers()
    run.env.process(arrive())
    run.env.process(collect())
    run.env.run()
    return late
