"""The queues of e, f and g against those that people use: tiles a second and redelivery.

    python -m benchmarks.queues [--quick]     (in .venv-peers: `make bench-peers`)

All on the same Redis server without persistence, two worker processes (g: one with two threads),
the same work: a no-op, 256 KiB there and back, and the blur of a tile of 256 pixels. The clock runs
from the first task that is sent to the last result that is back; workers are up before.
"""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import psutil
import redis

from benchmarks.harness import Seconds, interleave, main, ratios, spread, table
from benchmarks.peers import tasks
from studyguide import work
from studyguide.checkpoint import RedisStore
from studyguide.lists import ListQueue
from studyguide.machinery.link import Link
from studyguide.machinery.redis_server import RedisServer
from studyguide.record.timeline import Recorder
from studyguide.service import ENQUEUE_BATCH, Heart, Leases, StreamWorker
from studyguide.settings import Blur, from_options
from studyguide.streams import Lease, StreamQueue
from studyguide.work import ImageJob, Run, TileResult, TileTask, process

KINDS = ("no-op", "256 KiB", "blur")
ACKNOWLEDGING = ("celery", "dramatiq", "taskiq-redis", "arq", "rq")
WINDOW = np.random.default_rng(0).integers(0, 256, tasks.WINDOW, np.uint8)
BODIES = {"no-op": b"", "256 KiB": bytes(256 * 1024), "blur": WINDOW.tobytes()}
NOBODY = Recorder(lambda event: None)
Send = Callable[[str, int], None]  # do so many tasks of a kind, return when all results are back


# --- ours ----------------------------------------------------------------------------------------


def job_of(kind: str, tiles: int) -> ImageJob:
    """A job of so many tiles; each the work of its kind."""
    if kind == "no-op":
        return ImageJob("tiny.png", (1, tiles), "0", 1, Blur.of(1), str(time.time_ns()))
    shape = (256, 256 * tiles, 4)
    blur = Blur.of(21 if kind == "blur" else 1, method="separable")
    return ImageJob("wide.png", shape, "0", 256, blur, str(time.time_ns()))


class BenchWorker(StreamWorker):
    """The worker of f and g; a no-op and a payload are not blurred."""

    def _process(self, lease: Lease) -> TileResult:
        job = lease.job
        if job.blur.radius:
            return super()._process(lease)
        tiny = job.tile_size == 1
        pixels = NOTHING if tiny else self.store.window(job, lease.tile)
        return TileResult(job, lease.tile, pixels)


NOTHING = np.zeros((1, 1), np.uint8)
TILES_OF_AN_IMAGE = 25


