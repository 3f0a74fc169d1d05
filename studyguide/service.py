"""The roles of f and g: what runs in a process of this machine or in a pod, the same code in both.

A coordinator cuts images into tiles and watches until every image has ended; workers blur tiles;
an assembler puts them together and saves. All run until `stop` is set, the coordinator until it is
done. Left to right: coordinator -> tasks -> worker -> results -> assembler.
"""

import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from studyguide import images
from studyguide.checkpoint import Store
from studyguide.errors import Cancelled, ImageError, MessageError, QueueError, ToolError
from studyguide.lists import ListQueue
from studyguide.machinery.faults import Fault, strike
from studyguide.record.timeline import Recorder
from studyguide.streams import Announcement, Deliveries, Lease, StreamQueue
from studyguide.tiles import Pixels, Tile
from studyguide.work import Canvas, ImageJob, Run, TileResult, TileTask, process

log = logging.getLogger(__name__)

POLL_S = 0.05  # how often a coordinator looks how far the run is
REPAIR_S = 0.5  # how often it compares what should be with what is
SUSPECT = 2  # deliveries after which a tile is blurred in a process of its own
AUDIT_BATCH = 64  # images that a coordinator audits each time that it looks
ENQUEUE_BATCH = 16  # tiles that one call puts into the stream


def coordinate_stream(run: Run, queue: StreamQueue, store: Store, stop: threading.Event) -> None:
    """Queue the tiles of all images, then watch until each image has ended. Safe to run twice."""
    jobs = []
    for path in run.paths(stop):
        with run.guarded(path.name):
            job, pixels = run.load(path)
            if not queue.claim(job):
                raise _changed(job)
            with run.recorder.span("split", job.image):
                store.put_image(job, pixels)
            jobs.append(job)
            _enqueue(run, queue, job, job.tiles, stop)
    still, next_repair = jobs, 0.0
    while still and not stop.wait(POLL_S):
        queue.promote()
        # At the end all once more: Redis may have lost how some of them ended.
        still = queue.unfinished(still) or queue.unfinished(jobs)
        if time.monotonic() >= next_repair:
            # The others follow when these have ended.
            _repair(run, queue, store, still[:AUDIT_BATCH], stop)
            next_repair = time.monotonic() + REPAIR_S
    if stop.is_set():
        raise Cancelled
    queue.reap()


def _repair(
    run: Run, queue: StreamQueue, store: Store, jobs: list[ImageJob], stop: threading.Event
) -> None:
    """Queue again what is nowhere, with pixels that are gone: whatever lost them."""
    idle = queue.is_idle()
    for job in jobs:
        missing = queue.audit(job) if idle else []
        if store.holds(job) or _restore(run, queue, store, job):
            _enqueue(run, queue, job, missing, stop)


def _restore(run: Run, queue: StreamQueue, store: Store, job: ImageJob) -> bool:
    """Whatever lost the tiles may have lost the pixels too."""
    with run.guarded(job.image):
        store.put_image(job, _load_again(run, job))
        return True
    queue.set_state(job, "failed")
    return False


def _load_again(run: Run, job: ImageJob) -> Pixels:
    """The pixels of a job; ImageError if they are not what they were."""
    found, pixels = run.load(run.settings.images / job.image)
    if found != job:
        raise _changed(job)
    return pixels


def _changed(job: ImageJob) -> ImageError:
    return ImageError(f"{job.image} was changed during the run", "Run it again")


def _enqueue(
    run: Run, queue: StreamQueue, job: ImageJob, tiles: Sequence[Tile], stop: threading.Event
) -> None:
    rest, most = iter(tiles), min(ENQUEUE_BATCH, run.settings.queue_size)
    while batch := list(islice(rest, most)):
        start, cpu = run.recorder.clock(), time.thread_time()
        full: dict[str, Any] = {}
        while queue.backlog() + len(batch) > run.settings.queue_size:
            if stop.wait(0.005):
                return
            full["full_s"] = round(run.recorder.clock() - start, 6)
        queue.enqueue(job, batch)
        cpu_s = round((time.thread_time() - cpu) / len(batch), 6)
        for tile in batch:
            run.recorder.add("enqueue", start, job.image, tile.index, **full, cpu_s=cpu_s)


@dataclass
class Leases:
    """The leases that one consumer holds, for its heartbeat to renew."""

    consumer: str
    deadline_s: float
    _held: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def holding(self, entry: str) -> Iterator[None]:
        """Renew the lease of this entry while the body runs."""
        with self._lock:
            self._held[entry] = time.monotonic() + self.deadline_s
        try:
            yield
        finally:
            with self._lock:
                del self._held[entry]

    def current(self) -> list[str]:
        """Entries to renew; one held beyond its deadline is given up to others."""
        now = time.monotonic()
        with self._lock:
            return [entry for entry, deadline in self._held.items() if now < deadline]


