"""Threads that hand work on through bounded queues: what b, c and the pool of g are made of.

A `Channel` is a queue with room for so many items: a producer that is faster than its consumers
waits (back-pressure), so memory stays bounded. A `Crew` is the threads of one run: if any of them
fails, all channels are cancelled, all threads end, and the first error is raised.

`queue.Queue` would do for the happy path; it gained a way to shut down only in Python 3.13.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from studyguide.errors import MORE_THREADS, Cancelled, StudyguideError, explained
from studyguide.record.timeline import Recorder
from studyguide.tiles import Pixels
from studyguide.work import Canvas, ImageJob, Run, TileResult, TileTask, plan, process

T = TypeVar("T")


class Channel(Generic[T]):
    """A bounded first-in-first-out queue that its producers close.

    Parameters
    ----------
    capacity : int
        Items that may wait; a further `put` blocks.
    producers : int
        How many threads will call `close`; the last of them ends the iteration of consumers.
    """

    def __init__(self, capacity: int, producers: int = 1) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._producers = producers
        self._cancelled = False
        self._lock = threading.Lock()
        # One waiter is woken for each item and each place: with all of them woken each time, ten
        # workers spent more time on wake-ups without work than on small tiles.
        self._filled = threading.Condition(self._lock)
        self._freed = threading.Condition(self._lock)

    def put(self, item: T) -> float:
        """Append an item as soon as there is room; return the seconds that it waited for it.

        Raises
        ------
        Cancelled
            If the channel was cancelled.
        """
        waited_s = 0.0
        with self._lock:
            if len(self._items) >= self._capacity:
                begun = time.perf_counter()
                self._freed.wait_for(lambda: self._cancelled or len(self._items) < self._capacity)
                waited_s = time.perf_counter() - begun
            if self._cancelled:
                raise Cancelled
            self._items.append(item)
            self._filled.notify()
        return waited_s

    def get(self) -> T:
        """Take the oldest item, waiting for one if need be.

        Raises
        ------
        EOFError
            If all producers have closed and nothing is left.
        Cancelled
            If the channel was cancelled.
        """
        with self._lock:
            self._filled.wait_for(lambda: self._cancelled or self._items or self._producers == 0)
            if self._cancelled:
                raise Cancelled
            if not self._items:
                raise EOFError
            self._freed.notify()
            return self._items.popleft()

    def __iter__(self) -> Iterator[T]:
        """Take items until the end."""
        with suppress(EOFError):
            while True:
                yield self.get()

    def close(self) -> None:
        """Say that one producer is done."""
        with self._lock:
            self._producers -= 1
            if self._producers == 0:
                self._filled.notify_all()

    def cancel(self) -> None:
        """Wake everybody up with `Cancelled`."""
        with self._lock:
            self._cancelled = True
            self._filled.notify_all()
            self._freed.notify_all()


class Crew:
    """The threads and channels of one run; a context manager that leaves no thread behind."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()  # set when the crew is cancelled
        self._threads: list[tuple[threading.Thread, threading.Event]] = []  # and whether it ended
        self._channels: list[Channel[Any]] = []
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._cancelled = False

    def channel(self, capacity: int, producers: int = 1) -> Channel[Any]:
        """A channel that is cancelled when any thread of the crew fails."""
        channel: Channel[Any] = Channel(capacity, producers)
        with self._lock:
            self._channels.append(channel)
            if self._cancelled:
                channel.cancel()
        return channel

    def start(self, name: str, function: Callable[..., None], *args: Any) -> None:
        """Run a stage on a thread of its own; the name is its lane in the timeline.

        Raises StudyguideError if the system allows no further thread.
        """
        ended = threading.Event()
        thread = threading.Thread(target=self._run, args=(ended, function, args), name=name)
        self._threads.append((thread, ended))
        problem = f"The thread {name} cannot be started"
        with explained(StudyguideError, problem, MORE_THREADS, RuntimeError):
            thread.start()

    def _run(
        self, ended: threading.Event, function: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        try:
            function(*args)
        except Cancelled:
            pass
        except BaseException as error:
            self._errors.append(error)
            self.cancel()
        finally:
            ended.set()

    def cancel(self) -> None:
        """End the run: every thread that waits on a channel wakes up."""
        with self._lock:
            self._cancelled = True
            channels = list(self._channels)
        self._stop.set()
        for channel in channels:
            channel.cancel()

    def join(self) -> None:
        """Wait for all threads, those started meanwhile included; raise the first error."""
        self._wait()
        if self._errors:
            raise self._errors[0]

    def _wait(self) -> None:
        for thread, ended in self._threads:  # grows while we wait: a list may, in its iteration
            if thread.ident is not None:  # else it could not be started
                # In Python 3.11 a `join` that is interrupted takes its thread for ended.
                ended.wait()
                thread.join()

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._abandon()
            return
        try:
            self.join()
        except BaseException:  # KeyboardInterrupt too: nobody is left behind
            self._abandon()
            raise

    def _abandon(self) -> None:
        self.cancel()
        self._wait()


# --- the stages of b and c, from left to right ---------------------------------------------------

LOADERS = 2  # threads that decode images in c

Loaded = tuple[ImageJob, Pixels]


def start_loaders(crew: Crew, run: Run, places: Channel[str]) -> Channel[Loaded]:
    """Load all images of a run on threads of their own; `places` bounds how many are in memory.

    The largest file comes first: what takes longest must not begin last, or the others end long
    before it (longest processing time first: R. L. Graham, SIAM J. Appl. Math. 17, 1969).
    """
    found = sorted(run.paths(), key=_bytes, reverse=True)
    paths: Channel[Path] = crew.channel(len(found))
    for path in found:
        paths.put(path)
    paths.close()
    loaded = crew.channel(run.settings.images_in_memory, producers=LOADERS)
    for n in range(LOADERS):
        crew.start(f"loader-{n}", load_images, paths, places, loaded, run)
    return loaded


def _bytes(path: Path) -> int:
    with suppress(OSError):  # loading it reports why
        return path.stat().st_size
    return 0


def load_images(
    paths: Channel[Path], places: Channel[str], loaded: Channel[Loaded], run: Run
) -> None:
    """A loader: wait for a place in memory, load an image, pass it on."""
    for path in paths:
        places.put(path.name)
        with run.guarded(path.name):
            loaded.put(run.load(path))
            continue
        places.get()  # it failed: its place is free again
    loaded.close()


def start_workers(crew: Crew, loaded: Iterable[Loaded], run: Run) -> Channel[TileResult]:
    """Coordinator -> tile queue -> workers -> result queue; returns the latter."""
    settings = run.settings
    tasks = crew.channel(settings.queue_size)
    results = crew.channel(settings.queue_size, producers=settings.workers)
    crew.start("coordinator", coordinate, loaded, tasks, run.recorder)
    for n in range(settings.workers):
        crew.start(f"worker-{n}", blur_tiles, tasks, results, run.recorder)
    return results


def coordinate(loaded: Iterable[Loaded], tasks: Channel[TileTask], recorder: Recorder) -> None:
    """Cut images into tiles and queue them, starting as soon as the first image is there."""
    for job, pixels in loaded:
        for task in plan(job, pixels, recorder):
            with recorder.span("enqueue", job.image, task.tile.index) as detail:
                detail["full_s"] = round(tasks.put(task), 6)
    tasks.close()


def receive(tasks: Channel[TileTask], recorder: Recorder) -> Iterator[TileTask]:
    """Take tasks, recording how long each was waited for."""
    start = recorder.clock()
    for task in tasks:
        recorder.add("wait", start, task.job.image, task.tile.index, task.attempt)
        yield task
        start = recorder.clock()


def blur_tiles(tasks: Channel[TileTask], results: Channel[TileResult], recorder: Recorder) -> None:
    """A worker: take a tile, blur it, hand it on, until there are none."""
    for task in receive(tasks, recorder):
        result = process(task, recorder)
        with recorder.span("transfer", task.job.image, task.tile.index, task.attempt) as detail:
            detail["full_s"] = round(results.put(result), 6)
    results.close()


def assemble(canvas: Canvas, results: Channel[TileResult], recorder: Recorder) -> None:
    """An assembler: put the results of one image in their places until it is complete."""
    for result in results:
        if canvas.add(result, recorder):
            return


def manage_assemblers(
    crew: Crew, results: Channel[TileResult], places: Channel[str], run: Run
) -> None:
    """Route each result to its image's assembler; start one for each new image."""
    routes: dict[str, Channel[TileResult]] = {}
    for result in results:
        job = result.job
        if job.key not in routes:
            routes[job.key] = crew.channel(run.settings.queue_size)
            crew.start(f"assembler {job.image}", finish_image, job, routes[job.key], places, run)
        routes[job.key].put(result)


def finish_image(
    job: ImageJob, results: Channel[TileResult], places: Channel[str], run: Run
) -> None:
    """Assemble one image, save it and give its place in memory back."""
    canvas = Canvas(job)
    assemble(canvas, results, run.recorder)
    with run.guarded(job.image):
        run.save(job.image, canvas.pixels)
    places.get()
