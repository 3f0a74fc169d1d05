"""The seven approaches, each a short function: the table of contents of the course."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from studyguide import service, threads
from studyguide.cluster import Cluster
from studyguide.threads import Channel, Crew
from studyguide.work import Canvas, Run


def a_sequential(run: Run) -> None:
    """One image at a time, one thread: the baseline."""
    service.sequential(run, threading.Event())


def b_tile_parallel(run: Run) -> None:
    """Coordinator -> tile queue -> workers -> result queue -> assembler; one image at a time."""
    for path in run.paths():
        with run.guarded(path.name):
            job, pixels = run.load(path)
            canvas = Canvas(job)
            with Crew() as crew:
                results = threads.start_workers(crew, [(job, pixels)], run)
                crew.start("assembler", threads.assemble, canvas, results, run.recorder)
            run.save(job.image, canvas.pixels)


def c_tile_image_parallel(run: Run) -> None:
    """Loading, blurring and assembling overlap; tiles of all images share one queue."""
    with Crew() as crew:
        places: Channel[str] = crew.channel(run.settings.images_in_memory)
        loaded = threads.start_loaders(crew, run, places)
        results = threads.start_workers(crew, loaded, run)
        crew.start("assembler manager", threads.manage_assemblers, crew, results, places, run)


def d_distributed_sequential(cluster: Cluster) -> None:
    """The sequential program in a process, or container, of its own."""
    cluster.start("sequential")
    cluster.watch("sequential")


def e_distributed_queue(cluster: Cluster) -> None:
    """A Redis list without acknowledgement: what a killed worker held is lost."""
    cluster.start_redis(persistent=False)
    cluster.start("worker", cluster.settings.workers)
    cluster.start("assembler")
    cluster.start("coordinator")
    cluster.watch("coordinator")


def f_fault_tolerant_queue(cluster: Cluster) -> None:
    """A Redis stream with leases, retries and a checkpoint: nothing is lost."""
    cluster.start_redis(persistent=True)
    cluster.start("worker", cluster.settings.workers, "--workers", "1")
    cluster.start("assembler")
    cluster.start("coordinator")
    cluster.watch("coordinator")


def g_multithreaded_service(cluster: Cluster) -> None:
    """The same, with a pool of threads in every instance of the service."""
    settings = cluster.settings
    threads_each = -(-settings.workers // settings.instances)
    cluster.start_redis(persistent=True)
    cluster.start("worker", settings.instances, "--workers", str(threads_each))
    cluster.start("assembler")
    cluster.start("coordinator")
    cluster.watch("coordinator")


@dataclass(frozen=True)
class Approach:
    """An approach's place in the course. Its stem names its function, notebook and chart."""

    letter: str
    title: str
    on_threads: Callable[[Run], None] | None = None
    on_cluster: Callable[[Cluster], None] | None = None
    workers: int | None = None  # how many it has when the settings do not say

    @property
    def stem(self) -> str:
        """For example a_sequential."""
        function = self.on_threads or self.on_cluster
        assert function is not None
        return function.__name__


APPROACHES = {
    approach.letter: approach
    for approach in (
        Approach("a", "Sequential", a_sequential, workers=1),
        Approach("b", "Tile parallel", b_tile_parallel),
        Approach("c", "Tile and image parallel", c_tile_image_parallel),
        Approach("d", "Distributed sequential", on_cluster=d_distributed_sequential, workers=1),
        Approach("e", "Distributed queue", on_cluster=e_distributed_queue, workers=4),
        Approach("f", "Fault-tolerant queue", on_cluster=f_fault_tolerant_queue, workers=4),
        Approach("g", "Multithreaded service", on_cluster=g_multithreaded_service),
    )
}