def stream_worker(url: str, ready: Any, stop: Any, threads: int, visibility_s: float = 3.0) -> None:
    def serve(number: int) -> None:
        link = Link(url)
        queue = StreamQueue(link)
        leases = Leases(f"{os.getpid()}-{number}", 60)
        run = Run(from_options({"visibility_s": visibility_s}), NOBODY)
        worker = BenchWorker(run, queue, RedisStore(link), leases)
        ready.release()
        with suppress(Exception):  # the server goes away first
            worker.work(stop)

    crew = [Thread(target=serve, args=(n,), daemon=True) for n in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


def list_worker(url: str, ready: Any, stop: Any) -> None:
    queue = ListQueue(Link(url))
    ready.release()
    with suppress(Exception):
        while not stop.is_set():
            message = queue.take("tasks")
            if message:
                task = work.decode_task(message)
                tiny = not task.job.blur.radius
                result = (
                    TileResult(task.job, task.tile, task.window) if tiny else process(task, NOBODY)
                )
                queue.put("results", work.encode(result))


@contextmanager
def processes(target: Callable[..., None], url: str, count: int, *rest: Any) -> Iterator[None]:
    context = get_context("spawn")
    ready, stop = context.Semaphore(0), context.Event()
    crew = [
        context.Process(target=target, args=(url, ready, stop, *rest), daemon=True)
        for _ in range(count)
    ]
    for process_ in crew:
        process_.start()
    for _ in range(count * (rest[0] if rest else 1)):
        ready.acquire()
    try:
        yield
    finally:
        stop.set()
        for process_ in crew:
            process_.join(5)
            process_.kill()


@contextmanager
def e(url: str) -> Iterator[Send]:
    queue = ListQueue(Link(url))

    def collect(count: int) -> None:
        while count:
            message = queue.take("results")
            if message:
                work.decode_result(message)
                count -= 1

    def send(kind: str, count: int) -> None:
        job = job_of(kind, count)
        collector = Thread(target=collect, args=(count,))
        collector.start()
        window = np.zeros(job.window_shape(job.tiles[0]), np.uint8)
        for tile in job.tiles:
            queue.put("tasks", work.encode(TileTask(job, tile, window)))
        collector.join()

    with processes(list_worker, url, 2):
        yield send


@contextmanager
def streams(url: str, processes_: int, threads: int) -> Iterator[Send]:
    link = Link(url)
    queue, store = StreamQueue(link), RedisStore(link)

    def collect(kind: str, jobs: int) -> None:
        link = Link(url)
        queue, store = StreamQueue(link), RedisStore(link)
        while jobs:
            for ready in queue.read_ready("bench"):
                if kind != "no-op":
                    for index, reference in queue.results(ready.job).items():
                        store.result(ready.job, ready.job.tiles[index], reference)
                queue.finish(ready, "saved")
                jobs -= 1

    def send(kind: str, count: int) -> None:
        size = count if kind == "no-op" else TILES_OF_AN_IMAGE
        jobs = [job_of(kind, min(size, count - at)) for at in range(0, count, size)]
        collector = Thread(target=collect, args=(kind, len(jobs)))
        collector.start()
        for job in jobs:
            if kind != "no-op":
                store.put_image(job, np.zeros(job.shape, np.uint8))
            for at in range(0, len(job.tiles), ENQUEUE_BATCH):
                queue.enqueue(job, job.tiles[at : at + ENQUEUE_BATCH])
        collector.join()

    with processes(stream_worker, url, processes_, threads):
        yield send


def f(url: str) -> Any:
    return streams(url, 2, 1)


def g(url: str) -> Any:
    return streams(url, 1, 2)


# --- peers ---------------------------------------------------------------------------------------


@contextmanager
def commands(peer: str, url: str, *command: str, count: int = 1) -> Iterator[None]:
    # Celery refuses pickled messages as root, where containers and CI run.
    env = {**os.environ, "REDIS_URL": url, "PEER": peer, "C_FORCE_ROOT": "true"}
    program = str(Path(sys.executable).with_name(command[0]))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    crew = [
        subprocess.Popen([program, *command[1:]], env=env, start_new_session=True, **quiet)
        for _ in range(count)
    ]
    os.environ.update(REDIS_URL=url, PEER=peer)
    tasks.URL = url
    try:
        yield
    finally:
        for process_ in crew:
            with suppress(ProcessLookupError):
                os.killpg(process_.pid, 9)
            process_.wait()


@contextmanager
def celery(url: str) -> Iterator[Send]:
    from celery import group

    app = tasks_for("celery", url)
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR")
    with commands("celery", url, "celery", "-A", "benchmarks.peers.tasks", "worker", "-c2", *quiet):

        def send(kind: str, count: int) -> None:
            task = app.tasks["work"]
            group(task.s(kind, BODIES[kind]) for _ in range(count)).apply_async().join_native()

        yield send


@contextmanager
def rq(url: str) -> Iterator[Send]:
    from rq import Queue

    client = redis.Redis.from_url(url)
    queue = Queue(connection=client)
    command = ("rq", "worker", "--worker-class", "rq.SimpleWorker", "--quiet", "--url", url)
    with commands("rq", url, *command, count=2):

        def send(kind: str, count: int) -> None:
            body = BODIES[kind]
            jobs = [queue.prepare_data(tasks.work, (kind, body)) for _ in range(count)]
            queue.enqueue_many(jobs)
            registry = queue.finished_job_registry
            while client.zcard(registry.key) < count:
                time.sleep(0.005)
            client.delete(registry.key)

        yield send


@contextmanager
def dramatiq(url: str) -> Iterator[Send]:
    actor = tasks_for("dramatiq", url)
    command = ("dramatiq", "benchmarks.peers.tasks:broker", "-p2", "-t1")
    with commands("dramatiq", url, *command):

        def send(kind: str, count: int) -> None:
            for message in [actor.send(kind, BODIES[kind]) for _ in range(count)]:
                message.get_result(block=True, timeout=60_000)

        yield send


@contextmanager
def huey(url: str) -> Iterator[Send]:
    task = tasks_for("huey", url)
    command = ("huey_consumer", "benchmarks.peers.tasks.huey", "-w2", "-kprocess", "-d0.01")
    with commands("huey", url, *command):

        def send(kind: str, count: int) -> None:
            for result in [task(kind, BODIES[kind]) for _ in range(count)]:
                result.get(blocking=True, timeout=60, backoff=1, max_delay=0.002)

        yield send


@contextmanager
def asynchronous(start: Callable[[], Any]) -> Iterator[Callable[[Any], Any]]:
    with asyncio.Runner() as runner:
        runner.run(start())
        yield runner.run


@contextmanager
def taskiq(url: str) -> Iterator[Send]:
    task = tasks_for("taskiq", url)
    command = ("taskiq", "worker", "benchmarks.peers.tasks:broker", "--workers=2")

    async def do(kind: str, count: int) -> None:
        sent = [await task.kiq(kind, b64encode(BODIES[kind]).decode()) for _ in range(count)]
        for message in sent:
            result = await message.wait_result(check_interval=0.002, timeout=60)
            result.raise_for_error()
            b64decode(result.return_value)

    with commands("taskiq", url, *command), asynchronous(task.broker.startup) as run:
        yield lambda kind, count: run(do(kind, count))


@contextmanager
def arq(url: str) -> Iterator[Send]:
    import pickle

    from arq import create_pool
    from arq.connections import RedisSettings
    from arq.jobs import ResultNotFound

    pool: Any = None

    async def connect() -> None:
        nonlocal pool
        settings = RedisSettings.from_dsn(url)
        pickles = {"job_serializer": pickle.dumps, "job_deserializer": pickle.loads}
        pool = await create_pool(settings, **pickles)

    async def do(kind: str, count: int) -> None:
        sent = [await pool.enqueue_job("arq_work", kind, BODIES[kind]) for _ in range(count)]
        for job in sent:
            while True:  # it says of some jobs that are just being finished that they are unknown
                with suppress(ResultNotFound):
                    await job.result(timeout=60, poll_delay=0.002)
                    break

    command = ("arq", "benchmarks.peers.tasks.WorkerSettings")
    with commands("arq", url, *command, count=2), asynchronous(connect) as run:
        yield lambda kind, count: run(do(kind, count))


@contextmanager
def dask(_: str) -> Iterator[Send]:
    from distributed import Client, LocalCluster

    quiet = {"dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=2, threads_per_worker=1, **quiet) as cluster, Client(cluster) as it:

        def send(kind: str, count: int) -> None:
            body = BODIES[kind]
            it.gather([it.submit(tasks.work, kind, body, pure=False) for _ in range(count)])

        yield send


@contextmanager
def ray(_: str) -> Iterator[Send]:
    import ray as engine

    engine.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    remote = engine.remote(tasks.work)
    try:
        yield lambda kind, count: engine.get(
            [remote.remote(kind, BODIES[kind]) for _ in range(count)]
        )
    finally:
        engine.shutdown()


def tasks_for(peer: str, url: str) -> Any:
    tasks.URL = url
    return tasks.MAKERS[peer]()


SYSTEMS: dict[str, Callable[[str], Any]] = {
    "e": e,
    "f": f,
    "g": g,
    "celery": celery,
    "rq": rq,
    "dramatiq": dramatiq,
    "arq": arq,
    "taskiq-redis": taskiq,
    "huey": huey,
    "dask": dask,
    "ray": ray,
}


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """End a body that does not end by itself: a worker that could not start says so nowhere."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"no answer in {seconds} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


# --- measuring -----------------------------------------------------------------------------------

LEFT_UP = ("dask", "ray")  # their processes watch each other, and take one that stands for dead


class System:
    """A system whose processes stand still while it is not asked: most poll while they wait."""

    def __init__(self, name: str, url: str, stack: ExitStack) -> None:
        me = psutil.Process()
        before = set(me.children(recursive=True))
        self.send: Send = stack.enter_context(SYSTEMS[name](url))
        for kind in KINDS:
            self.send(kind, 4)
        after = set() if name in LEFT_UP else set(me.children(recursive=True))
        self._processes = after - before
        stack.callback(self._signal, signal.SIGCONT)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let its processes run, and find their feet."""
        self._signal(signal.SIGCONT)
        self.send("no-op", 4)
        yield
        self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        for each in self._processes:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)


COUNTS = {"no-op": 400, "256 KiB": 50, "blur": 50}
OURS = ("e", "f", "g")


def count_of(kind: str, name: str, quick: bool) -> int:
    """Tiles of one round; ours get more, for theirs would be over before a clock could tell."""
    return COUNTS[kind] * (5 if name in OURS else 1) // (4 if quick else 1)


def hold(url: str, visibility_s: float) -> None:
    """A worker that takes a tile, renews its lease and never ends it."""
    leases_of, stop = Heart(StreamQueue(Link(url)), visibility_s, Path(os.devnull)), Event()
    leases = leases_of.watch("tasks", "victim")
    Thread(target=leases_of.beat, args=(stop,), daemon=True).start()
    queue = StreamQueue(Link(url))
    while not (taken := queue.read("victim")):
        pass
    with leases.holding(taken[0].entry):
        time.sleep(600)


def redelivery(url: str, visibility_s: float) -> float:
    """Seconds from the kill -9 of a worker to the result of the tile that it held."""
    queue, job, context = StreamQueue(Link(url)), job_of("no-op", 1), get_context("spawn")
    victim = context.Process(target=hold, args=(url, visibility_s), daemon=True)
    victim.start()
    queue.enqueue(job, job.tiles)
    client = redis.Redis.from_url(url)
    while not client.xpending("{sg}:tasks", "workers")["pending"]:
        time.sleep(0.01)
    with processes(stream_worker, url, 1, 1, visibility_s):
        time.sleep(visibility_s * 1.5)  # the lease is renewed all the while: nobody takes it
        assert not queue.results(job)
        victim.kill()
        start = time.perf_counter()
        while not queue.results(job):
            time.sleep(0.005)
        return time.perf_counter() - start


def measure(quick: bool, systems: Sequence[str] = tuple(SYSTEMS)) -> dict[str, Any]:
    up: dict[str, System] = {}
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name in systems:
            server = stack.enter_context(RedisServer.start(Path(folder) / name, persistent=False))
            try:
                with within(60):
                    up[name] = System(name, server.url, stack)
                print(f"{name} is up", file=sys.stderr, flush=True)
            except Exception as error:
                cause = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
                absent[name] = f"{type(error).__name__}: {str(error)[:200]}{cause}"
                print(f"{name}: {absent[name]}", file=sys.stderr, flush=True)
        seconds = {kind: by_turns(up, kind, quick) for kind in KINDS}
        window_s = 1.0
        with RedisServer.start(Path(folder) / "kill", persistent=False) as server:
            lost = [redelivery(server.url, window_s) for _ in range(1 if quick else 5)]
        version = server.version
    return {
        "server": version,
        "counts": COUNTS,
        "seconds": seconds,
        "absent": absent,
        "redelivery": {"visibility_s": window_s, "seconds": lost},
    }


def by_turns(up: dict[str, System], kind: str, quick: bool) -> Seconds:
    """Seconds that a tile takes, round by round."""
    counts = {name: count_of(kind, name, quick) for name in up}
    runs = {name: partial(system.send, kind, counts[name]) for name, system in up.items()}
    seconds = interleave(runs, 1 if quick else 5, lambda name: up[name].awake())
    return {name: [each / counts[name] for each in times] for name, times in seconds.items()}


def checks(data: dict[str, Any]) -> dict[str, float]:
    """How many times as long a peer takes as f."""
    return {
        f"queue, {kind}: {name}": ratios(seconds, name, "f")[0]
        for kind, seconds in data["seconds"].items()
        for name in seconds
        if name not in OURS
    }


def report(data: dict[str, Any]) -> str:
    def cell(kind: str, name: str) -> list[str]:
        times = data["seconds"][kind]
        rate = 1 / statistics.median(times[name])
        return [f"{rate:,.0f}", spread(ratios(times, name, "f"))]

    names = list(data["seconds"]["no-op"])
    rows = [(name, *(text for kind in KINDS for text in cell(kind, name))) for name in names]
    header = ["", *(text for kind in KINDS for text in (f"{kind}, tiles/s", "it / f"))]
    absent = "".join(
        f"\n{name} could not be measured: {why}\n" for name, why in data["absent"].items()
    )
    lost = data["redelivery"]["seconds"]
    window_s = data["redelivery"]["visibility_s"]
    return f"""## The queues

{data["server"]}, two workers; a round has {data["counts"]["no-op"]} no-ops and
{data["counts"]["blur"]} tiles (e, f and g: five times as many). Pixels travel through Redis
everywhere, there and back. All systems are up at once, each on a server of its own, and take turns;
but for dask and ray, those that wait are stopped meanwhile, as most of them poll.
What a run adds to the queue in e, f and g (files of events) is left out.

{table(header, rows)}
{absent}
After a kill -9 of the worker that holds a tile its result is there in
{statistics.median(lost):.2f} s ({min(lost):.2f} to {max(lost):.2f}); the visibility timeout was
{window_s:g} s. An earlier study found, with the settings that the peers come with: dask below
0.1 s, ray 0.9 s, arq 309 s, dramatiq 327 s; celery (acks_late), rq and taskiq-redis nothing in 640,
640 and 1200 s; celery and huey without acknowledgement lose the tile.
"""


if __name__ == "__main__":
    main("queues", measure, report)
