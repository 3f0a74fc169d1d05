"""The roles' loops on threads of the test, around a real server."""

import errno
import os
import re
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import redis
from PIL import Image
from support import SMALL, TILES, grey, make_images, noise, noise_job, temporary_files, wait_until

from studyguide import approaches, lists, service, streams
from studyguide.blur import blur_whole
from studyguide.checkpoint import FileStore
from studyguide.errors import Cancelled, MessageError, ToolError
from studyguide.lists import Hands, ListQueue, Silence
from studyguide.machinery.faults import Fault, PlantedError
from studyguide.machinery.link import LONGEST_PAUSE_S, Link
from studyguide.machinery.redis_server import RedisServer
from studyguide.record.timeline import Event, Recorder, Timeline
from studyguide.service import Heart, Leases, StreamAssembler, StreamWorker
from studyguide.settings import Blur, from_options
from studyguide.streams import Lease, StreamQueue
from studyguide.threads import Crew
from studyguide.tiles import Pixels, Tile, window
from studyguide.work import Canvas, ImageJob, Run, TileTask, encode, plan, process

pytestmark = pytest.mark.usefixtures("compiled")

P = "{sg}:"
BLUR = Blur.of(5, method="separable")
HASTY = {"visibility_s": 60.0, "backoff_s": 0.01, "quiet_s": 0.3}
SOON = {"visibility_s": 0.2}  # for those whose leases lapse: no heart beats unless a test says so


@dataclass
class Site:
    """What the roles of a run share, and the threads that they run on."""

    folder: Path
    images: Path
    connect: Callable[..., Link]
    url: str
    options: dict[str, Any] = field(default_factory=lambda: {**SMALL, **HASTY})
    events: list[Event] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def run(self) -> Run:
        places = {"images": self.images, "output": self.folder / "output"}
        settings = from_options({**self.options, **places})
        return Run(settings, Recorder(self.events.append, "test"))

    @property
    def store(self) -> FileStore:
        return FileStore(self.folder / "pixels")

    def link(self) -> Link:
        return self.connect(self.url, patience_s=30, stop=self.stop)

    def queue(self) -> StreamQueue:
        return StreamQueue(self.link())

    def lists(self, name: str = "", ttl_s: float = 3.0) -> ListQueue:
        return ListQueue(self.link(), name=name, ttl_s=ttl_s)

    def worker(self, name: str = "worker-0", *faults: str) -> StreamWorker:
        planted = [Fault.parse(text) for text in faults]
        return StreamWorker(self.run, self.queue(), self.store, Leases(name, 60.0), planted)

    def assembler(self) -> StreamAssembler:
        return StreamAssembler(self.run, self.queue(), self.store, Leases("assembler", 60.0))

    def coordinate(self) -> None:
        service.coordinate_stream(self.run, self.queue(), self.store, self.stop)

    @contextmanager
    def working(self, *loops: Callable[[threading.Event], None]) -> Iterator[None]:
        """Run loops on threads while the body runs; then drain them."""
        with Crew(self.stop) as crew:
            for n, loop in enumerate(loops):
                crew.start(f"loop-{n}", loop, self.stop)
            try:
                yield
            finally:
                self.stop.set()

    def do_all(self, *faults: str) -> None:
        """A whole run of f."""
        workers = [self.worker(f"worker-{n}", *faults) for n in range(2)]
        with self.working(self.assembler().work, *(worker.work for worker in workers)):
            self.coordinate()

    def of(self, *stages: str) -> list[Event]:
        return Timeline(self.events).of(*stages)

    def saved(self, name: str) -> Pixels:
        return np.asarray(Image.open(self.folder / "output" / name))

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "output").iterdir())


@pytest.fixture
def site(
    tmp_path: Path,
    two_images: Path,
    connect: Callable[..., Link],
    shared_server: RedisServer,
    client: redis.Redis,
) -> Iterator[Site]:
    site = Site(tmp_path, two_images, connect, shared_server.url)
    yield site
    assert temporary_files(tmp_path) == []


def assert_all_blurred(site: Site) -> None:
    assert site.names() == sorted(TILES)
    np.testing.assert_array_equal(site.saved("cloud.png"), blur_whole(grey(), BLUR))
    np.testing.assert_array_equal(site.saved("grain.png"), blur_whole(noise(), BLUR))


# f and g: the whole