class Heart:
    """Renews the leases of all consumers of a process, on a connection of its own.

    It also touches the file `alive`, whose age is the process' liveness: Redis being away does not
    make a process unhealthy, threads that no longer turn do. While a link waits for Redis, it
    touches that file instead (`roles._link`). e has one, too.
    """

    def __init__(self, queue: StreamQueue | ListQueue, visibility_s: float, alive: Path) -> None:
        alive.parent.mkdir(parents=True, exist_ok=True)
        alive.touch()
        self._queue = queue
        self._visibility_s = visibility_s
        self._alive = alive
        self._leases: list[tuple[str, Leases]] = []

    def watch(self, stream: str, consumer: str) -> Leases:
        """Start to renew what this consumer will hold."""
        leases = Leases(consumer, deadline_s=20 * self._visibility_s)
        self._leases.append((stream, leases))
        return leases

    def beat(self, stop: threading.Event) -> None:
        """Beat three times in each visibility timeout until told to stop."""
        while not stop.wait(self._visibility_s / 3):
            for stream, leases in self._leases:
                self._queue.beat(stream, leases.consumer, self._visibility_s, leases.current())
            self._alive.touch()
        for _, leases in self._leases:
            self._queue.stop_beating(leases.consumer)


@dataclass
class Consumer:
    """One thread that takes work from a stream, and what it needs for it."""

    run: Run
    queue: StreamQueue
    store: Store
    leases: Leases


@dataclass
class StreamWorker(Consumer):
    """Takes tiles, blurs them and commits the results, until told to stop."""

    faults: Sequence[Fault] = ()

    def work(self, stop: threading.Event) -> None:
        """Take a lease, hold it, handle it; on `stop` the tile in hand is finished."""
        visibility_s, clock = self.run.settings.delivery.visibility_s, self.run.recorder.clock
        deliveries = Deliveries(self.queue, self.leases.consumer, visibility_s)
        for lease, asked in deliveries.until(stop, clock):
            with self.leases.holding(lease.entry):
                self._tell(lease, asked)
                self._handle(lease)

    def _tell(self, lease: Lease, start: float) -> None:
        image, tile, recorder = lease.job.image, lease.tile.index, self.run.recorder
        if lease.owner:
            recorder.mark("reclaim", image, tile, lease.trial, from_worker=lease.owner)
        # Nothing else was there to do: a tile that failed is queued again after its back-off.
        cause = {"cause": "backoff"} if lease.attempt > 1 and not lease.owner else {}
        recorder.add("wait", start, image, tile, lease.trial, **cause)

    def _handle(self, lease: Lease) -> None:
        try:
            self._finish(lease, self._process(lease))
        except (Cancelled, QueueError, OSError):
            raise
        except MessageError as error:  # its pixels are gone: no fault, and no attempt, of the tile
            self._fail(replace(lease, attempt=lease.attempt - 1), str(error), last=False)
        except ToolError as error:
            self._fail(lease, str(error), last=error.exit_code is not None)
        except Exception as error:  # whatever a tile does, it must not take its worker along
            self._fail(lease, f"{type(error).__name__}: {error}", last=False)

    def _process(self, lease: Lease) -> TileResult:
        task = TileTask(
            lease.job, lease.tile, self.store.window(lease.job, lease.tile), lease.trial
        )
        if lease.deliveries > SUSPECT:
            return process_apart(task, self.faults, self.leases.deadline_s)
        strike(self.faults, lease.job.image, lease.tile.index, lease.attempt)
        return process(task, self.run.recorder)

    def _finish(self, lease: Lease, result: TileResult) -> None:
        image, tile, recorder = lease.job.image, lease.tile.index, self.run.recorder
        with recorder.span("transfer", image, tile, lease.trial):
            reference = self._keep(lease, result)
            first = self.queue.commit(lease, reference)
        if not first:
            recorder.mark("duplicate", image, tile, lease.trial)

    def _keep(self, lease: Lease, result: TileResult) -> bytes:
        """Wait for room while the disk is full, for as long as for Redis: no tile caused it."""
        link = self.queue.link
        deadline = time.monotonic() + link.patience_s
        while True:
            try:
                return self.store.put_result(lease.job, lease.tile, result.pixels)
            except OSError:
                if time.monotonic() > deadline:
                    raise
            if link.stop.wait(0.1):
                raise Cancelled

    def _fail(self, lease: Lease, error: str, last: bool) -> None:
        """Retry after 2^n times the first delay, jittered so that retries do not come in step."""
        delivery = self.run.settings.delivery
        delay_s = delivery.backoff_s * 2 ** max(0, lease.attempt - 1) * random.uniform(0.5, 1.5)
        attempts = lease.attempt if last else delivery.max_attempts
        verdict = self.queue.fail(lease, error, delay_s, attempts)
        what, mark = (lease.job.image, lease.tile.index, lease.trial), self.run.recorder.mark
        if verdict == "done":
            mark("duplicate", *what, error=error)
        else:
            mark(verdict, *what, error=error, delay_s=delay_s * (verdict == "retry"))


