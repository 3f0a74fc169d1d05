"""The seven approaches, each a short function: the table of contents of the course."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from studyguide import threads
from studyguide.threads import Channel, Crew
from studyguide.work import Canvas, Run, process_whole

if TYPE_CHECKING:
    from studyguide.cluster import Cluster


def a_sequential(run: Run, stop: threading.Event | None = None) -> None:
    """One image at a time, one thread: the baseline, and all that d does in its container."""
    for path in run.paths(stop):
        with run.guarded(path.name):
            job, pixels = run.load(path)
            run.save(job.image, process_whole(job, pixels, run.recorder))


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


def d_distributed_sequential(cluster: "Cluster") -> None:
    """The sequential program in a process, or container, of its own."""
    cluster.start("sequential")
    cluster.watch("sequential")


def e_distributed_queue(cluster: "Cluster") -> None:
    """A Redis list without acknowledgement: what a killed worker held is lost."""
    cluster.start_redis(persistent=False)
    cluster.start("coordinator")
    cluster.start("worker", cluster.settings.workers)
    cluster.start("assembler")
    cluster.watch("coordinator")


def f_fault_tolerant_queue(cluster: "Cluster") -> None:
    """A Redis stream with leases, retries and a checkpoint: nothing is lost."""
    cluster.start_redis(persistent=True)
    cluster.start("coordinator")
    cluster.start("worker", cluster.settings.workers, threads=1)
    cluster.start("assembler")
    cluster.watch("coordinator")


def g_multithreaded_service(cluster: "Cluster") -> None:
    """The same, with a pool of threads in every instance of the service."""
    settings = cluster.settings
    threads_each = -(-settings.workers // settings.instances)
    cluster.start_redis(persistent=True)
    cluster.start("coordinator")
    cluster.start("worker", settings.instances, threads_each)
    cluster.start("assembler")
    cluster.watch("coordinator")


@dataclass(frozen=True)
class Approach:
    """What an approach is; nothing else tests its letter. Its stem names its function and lesson.

    It runs on threads of this process, or on the processes or pods of a cluster.
    """

    letter: str
    title: str
    on_threads: Callable[[Run], None] | None = None
    on_cluster: "Callable[[Cluster], None] | None" = None
    queue: Literal["none", "list", "stream"] = "none"  # in Redis, where its tiles wait
    tiled: bool = True  # else it blurs whole images, with the one worker that it always has
    overlapping: bool = False  # its images are loaded, blurred and assembled at the same time
    pools: bool = False  # its workers are instances, each with a pool of threads
    workers: int | None = None  # how many it has when the settings do not say

    @property
    def resumable(self) -> bool:
        """Whether its state outlives all of its processes."""
        return self.queue == "stream"

    @property
    def stem(self) -> str:
        """For example a_sequential."""
        function = self.on_threads or self.on_cluster
        assert function is not None
        return function.__name__


APPROACHES: dict[str, Approach] = {
    approach.letter: approach
    for approach in (
        Approach("a", "Sequential", a_sequential, tiled=False, workers=1),
        Approach("b", "Tile parallel", b_tile_parallel),
        Approach("c", "Tile and image parallel", c_tile_image_parallel, overlapping=True),
        Approach(
            "d",
            "Distributed sequential",
            on_cluster=d_distributed_sequential,
            tiled=False,
            workers=1,
        ),
        Approach("e", "Distributed queue", None, e_distributed_queue, "list", workers=4),
        Approach("f", "Fault-tolerant queue", None, f_fault_tolerant_queue, "stream", workers=4),
        Approach("g", "Multithreaded service", None, g_multithreaded_service, "stream", pools=True),
    )
}


def queued(*kinds: str) -> str:
    """The letters of the approaches that have a queue in Redis, of one of these kinds if given."""
    wanted = kinds or ("list", "stream")
    return "".join(letter for letter, its in APPROACHES.items() if its.queue in wanted)