def test_the_three_roles_together_blur_all_images(site: Site, client: redis.Redis) -> None:
    site.do_all()
    assert_all_blurred(site)
    assert len(site.of("wait")) == len(site.of("blur")) == len(site.of("assemble")) == 16
    assert (client.xlen(P + "tasks"), client.xlen(P + "ready"), client.xlen(P + "dlq")) == (0, 0, 0)


def test_a_run_that_loses_all_of_redis_in_the_middle_begins_again_by_itself(
    site: Site, client: redis.Redis
) -> None:
    worker = site.worker("worker-0", "slow:grain.png:6")

    def flush() -> None:
        wait_until(lambda: len(site.of("transfer")) >= 5)
        client.flushall()

    flusher = threading.Thread(target=flush)
    flusher.start()
    with site.working(site.assembler().work, worker.work):
        site.coordinate()
    flusher.join()
    assert_all_blurred(site)
    assert len(site.of("wait")) > 16


def test_two_coordinators_of_one_run_queue_each_tile_once(site: Site) -> None:
    twin = threading.Thread(target=site.coordinate)
    with site.working(site.assembler().work, site.worker().work):
        twin.start()
        site.coordinate()
        twin.join()
    assert_all_blurred(site)
    assert len(site.of("wait")) == 16


# the coordinator


class Forgetful(FileStore):
    """Loses what is kept first, and what else happens to that image then."""

    def __init__(self, folder: Path, happens: Callable[[ImageJob], object]) -> None:
        super().__init__(folder)
        self.happens: Callable[[ImageJob], object] | None = happens

    def put_image(self, job: ImageJob, pixels: Pixels) -> None:
        if self.happens:
            self.happens(job)
            self.happens = None
        else:
            super().put_image(job, pixels)


def coordinate_forgetfully(site: Site, happens: Callable[[ImageJob], object]) -> None:
    store = Forgetful(site.folder / "pixels", happens)
    with site.working(site.assembler().work, site.worker().work):
        service.coordinate_stream(site.run, site.queue(), store, site.stop)


def test_pixels_that_got_lost_are_kept_again_and_no_tile_is_blamed(
    site: Site, client: redis.Redis
) -> None:
    coordinate_forgetfully(site, lambda job: None)
    assert_all_blurred(site)
    assert {event.image for event in site.of("retry")} == {"cloud.png"}
    assert (site.of("dead"), client.xlen(P + "dlq")) == ([], 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: Image.fromarray(noise()).save(path), "cloud.png was changed during the run"),
    ],
)
def test_an_image_that_cannot_be_loaded_again_is_told_and_the_others_are_saved(
    site: Site, change: Callable[[Path], object], told: str
) -> None:
    site.images = make_images(site.folder / "own")
    coordinate_forgetfully(site, lambda job: change(site.images / job.image))
    (failed,) = site.of("failed")
    assert failed.image == "cloud.png"
    assert told in failed.detail["error"]
    assert site.names() == ["grain.png"]


def test_the_coordinator_queues_no_more_tiles_than_may_wait(site: Site) -> None:
    site.options["queue_size"] = 3
    queue, depths = site.queue(), []

    def take_slowly(stop: threading.Event) -> None:
        for _ in range(8):
            depths.append(wait_until(queue.backlog))
            (lease,) = wait_until(lambda: queue.read("w"))
            queue.commit(lease, b"0" * 64)
        depths.append(wait_until(queue.backlog))
        stop.set()

    with site.working(take_slowly), pytest.raises(Cancelled):
        site.coordinate()
    assert max(depths) <= 3


def test_a_coordinator_that_was_told_to_stop_queues_nothing_more(site: Site) -> None:
    stream, queue = site.queue(), ListQueue(site.link(), "{e}:")
    site.stop.set()
    with pytest.raises(Cancelled):
        site.coordinate()
    with pytest.raises(Cancelled):
        lists.coordinate_list(site.run, queue, site.stop)
    approaches.a_sequential(site.run, site.stop)
    assert (stream.backlog(), queue.length("tasks"), site.of("load", "save")) == (0, 0, [])


# the worker


def test_a_flaky_tile_is_tried_again_and_leaves_no_trace_in_the_pixels(site: Site) -> None:
    site.do_all("flaky:grain.png:7")
    assert_all_blurred(site)
    (retry,) = site.of("retry")
    assert (retry.image, retry.tile, retry.attempt) == ("grain.png", 7, 1)
    assert "flaky:grain.png:7" in retry.detail["error"]
    assert retry.detail["delay_s"] > 0
    assert sorted(event.attempt for event in site.of("wait") if event.tile == 7) == [1, 2]