def process_apart(task: TileTask, faults: Sequence[Fault], timeout_s: float) -> TileResult:
    """Blur a suspect tile in a process of its own, which alone dies if the tile is poison.

    A tile that was delivered several times without an end may have killed its workers, or may only
    have been on the thread beside the one that did. The number of deliveries is no proof of guilt;
    the exit code of a process that did nothing else is.

    Raises ToolError if that process died, or did not end in time; then without an exit code.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_apart, args=(sender, task, faults), daemon=True)
    child.start()
    sender.close()
    what = ["blur", task.job.image, f"tile {task.tile.index}"]
    try:
        if not receiver.poll(timeout_s):
            raise ToolError(what, None, f"no result after {timeout_s:g} s")
        pixels = np.frombuffer(receiver.recv_bytes(), np.uint8)
    except (EOFError, OSError) as error:  # it died before, or while, it sent the result
        child.join()
        raise ToolError(what, child.exitcode, "the tile kills the process that blurs it") from error
    finally:
        child.kill()
        child.join()
    pixels = pixels.reshape(task.job.core_shape(task.tile))
    return TileResult(task.job, task.tile, pixels, task.attempt)


def _apart(sender: Connection, task: TileTask, faults: Sequence[Fault]) -> None:
    strike(faults, task.job.image, task.tile.index, task.attempt)
    sender.send_bytes(process(task, Recorder(lambda event: None)).pixels.tobytes())


class StreamAssembler(Consumer):
    """Takes jobs that are complete, puts their images together and saves them."""

    def work(self, stop: threading.Event) -> None:
        """Finish jobs until told to stop; the one in hand is finished first."""
        idle_s = self.run.settings.delivery.visibility_s
        while not stop.is_set():
            consumer = self.leases.consumer
            ready = self.queue.read_ready(consumer) or self.queue.reclaim_ready(consumer, idle_s)
            for announcement in ready:
                with self.leases.holding(announcement.entry):
                    self._finish(announcement)

    def _finish(self, announcement: Announcement) -> None:
        """Save first, let go of the announcement last: a crash in between repeats it."""
        job = announcement.job
        state = self.queue.state(job)
        if not state:
            canvas = Canvas(job)
            results = self.queue.results(job)
            intact = [self._add(canvas, index, result) for index, result in results.items()]
            if not all(intact) or canvas.missing - self.queue.dead(job):
                self.queue.withdraw(announcement)
                return
            state = self._save(canvas)
        self.queue.finish(announcement, state)

    def _add(self, canvas: Canvas, index: int, reference: bytes) -> bool:
        """Put one result in its place; one that is damaged is done again."""
        tile = canvas.job.tiles[index]
        try:
            pixels = self.store.result(canvas.job, tile, reference)
        except MessageError as error:
            log.warning("result rejected: %s", error)
            self.queue.reject(canvas.job, tile, reference)
            return False
        canvas.add(TileResult(canvas.job, tile, pixels), self.run.recorder)
        return True

    def _save(self, canvas: Canvas) -> str:
        with self.run.guarded(canvas.job.image):
            if canvas.missing:
                self._save_partial(canvas)
                return "partial"
            self.run.save(canvas.job.image, canvas.pixels)
            return "saved"
        return "failed"

    def _save_partial(self, canvas: Canvas) -> None:
        """Dead tiles keep the original pixels; names and a mask say that the image is not whole."""
        job, stem = canvas.job, Path(canvas.job.image).stem
        original = _load_again(self.run, job)
        mask = np.zeros(job.shape[:2], np.uint8)
        dead = [job.tiles[index] for index in sorted(canvas.missing)]
        for tile in dead:
            canvas.pixels[tile.core] = original[tile.core]
            mask[tile.core] = 255
        folder = self.run.settings.output
        dpi = images.density(self.run.settings.images / job.image)
        images.save(images.output(folder, job.image, images.PARTIAL), canvas.pixels, dpi)
        images.save(images.output(folder, job.image, images.MASK), mask)
        names = ", ".join(str(tile.index) for tile in dead)
        error = f"{len(dead)} of {len(job.tiles)} tiles are dead letters ({names})"
        where = f"the rest is in {stem}.partial.png, the dead tiles are white in {stem}.mask.png"
        self.run.recorder.mark("failed", job.image, error=f"{error}; {where}.")
