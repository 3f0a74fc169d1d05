"""A role at work: what every process and pod of d to g does."""

import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from studyguide import lists, service
from studyguide.approaches import APPROACHES, a_sequential
from studyguide.checkpoint import FileStore, RedisStore, Store
from studyguide.errors import MORE_THREADS, Cancelled, StudyguideError, explained
from studyguide.lists import ListQueue
from studyguide.machinery.link import Link
from studyguide.plan import Role
from studyguide.record.metrics import ALIVE_S, Metrics
from studyguide.record.metrics import serve as serve_metrics
from studyguide.record.report import machine
from studyguide.record.timeline import Clock, Event, EventFile, Recorder
from studyguide.streams import StreamQueue
from studyguide.threads import Crew
from studyguide.work import Run

log = logging.getLogger(__name__)


def serve(role: Role) -> int:
    """Run a role until it is done or SIGTERM asks it to stop; return the exit code.

    0: all well, or drained; 1: some image failed.

    Raises Cancelled if a coordinator was asked to stop before all images had ended.
    """
    stop = threading.Event()
    _set_on_signals(stop)
    _show_life(role)
    metrics = _serve_metrics(role) if role.metrics else None
    clock = Clock(_link(role, stop).server_time()) if role.redis_url else Clock()
    sink = _Sink(EventFile(role.folder / "events", role.name), role.run_id, metrics)
    run = Run(role.settings, Recorder(sink, role.name, clock), role.run_id)
    _warm_up(role)
    began = clock() - max(0.0, Clock()() - role.started)
    run.recorder.add("start", began, cpu_s=round(time.process_time(), 6), machine=machine())
    if role.role == "sequential":
        a_sequential(run, stop)
    elif APPROACHES[role.approach].queue == "list":
        _serve_list(role, run, stop)
    else:
        _serve_stream(role, run, stop)
    return 1 if sink.failures else 0


def _link(role: Role, stop: threading.Event) -> Link:
    """A connection of its own for each thread."""
    delivery = role.settings.delivery
    slack_s = delivery.visibility_s / 2  # a longer pause may look like lapsed leases
    if APPROACHES[role.approach].queue != "list":
        slack_s = min(0.5, slack_s)
    return Link(role.redis_url, delivery.patience_s, stop, slack_s, lambda: _show_life(role))


def _show_life(role: Role) -> None:
    """Touch that file: this process turns, even while it waits for Redis."""
    role.alive.parent.mkdir(parents=True, exist_ok=True)
    role.alive.touch()


def _set_on_signals(stop: threading.Event) -> None:
    """Set `stop` when SIGTERM, SIGINT or SIGHUP comes, from a thread of its own.

    Python runs handlers in the main thread only, and that one sleeps while the others work. The
    kernel may give a signal to any thread, as it does to a process that was just unfrozen; then
    nobody would wake the main thread. What Python writes to its wake-up descriptor always arrives.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # of nohup
            signal.signal(number, lambda *_: None)

    def wait(_keep: socket.socket) -> None:
        while receiver.recv(1):
            stop.set()

    waiting = threading.Thread(target=wait, args=[sender], name="signals", daemon=True)
    with explained(StudyguideError, "No thread can be started", MORE_THREADS, RuntimeError):
        waiting.start()


def _serve_metrics(role: Role) -> Metrics:
    metrics = Metrics()
    tasks, listed = f"{role.prefix}tasks", APPROACHES[role.approach].queue == "list"
    serve_metrics(
        role.metrics,
        metrics,
        Link(role.redis_url, patience_s=0.0),
        lambda client: client.llen(tasks) if listed else client.xlen(tasks),
        role.alive,
        max(ALIVE_S, role.settings.delivery.visibility_s),
    )
    return metrics


@dataclass
class _Sink:
    """Writes events to the file of this process, tells them and counts images that failed."""

    file: EventFile
    run_id: str
    metrics: Metrics | None
    failures: int = 0

    def __call__(self, event: Event) -> None:
        self.failures += event.stage == "failed"
        self.file(event)
        if self.metrics:
            self.metrics(event)
        if log.isEnabledFor(logging.INFO):
            tile = f" tile {event.tile}" if event.tile >= 0 else ""
            text = f"{event.lane} {event.stage} {event.image}{tile}, {event.seconds:.3f} s"
            log.info("%s", text, extra={"event": event, "run": self.run_id})


def _warm_up(role: Role) -> None:
    if role.role in ("sequential", "worker", "all"):
        from studyguide.blur import warm_up

        warm_up(role.settings.blur)


def _serve_list(role: Role, run: Run, stop: threading.Event) -> None:
    visibility_s = role.settings.delivery.visibility_s
    queue = ListQueue(_link(role, stop), role.prefix, role.name, visibility_s)
    heart = service.Heart(ListQueue(_link(role, stop), role.prefix), visibility_s, role.alive)
    if role.role != "coordinator":
        heart.watch("", role.name)
    with _beating(heart, stop):
        if role.role == "coordinator":
            lists.coordinate_list(run, queue, stop)
        elif role.role == "worker":
            lists.work_list(run, queue, stop, role.faults)
        else:
            lists.assemble_list(run, queue, stop)


def _serve_stream(role: Role, run: Run, stop: threading.Event) -> None:
    """Start the threads of a role; `all` has those of all three roles in one process."""

    def queue() -> StreamQueue:
        return StreamQueue(_link(role, stop), role.prefix)

    store, over = _store(role, stop), threading.Event()
    heart = service.Heart(queue(), role.settings.delivery.visibility_s, role.alive)
    with _beating(heart, stop), Crew(stop) as crew:
        if role.role in ("worker", "all"):
            for n in range(role.settings.workers):
                leases = heart.watch("tasks", f"{role.name}/worker-{n}")
                worker = service.StreamWorker(run, queue(), store, leases, role.faults)
                crew.start(f"worker-{n}", worker.work, stop)
        if role.role in ("assembler", "all"):
            leases = heart.watch("ready", f"{role.name}/assembler")
            assembler = service.StreamAssembler(run, queue(), store, leases)
            crew.start("assembler", assembler.work, stop)
        if role.role in ("coordinator", "all"):
            crew.start("coordinator", _coordinate, run, queue(), store, stop, over)
    if role.role in ("coordinator", "all") and not over.is_set():
        raise Cancelled


@contextmanager
def _beating(heart: service.Heart, stop: threading.Event) -> Iterator[None]:
    """Have the heart beat until the body has ended: whoever drains still holds its leases."""
    idle = threading.Event()
    with Crew(stop) as crew:
        crew.start("heart", heart.beat, idle)
        try:
            yield
        finally:
            idle.set()


def _coordinate(
    run: Run, queue: StreamQueue, store: Store, stop: threading.Event, over: threading.Event
) -> None:
    service.coordinate_stream(run, queue, store, stop)
    over.set()
    stop.set()  # ends the other threads of this process


def _store(role: Role, stop: threading.Event) -> Store:
    if role.settings.delivery.payload == "file":
        return FileStore(role.folder / "pixels")
    return RedisStore(_link(role, stop), role.prefix)