def test_a_tile_that_always_fails_leaves_a_partial_image_and_a_mask(
    site: Site, client: redis.Redis
) -> None:
    site.do_all("raise:grain.png:7")
    assert site.names() == ["cloud.png", "grain.mask.png", "grain.partial.png"]
    tile = noise_job().tiles[7]
    blurred = blur_whole(noise(), BLUR)
    blurred[tile.core] = noise()[tile.core]
    np.testing.assert_array_equal(site.saved("grain.partial.png"), blurred)
    mask = np.zeros((96, 100), np.uint8)
    mask[tile.core] = 255
    np.testing.assert_array_equal(site.saved("grain.mask.png"), mask)
    assert [event.tile for event in site.of("retry", "dead")] == [7, 7, 7]
    (failed,) = site.of("failed")
    for part in ("1 of 12 tiles", "(7)", "grain.partial.png", "grain.mask.png"):
        assert part in failed.detail["error"]
    assert [event.image for event in site.of("save")] == ["cloud.png"]
    assert client.xlen(P + "dlq") == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: Image.fromarray(noise()[::-1]).save(path),
        lambda path: Image.fromarray(noise()[:50, :50]).save(path),
    ],
    ids=["gone", "other pixels", "another size"],
)
def test_an_image_with_dead_tiles_whose_original_was_changed_fails(
    site: Site, change: Callable[[Path], object]
) -> None:
    """The dead tiles keep the original pixels, and those are not there any more."""
    site.images = make_images(site.folder / "own")
    assembler = site.assembler()
    canvas = Canvas(assembler.run.load(site.images / "grain.png")[0])
    canvas.missing = {7}
    change(site.images / "grain.png")
    assert assembler._save(canvas) == "failed"
    (failed,) = site.of("failed")
    assert re.search(r"grain.png (is gone|was changed during the run)", failed.detail["error"])
    assert not (site.folder / "output").exists()


def lease_to_the_dead(site: Site, tile: int = 0) -> Lease:
    """Deliver a tile of grain.png to a consumer that never comes back."""
    job, queue = noise_job(), site.queue()
    site.store.put_image(job, noise())
    queue.enqueue(job, [job.tiles[tile]])
    (lease,) = queue.read("died")
    return lease


def test_a_tile_whose_worker_went_silent_is_taken_over(site: Site) -> None:
    site.options |= SOON
    lease = lease_to_the_dead(site)
    worker = site.worker()
    with site.working(worker.work):
        wait_until(lambda: site.of("transfer"))
    (reclaim,) = site.of("reclaim")
    assert (reclaim.image, reclaim.tile, reclaim.attempt) == ("grain.png", 0, 2)
    assert reclaim.detail["from_worker"] == "died"
    assert list(site.queue().results(lease.job)) == [0]


def test_nothing_is_taken_over_until_redis_was_well_for_a_whole_visibility_timeout(
    site: Site,
) -> None:
    site.options |= SOON
    lease = lease_to_the_dead(site)
    worker = site.worker()
    worker.queue.link.healthy_since = time.monotonic() + 600  # as just after a long pause
    with site.working(worker.work):
        for tile in lease.job.tiles[1:4]:
            site.queue().enqueue(lease.job, [tile])
            wait_until(lambda tile=tile: tile.index in site.queue().results(lease.job))
            time.sleep(SOON["visibility_s"])
        assert site.of("reclaim") == []
        worker.queue.link.healthy_since = 0.0
        wait_until(lambda: site.of("reclaim"))


def test_the_heart_keeps_a_tile_that_takes_longer_than_the_visibility_timeout(
    site: Site, client: redis.Redis
) -> None:
    site.options["visibility_s"] = 0.9
    heart = Heart(site.queue(), 0.9, site.folder / "alive" / "test")
    busy = site.worker("busy", "slow:grain.png:0", "slow:grain.png:0")
    idle = site.worker("idle")
    busy.leases = heart.watch("tasks", "busy")
    job = noise_job()
    site.store.put_image(job, noise())
    site.queue().enqueue(job, job.tiles[:1])
    with site.working(heart.beat, busy.work):
        wait_until(lambda: site.of("wait"))
        touched = (site.folder / "alive" / "test").stat().st_mtime
        threading.Thread(target=idle.work, args=[site.stop]).start()
        wait_until(lambda: site.of("transfer"))
        assert client.exists(P + "hb:busy")
        assert (site.folder / "alive" / "test").stat().st_mtime > touched
    assert site.of("reclaim") == []
    assert not client.exists(P + "hb:busy")


def test_a_lease_held_beyond_its_deadline_is_given_up() -> None:
    patient, hasty = Leases("w", deadline_s=600.0), Leases("w", deadline_s=0.0)
    with patient.holding("1-0"), patient.holding("2-0"), hasty.holding("3-0"):
        assert (patient.current(), hasty.current()) == (["1-0", "2-0"], [])
    assert patient.current() == []


def test_a_worker_that_is_told_to_stop_finishes_the_tile_in_hand_and_begins_no_other(
    site: Site,
) -> None:
    job, queue = noise_job(), site.queue()
    site.store.put_image(job, noise())
    queue.enqueue(job, job.tiles)
    with site.working(site.worker("w", "slow:grain.png:0").work):
        wait_until(lambda: site.of("wait"))
    assert list(site.queue().results(job)) == [0]
    assert queue.backlog() == len(job.tiles) - 1


@pytest.fixture
def reads_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no tile be so slow that a worker takes one at a time."""
    monkeypatch.setattr(streams, "READ_AHEAD_S", 600.0)


def enqueue_noise(site: Site) -> StreamQueue:
    job, queue = noise_job(), site.queue()
    site.store.put_image(job, noise())
    queue.enqueue(job, job.tiles)
    return queue


def test_a_worker_takes_several_tiles_at_once_when_they_are_quick(
    site: Site, client: redis.Redis, reads_ahead: None
) -> None:
    queue = enqueue_noise(site)
    with site.working(site.worker("w", "slow:grain.png:1").work):
        wait_until(lambda: len(site.of("wait")) == 2)
        assert client.xpending(P + "tasks", "workers")["pending"] == streams.READ_BATCH
        wait_until(lambda: queue.backlog() == 0)
    assert sorted(event.tile for event in site.of("transfer")) == list(range(12))


def test_a_worker_takes_no_more_tiles_than_it_does_in_a_moment() -> None:
    ahead = [streams.read_ahead(*last) for last in ((0, 0.2), (1, 1.0), (1, 0.004), (8, 0.001))]
    assert ahead == [1, 1, 2, streams.READ_BATCH]


def test_tiles_that_a_worker_took_and_did_not_begin_are_given_back_when_it_stops(
    site: Site, client: redis.Redis, reads_ahead: None
) -> None:
    enqueue_noise(site)
    with site.working(site.worker("w", "slow:grain.png:3").work):
        wait_until(lambda: len(site.of("wait")) == 4)
    queue = StreamQueue(site.connect(site.url))
    assert sorted(queue.results(noise_job())) == [0, 1, 2, 3]
    assert client.xpending(P + "tasks", "workers")["pending"] == 0
    others = queue.read("other", count=12)
    assert sorted(lease.tile.index for lease in others) == list(range(4, 12))
    assert {lease.trial for lease in others} == {1}


def test_tiles_that_wait_behind_a_slow_one_are_done_once_by_another_worker(
    site: Site, reads_ahead: None
) -> None:
    site.options |= SOON
    queue = enqueue_noise(site)
    slow, fast = site.worker("slow", "slow:grain.png:3"), site.worker("fast")

    def start_later(stop: threading.Event) -> None:
        wait_until(lambda: len(site.of("wait")) == 4)
        fast.work(stop)

    with site.working(slow.work, start_later):
        wait_until(lambda: queue.backlog() == 0)
    tiles = sorted(event.tile for event in site.of("transfer") if event.tile != 3)
    assert tiles == [0, 1, 2, *range(4, 12)]


def test_a_second_result_of_a_tile_is_a_duplicate(site: Site) -> None:
    site.options |= SOON
    job, queue = noise_job(), site.queue()
    site.store.put_image(job, noise())
    queue.enqueue(job, job.tiles[:1])
    slow, fast = site.worker("slow", "slow:grain.png:0"), site.worker("fast")

    def start_later(stop: threading.Event) -> None:
        wait_until(lambda: site.of("wait"))
        fast.work(stop)

    with site.working(slow.work, start_later):  # no heart renews the lease of the slow one
        wait_until(lambda: site.of("duplicate"))
    assert len(site.of("transfer")) == 2
    assert list(site.queue().results(job)) == [0]


def task(index: int = 0) -> TileTask:
    job = noise_job()
    return TileTask(job, job.tiles[index], window(noise(), job.tiles[index], job.blur.radius))


def test_a_suspect_tile_that_is_innocent_is_blurred_in_a_process_of_its_own() -> None:
    apart = service.process_apart(task(), [], timeout_s=60)
    np.testing.assert_array_equal(apart.pixels, process(task(), Recorder(lambda _: None)).pixels)


@pytest.mark.parametrize("kind", ["poison", "raise"])
def test_a_suspect_tile_that_is_guilty_kills_that_process_alone(kind: str) -> None:
    with pytest.raises(ToolError, match=r"grain\.png tile 0.*kills the process"):
        service.process_apart(task(), [Fault(kind, "grain.png", 0)], timeout_s=60)


def test_a_suspect_tile_that_kills_its_process_while_the_result_is_sent_is_guilty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "_apart", send_half)
    with pytest.raises(ToolError, match=r"grain\.png tile 0.*kills the process") as caught:
        service.process_apart(task(), [], timeout_s=60)
    assert caught.value.exit_code == -9


def send_half(sender: Connection, *_: object) -> None:
    """Send the length of a result and its first byte, and die."""
    os.write(sender.fileno(), struct.pack("!i", 100) + b"x")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_suspect_tile_that_does_not_end_is_given_up() -> None:
    with pytest.raises(ToolError, match=r"grain\.png tile 0` timed out") as caught:
        service.process_apart(task(), [Fault("slow", "grain.png", 0)], timeout_s=0.1)
    assert caught.value.exit_code is None


@pytest.mark.parametrize(("exit_code", "verdict"), [(None, "retry"), (-9, "dead")])
def test_a_suspect_tile_is_a_dead_letter_at_once_only_if_it_killed_its_process(
    site: Site, monkeypatch: pytest.MonkeyPatch, exit_code: int | None, verdict: str
) -> None:
    def fail(*_: object) -> None:
        raise ToolError(["blur"], exit_code, "")

    monkeypatch.setattr(service, "process_apart", fail)
    monkeypatch.setattr(service, "SUSPECT", 1)
    site.options.update(SOON)
    lease_to_the_dead(site)
    with site.working(site.worker().work):
        wait_until(lambda: site.of("retry", "dead"))
    assert site.of("retry", "dead")[0].stage == verdict


def test_a_tile_that_fails_when_another_has_done_it_is_let_go_of_and_recorded(site: Site) -> None:
    lease = lease_to_the_dead(site)
    site.queue().commit(lease, b"0" * 64)
    worker = site.worker()
    worker._fail(lease, "its pixels are gone", last=False)
    (event,) = site.of("duplicate")
    assert (event.tile, event.detail) == (lease.tile.index, {"error": "its pixels are gone"})


def fail_to_write(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    """The disk is full that many times, for results."""
    put_result, left = FileStore.put_result, [times]

    def put(store: FileStore, *args: Any) -> bytes:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put_result(store, *args)

    monkeypatch.setattr(FileStore, "put_result", put)


def test_a_full_disk_is_no_fault_of_the_tile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_write(monkeypatch, times=4)
    site.do_all()
    assert_all_blurred(site)
    assert site.of("retry", "dead") == []


def test_a_disk_that_stays_full_ends_the_worker_and_the_tile_is_left_to_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_write(monkeypatch, times=float("inf"))
    worker = site.worker()
    worker.queue.link.patience_s = 0.0
    site.store.put_image(noise_job(), noise())
    worker.queue.enqueue(noise_job(), noise_job().tiles[:1])
    with pytest.raises(OSError, match="No space left"):
        worker.work(site.stop)
    assert (worker.queue.backlog(), site.of("retry", "dead")) == (1, [])


def test_a_worker_that_waits_for_room_ends_when_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_write(monkeypatch, times=float("inf"))
    site.options.update(SOON)
    lease_to_the_dead(site)
    with site.working(site.worker().work):
        wait_until(lambda: site.of("blur"))
    assert (StreamQueue(site.connect(site.url)).backlog(), site.of("retry", "dead")) == (1, [])


# the assembler


def finish_tiles(site: Site) -> None:
    """Have all tiles of grain.png done and announced."""
    job, worker = noise_job(), site.worker("w")
    job = worker.run.load(site.images / "grain.png")[0]
    site.store.put_image(job, noise())
    worker.queue.enqueue(job, job.tiles)
    done = threading.Event()
    thread = threading.Thread(target=worker.work, args=[done])
    thread.start()
    wait_until(lambda: len(worker.queue.results(job)) == len(job.tiles))
    done.set()
    thread.join()


def test_a_result_that_was_damaged_on_disk_is_done_again(site: Site) -> None:
    site.options |= SOON
    finish_tiles(site)
    for path in sorted((site.folder / "pixels").rglob("*-3-*.raw")):
        path.write_bytes(bytes(path.stat().st_size))
    with site.working(site.assembler().work, site.worker().work):
        wait_until(lambda: site.of("save"))
    np.testing.assert_array_equal(site.saved("grain.png"), blur_whole(noise(), BLUR))
    assert [event.tile for event in site.of("blur")].count(3) == 2


def test_an_image_whose_assembler_died_is_taken_over(site: Site, client: redis.Redis) -> None:
    site.options |= SOON
    finish_tiles(site)
    assert site.queue().read_ready("died")
    with site.working(site.assembler().work):
        wait_until(lambda: client.xlen(P + "ready") == 0)
    np.testing.assert_array_equal(site.saved("grain.png"), blur_whole(noise(), BLUR))


def test_an_image_that_was_announced_twice_is_saved_once(site: Site, client: redis.Redis) -> None:
    finish_tiles(site)
    ((_, announcement),) = client.xrange(P + "ready")
    client.xadd(P + "ready", announcement)
    with site.working(site.assembler().work):
        wait_until(lambda: client.xlen(P + "ready") == 0)
    assert len(site.of("save")) == 1


def test_an_announced_image_with_tiles_in_flight_is_not_taken_for_partial(
    site: Site, client: redis.Redis
) -> None:
    finish_tiles(site)
    (key,) = client.keys(P + "res:*")
    client.hdel(key, 3)
    with site.working(site.assembler().work):
        wait_until(lambda: client.xlen(P + "ready") == 0)
    assert site.of("failed", "save") == []
    assert not (site.folder / "output").exists()


def test_an_image_that_cannot_be_saved_is_told_and_the_others_are_saved(site: Site) -> None:
    (site.folder / "output" / "grain.png").mkdir(parents=True)
    site.do_all()
    (failed,) = site.of("failed")
    assert failed.image == "grain.png"
    assert "grain.png cannot be saved" in failed.detail["error"]
    np.testing.assert_array_equal(site.saved("cloud.png"), blur_whole(grey(), BLUR))


# e


def test_the_roles_of_e_blur_all_images(site: Site) -> None:
    queues = [site.lists() for _ in range(4)]
    run = site.run
    loops = [
        lambda stop: lists.work_list(run, queues[0], stop, []),
        lambda stop: lists.work_list(run, queues[1], stop, []),
        lambda stop: lists.assemble_list(run, queues[2], stop),
    ]
    with site.working(*loops):
        lists.coordinate_list(run, queues[3], site.stop)
    assert_all_blurred(site)


def test_a_worker_of_e_that_is_told_to_stop_hands_over_the_tile_in_hand(site: Site) -> None:
    queues, slow = site.lists(), [Fault("slow", "grain.png", 0)]
    for _ in range(2):
        queues.put("tasks", encode(task()))
    with site.working(lambda stop: lists.work_list(site.run, site.lists(), stop, slow)):
        wait_until(lambda: site.of("wait"))
    stopped = ListQueue(site.connect(site.url))
    assert (stopped.length("tasks"), stopped.length("results")) == (1, 1)


def test_a_tile_lost_in_e_is_noticed_and_its_image_is_not_saved(site: Site) -> None:
    queues = [site.lists("killed", 0.3), *(site.lists(name) for name in ("w", "assembler", ""))]
    run = site.run

    def lose_one(stop: threading.Event) -> None:
        wait_until(lambda: queues[0].take("tasks"))
        lists.work_list(run, queues[1], stop, [])

    with site.working(lose_one, lambda stop: lists.assemble_list(run, queues[2], stop)):
        lists.coordinate_list(run, queues[3], site.stop)
    (lost,) = site.of("lost")
    (failed,) = site.of("failed")
    assert lost.image == failed.image == "cloud.png"
    assert "1 of 4 tiles were lost" in failed.detail["error"]
    assert site.names() == ["grain.png"]
    np.testing.assert_array_equal(site.saved("grain.png"), blur_whole(noise(), BLUR))


def test_an_image_of_e_whose_last_tile_comes_while_it_is_given_up_ends_in_one_way(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, queue, job = site.run, site.lists(), task().job
    results = [process(each, run.recorder) for each in plan(job, noise(), run.recorder)]
    missing = ListQueue.missing

    def then_the_rest_comes(its: ListQueue, job: ImageJob) -> list[Tile]:
        found = missing(its, job)
        monkeypatch.setattr(ListQueue, "missing", missing)
        queue.put("results", encode(results[-1]))
        wait_until(lambda: site.lists().state(job))
        return found

    with site.working(lambda stop: lists.assemble_list(run, site.lists("assembler"), stop)):
        wait_until(lambda: queue.turns())
        for result in results[:-1]:
            queue.put("results", encode(result))
        wait_until(lambda: len(missing(queue, job)) == 1)
        monkeypatch.setattr(ListQueue, "missing", then_the_rest_comes)
        lists._give_up(run, queue, job, 0.0)
    assert (queue.state(job), site.of("lost", "failed")) == ("saved", [])


def test_in_e_no_tile_is_lost_while_its_worker_lives_however_long_it_takes(site: Site) -> None:
    """All four workers take longer than the silence that is allowed, and than their keys live."""
    site.images = make_images(site.folder / "own")
    (site.images / "grain.png").unlink()
    run, heart = site.run, Heart(site.lists(), 0.4, site.folder / "alive" / "test")
    slow = [Fault("slow", "cloud.png", tile) for tile in range(4)]
    loops = [heart.beat, partial(lists.assemble_list, run, site.lists("assembler"))]
    for name in ("w0", "w1", "w2", "w3"):
        heart.watch("", name)
        loops.append(partial(lists.work_list, run, site.lists(name, 0.4), faults=slow))
    with site.working(*loops):
        lists.coordinate_list(run, site.lists(), site.stop)
    assert (site.of("lost", "failed"), site.names()) == ([], ["cloud.png"])


@pytest.mark.slow
def test_in_e_what_is_lost_with_a_server_is_what_was_not_assembled(
    site: Site, client: redis.Redis
) -> None:
    """It forgets what waits, what the assembler has, and that a worker has a tile in hand."""
    site.options["visibility_s"] = 0.5
    queues, run = [site.lists(name) for name in ("w", "assembler", "")], site.run
    heart = Heart(site.lists(), 0.5, site.folder / "alive" / "test")
    for name in ("w", "assembler"):
        heart.watch("", name)

    def forget(stop: threading.Event) -> None:
        wait_until(lambda: [event.tile for event in site.of("wait")][-1:] == [4])
        wait_until(lambda: (len(site.of("assemble")), len(site.of("enqueue"))) == (8, 16))
        client.flushall()

    slow = [Fault("slow", "grain.png", 4)]  # longer than a silence
    work = partial(lists.work_list, run, queues[0], faults=slow)
    assemble = partial(lists.assemble_list, run, queues[1])
    with site.working(heart.beat, work, assemble, forget):
        lists.coordinate_list(run, queues[2], site.stop)
    tiles = {
        stage: [e.tile for e in site.of(stage) if e.image == "grain.png"]
        for stage in ("assemble", "lost")
    }
    assert tiles == {"assemble": [0, 1, 2, 3, 4], "lost": list(range(5, 12))}
    assert site.names() == ["cloud.png"]


def test_in_e_a_tile_that_fails_takes_its_worker_along(site: Site) -> None:
    queues = site.lists()
    queues.put("tasks", encode(task()))
    with pytest.raises(PlantedError):
        lists.work_list(site.run, queues, site.stop, [Fault("raise", "grain.png", 0)])
    assert queues.length("tasks") == 0


def test_in_e_a_damaged_message_ends_its_reader(site: Site) -> None:
    queues = site.lists()
    for name in ("tasks", "results"):
        queues.put(name, b"damaged")
    with pytest.raises(MessageError, match="damaged"):
        lists.work_list(site.run, queues, site.stop, [])
    with pytest.raises(MessageError, match="damaged"):
        lists.assemble_list(site.run, queues, site.stop)


def test_in_e_an_image_that_cannot_be_saved_has_failed(site: Site, client: redis.Redis) -> None:
    (site.folder / "output" / "grain.png").mkdir(parents=True)
    run, queues = site.run, [site.lists() for _ in range(3)]
    loops = [
        lambda stop: lists.work_list(run, queues[0], stop, []),
        lambda stop: lists.assemble_list(run, queues[1], stop),
    ]
    with site.working(*loops):
        lists.coordinate_list(run, queues[2], site.stop)
    assert sorted(client.mget(client.keys(P + "state:*"))) == ["failed", "saved"]
    assert [event.image for event in site.of("failed")] == ["grain.png"]


def test_in_e_an_image_that_was_given_up_is_not_saved_when_its_tiles_come_late(site: Site) -> None:
    """A worker that was frozen for long goes on after its image is reported as failed."""
    queues = site.lists()
    queues.set_state(noise_job(), "failed")
    tiles = range(len(noise_job().tiles))
    with site.working(lambda stop: lists.assemble_list(site.run, site.lists(), stop)):
        for index in tiles:
            queues.put("results", encode(process(task(index), Recorder(lambda _: None))))
        wait_until(lambda: queues.count_received() == len(tiles))
    assert (site.of("save"), queues.state(noise_job())) == ([], "failed")


def test_in_e_a_server_that_lost_its_data_is_told_again_what_was_saved(
    site: Site, client: redis.Redis
) -> None:
    queues = site.lists()
    for index in range(len(noise_job().tiles)):
        queues.put("results", encode(process(task(index), Recorder(lambda _: None))))
    with site.working(lambda stop: lists.assemble_list(site.run, site.lists(), stop)):
        for _ in range(2):
            wait_until(lambda: client.mget(client.keys(P + "state:*") or ["none"]) == ["saved"])
            client.flushall()


def test_a_new_assembler_of_e_counts_from_zero(site: Site) -> None:
    queues = site.lists()
    queues.note_received(noise_job(), noise_job().tiles[0])
    with site.working(lambda stop: lists.assemble_list(site.run, site.lists(), stop)):
        wait_until(lambda: queues.count_received() == 0)


# Hands


class FakeTime(SimpleNamespace):
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(lists, "time", clock)
    return clock


def hands_around(link: Link) -> Hands:
    queue: Any = SimpleNamespace(link=link, turns=dict)
    return Hands(queue, beat_s=1.0)


def test_hands_are_empty_when_all_who_live_have_asked_twice_since_the_last_change() -> None:
    hands = hands_around(Link("redis://localhost"))
    looks = [({"w": 1, "a": 9}, 0), ({"w": 1, "a": 9}, 0), ({"w": 1, "a": 10}, 0)]
    looks += [({"w": 2, "a": 11}, 0), ({"w": 2, "a": 11}, 0), ({"w": 3, "a": 11}, 0)]
    assert not any(hands.are_empty(*look) for look in looks)
    assert hands.are_empty({"w": 3, "a": 12}, 0)
    assert not hands.are_empty({"w": 3, "a": 13}, 1)


def test_hands_of_the_dead_are_empty() -> None:
    hands = hands_around(Link("redis://localhost"))
    assert not any(hands.are_empty(turns, 0) for turns in ({"w": 1}, {"w": 1}, {"w": 1}, {}))
    assert hands.are_empty({}, 0)


def test_after_trouble_with_redis_all_have_time_to_say_that_they_live(clock: FakeTime) -> None:
    link = Link("redis://localhost")
    hands = hands_around(link)
    clock.now = link.healthy_since = link.healthy_since + 100
    assert not any(hands.are_empty({}, 0) for _ in range(9))
    clock.now += 1.0 + LONGEST_PAUSE_S + 0.1
    assert [hands.are_empty(turns, 0) for turns in ({"w": 1}, {"w": 1}, {"w": 1})] == [False] * 3


# Silence


def changes(silence: Silence, clock: FakeTime, *pauses: float) -> int:
    """Let the state change after each of these pauses; none of them may count as silence."""
    state = 0
    for pause in pauses:
        clock.now += pause
        state += 1
        assert not silence.lasts(state)
    return state


def test_silence_lasts_as_long_as_was_asked_for_at_least(clock: FakeTime) -> None:
    silence = Silence(least_s=2.0)
    state = changes(silence, clock, 0.0, 9.0, 0.1, 0.1)
    clock.now += 1.9
    assert not silence.lasts(state)
    clock.now += 0.2
    assert silence.lasts(state)


def test_silence_lasts_longer_where_changes_are_rare(clock: FakeTime) -> None:
    silence = Silence(least_s=2.0)
    state = changes(silence, clock, 0.0, 9.0, 1.0, 3.0)
    clock.now += 14.9
    assert not silence.lasts(state)
    clock.now += 0.2
    assert silence.lasts(state)
