"""Channels keep order and bounds and wake everybody; no thread outlives its crew."""

import errno
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scheduler import Scheduler
from support import failing, temporary_files, wait_until

from studyguide import images, threads, work
from studyguide.approaches import APPROACHES
from studyguide.blur import blur_whole
from studyguide.errors import Cancelled, StudyguideError
from studyguide.record.report import RunReport
from studyguide.record.timeline import Event, Recorder
from studyguide.runs import run
from studyguide.settings import Blur, Settings
from studyguide.threads import Channel, Crew

pytestmark = pytest.mark.timeout(60)  # a deadlock is reported soon

BLINK_S = 0.05  # in which a thread that should wait would have gone on


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def spawn(function: Callable[..., object], *args: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=args, daemon=True)  # a failure must not hang
    thread.start()
    return thread


def drain(channel: Channel[Any], into: list[Any]) -> None:
    into.extend(channel)


# --- channels ------------------------------------------------------------------------------------


@given(items=st.lists(st.integers()), capacity=st.integers(1, 5))
def test_items_come_out_in_the_order_in_which_they_went_in(items: list[int], capacity: int) -> None:
    channel: Channel[int] = Channel(capacity)
    taken: list[int] = []
    consumer = spawn(drain, channel, taken)
    for item in items:
        channel.put(item)
    channel.close()
    consumer.join()
    assert taken == items


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_a_producer_waits_while_the_channel_is_full(capacity: int) -> None:
    channel: Channel[int] = Channel(capacity)
    done: list[int] = []

    def produce() -> None:
        for n in range(capacity + 2):
            channel.put(n)
            done.append(n)

    producer = spawn(produce)
    for freed in range(3):
        while len(done) < capacity + freed:
            time.sleep(0.001)
        time.sleep(BLINK_S)
        assert len(done) == capacity + freed
        assert channel.get() == freed
    producer.join()


class Gauge(deque[Any]):
    """Notes how many items there were at most."""

    most = 0

    def append(self, item: Any) -> None:
        super().append(item)
        self.most = max(self.most, len(self))


@pytest.mark.parametrize("capacity", [1, 3])
def test_a_channel_never_holds_more_than_its_capacity_and_loses_or_repeats_nothing(
    capacity: int,
) -> None:
    producers, each = 4, 300
    channel: Channel[tuple[int, int]] = Channel(capacity, producers)
    channel._items = gauge = Gauge()
    taken: list[list[tuple[int, int]]] = [[] for _ in range(3)]

    def produce(name: int) -> None:
        for n in range(each):
            channel.put((name, n))
        channel.close()

    crew = [spawn(produce, name) for name in range(producers)]
    crew += [spawn(drain, channel, into) for into in taken]
    for thread in crew:
        thread.join()
    assert gauge.most == capacity
    assert sorted(item for into in taken for item in into) == [
        (name, n) for name in range(producers) for n in range(each)
    ]
    for into in taken:  # what one consumer has of one producer is in order
        for name in range(producers):
            mine = [n for producer, n in into if producer == name]
            assert mine == sorted(mine)


def test_only_the_last_of_several_producers_ends_the_channel() -> None:
    channel: Channel[str] = Channel(4, producers=2)
    taken: list[str] = []
    consumer = spawn(drain, channel, taken)
    channel.put("a")
    channel.close()
    wait_until(lambda: taken == ["a"])
    time.sleep(BLINK_S)
    assert consumer.is_alive()
    channel.put("b")
    channel.close()
    consumer.join()
    assert taken == ["a", "b"]


def test_what_is_in_a_closed_channel_is_still_delivered() -> None:
    channel: Channel[int] = Channel(3)
    for n in range(3):
        channel.put(n)
    channel.close()
    assert list(channel) == [0, 1, 2]
    with pytest.raises(EOFError):
        channel.get()


def test_the_end_of_a_channel_reaches_all_its_consumers() -> None:
    channel: Channel[int] = Channel(1)
    taken: list[int] = []
    consumers = [spawn(drain, channel, taken) for _ in range(4)]
    channel.close()
    for consumer in consumers:
        consumer.join()
    assert taken == []


def test_cancelling_wakes_all_who_wait_to_put_or_to_get() -> None:
    full: Channel[int] = Channel(1)
    full.put(0)
    empty: Channel[int] = Channel(1)
    ends: list[str] = []

    def attempt(action: Callable[[], object]) -> None:
        try:
            action()
        except Cancelled:
            ends.append("cancelled")

    waiting = [spawn(attempt, lambda: full.put(1)) for _ in range(3)]
    waiting += [spawn(attempt, empty.get) for _ in range(3)]
    time.sleep(BLINK_S)
    assert ends == []
    full.cancel()
    empty.cancel()
    for thread in waiting:
        thread.join()
    assert ends == ["cancelled"] * 6


def test_a_cancelled_channel_takes_and_gives_nothing_more() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.cancel()
    with pytest.raises(Cancelled):
        channel.put(2)
    with pytest.raises(Cancelled):
        channel.get()
    with pytest.raises(Cancelled):
        next(iter(channel))


# --- crews ---------------------------------------------------------------------------------------


def fail(message: str) -> None:
    raise RuntimeError(message)


def test_a_crew_waits_for_its_threads_and_those_they_start() -> None:
    done: list[str] = []

    def parent() -> None:
        time.sleep(BLINK_S)
        crew.start("child", child)
        done.append("parent")

    def child() -> None:
        time.sleep(BLINK_S)
        done.append("child")

    with Crew() as crew:
        crew.start("parent", parent)
    assert sorted(done) == ["child", "parent"]


def test_the_name_of_a_stage_is_the_name_of_its_thread() -> None:
    names: list[str] = []
    with Crew() as crew:
        crew.start("worker-3", lambda: names.append(threading.current_thread().name))
    assert names == ["worker-3"]


def linger(channel: Channel[Any]) -> None:
    """Wait for what never comes, and take some time to end."""
    with suppress(Cancelled):
        channel.get()
    time.sleep(BLINK_S)


def enter(crew: Crew, *stages: tuple[str, Callable[..., None]]) -> None:
    """Run these stages, and one that waits for what never comes."""
    waiting = crew.channel(1)
    with crew:
        crew.start("consumer", linger, waiting)
        for name, stage in stages:
            crew.start(name, stage)


def test_a_failing_stage_ends_the_run_with_its_error_and_sets_stop() -> None:
    stop = threading.Event()
    with pytest.raises(RuntimeError, match="planted"):
        enter(Crew(stop), ("failing", lambda: fail("planted")))
    assert stop.is_set()


def test_of_several_errors_the_first_is_raised() -> None:
    crew = Crew()
    waiting = crew.channel(1)

    def fail_later() -> None:
        with suppress(Cancelled):
            waiting.get()
        fail("second")

    with pytest.raises(RuntimeError, match="first"):
        enter(crew, ("later", fail_later), ("first", lambda: fail("first")))


def test_an_error_in_the_body_cancels_the_threads_and_is_the_one_raised() -> None:
    crew = Crew()
    waiting = crew.channel(1)

    def body() -> None:
        with crew:
            crew.start("consumer", drain, waiting, [])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()


def test_a_channel_made_after_the_failure_is_cancelled_from_the_start() -> None:
    crew = Crew()
    crew.cancel()
    with pytest.raises(Cancelled):
        crew.channel(1).put(1)


def test_a_thread_that_cannot_be_started_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "one too many":
            fail("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(StudyguideError, match=r"can't start new thread.* Use fewer --workers"):
        enter(Crew(), ("one too many", lambda: None), ("never reached", lambda: None))


def test_an_interrupt_of_a_crew_leaves_no_thread_though_one_takes_time_to_end() -> None:
    def interrupt() -> None:
        time.sleep(BLINK_S)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        enter(Crew(), ("ctrl-c", interrupt))


# --- b and c -------------------------------------------------------------------------------------

TINY: dict[str, Any] = {"tile_size": 8, "kernel_size": 5, "method": "separable"}
SIZES = [(20, 30), (8, 8), (1, 1), (17, 9), (33, 12)]
NARROW: dict[str, Any] = {"queue_size": 1, "images_in_memory": 1}


def noise(height: int, width: int) -> Any:
    return np.random.default_rng(height).integers(0, 256, (height, width, 4), np.uint8)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tiny images; nobody writes to their folder."""
    folder = tmp_path_factory.mktemp("inputs")
    for n, size in enumerate(SIZES):
        Image.fromarray(noise(*size)).save(folder / f"{n}.png")
    return folder


def expected() -> dict[str, str]:
    """Digests of the five, blurred in one piece."""
    blur = Blur.of(5, method="separable")
    return {
        f"{n}.png": images.sha256(blur_whole(noise(*size), blur)) for n, size in enumerate(SIZES)
    }


def outputs(report: RunReport) -> list[str]:
    """Names of the files that are really there, after a look at their pixels."""
    for output in report.outputs:
        pixels = images.load(Path(output["path"]))
        assert images.sha256(pixels) == output["pixels_sha256"]
    return [Path(output["path"]).name for output in report.outputs]


@pytest.mark.parametrize("approach", ["b", "c"])
@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("room", [NARROW, {"queue_size": 2, "images_in_memory": 2}, {}], ids=str)
def test_b_and_c_give_the_pixels_of_the_whole_blur_with_the_narrowest_queues(
    approach: str, workers: int, room: dict[str, Any], inputs: Path, tmp_path: Path
) -> None:
    report = run(approach, images=inputs, output=tmp_path, workers=workers, **TINY, **room)
    assert report.ok
    assert report.pixels() == expected()
    assert outputs(report) == sorted(expected())
    assert report.ledger["enqueued"] == report.ledger["assembled"] == report.ledger["delivered"]


@pytest.mark.parametrize("approach", ["b", "c"])
def test_the_narrowest_queues_do_not_deadlock_in_many_runs(
    approach: str, inputs: Path, tmp_path: Path
) -> None:
    for _ in range(15):
        report = run(approach, images=inputs, output=tmp_path, workers=3, **TINY, **NARROW)
        assert report.pixels() == expected()


@pytest.mark.parametrize("room", [1, 2, 3])
def test_c_holds_no_more_images_in_memory_than_it_may(
    room: int, inputs: Path, tmp_path: Path
) -> None:
    report = run(
        "c", images=inputs, output=tmp_path, workers=2, images_in_memory=room, queue_size=1, **TINY
    )
    changes = [(event.start, 1) for event in report.timeline.of("load")]
    changes += [(event.end, -1) for event in report.timeline.of("save")]
    held = np.cumsum([step for _, step in sorted(changes)])
    assert 1 <= held.max() <= room


def test_c_blurs_tiles_of_the_first_image_before_the_last_one_is_loaded(
    inputs: Path, tmp_path: Path
) -> None:
    report = run("c", images=inputs, output=tmp_path, workers=2, images_in_memory=3, **TINY)
    first_blur = min(event.start for event in report.timeline.of("blur"))
    assert first_blur < max(event.start for event in report.timeline.of("load"))


@pytest.mark.parametrize("approach", ["b", "c"])
def test_each_stage_has_lanes_of_its_own_in_the_timeline(
    approach: str, inputs: Path, tmp_path: Path
) -> None:
    report = run(approach, images=inputs, output=tmp_path, workers=2, **TINY)

    def lanes(*stages: str) -> set[str]:
        return {event.lane for event in report.timeline.of(*stages)}

    assert lanes("split", "enqueue") == {"coordinator"}
    assert lanes("wait", "blur", "transfer") <= {"worker-0", "worker-1"}
    if approach == "b":
        assert lanes("assemble") == {"assembler"}
    else:
        assert lanes("load") <= {"loader-0", "loader-1"}
        assert lanes("assemble", "save") == {f"assembler {n}.png" for n in range(len(SIZES))}


STAGES = [
    (images, "load"),
    (threads, "plan"),
    (threads, "process"),
    (work.Canvas, "add"),
    (images, "save"),
]


@pytest.mark.parametrize("approach", ["b", "c"])
@pytest.mark.parametrize(("home", "name"), STAGES, ids=[name for _, name in STAGES])
@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("room", [NARROW, {}], ids=["narrow", "wide"])
def test_an_error_in_any_stage_ends_the_run_with_that_error_and_leaves_no_half_file(
    approach: str,
    home: Any,
    name: str,
    nth: int,
    room: dict[str, Any],
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(home, name, failing(getattr(home, name), nth, RuntimeError("planted")))
    with pytest.raises(RuntimeError, match="planted"):
        run(approach, images=inputs, output=tmp_path, workers=3, **TINY, **room)
    assert temporary_files(tmp_path) == []


@pytest.mark.parametrize("approach", ["b", "c"])
@pytest.mark.parametrize("stage", ["load", "enqueue", "blur", "assemble", "save"])
def test_an_interrupt_in_mid_run_leaves_no_thread_and_no_half_file(
    approach: str, stage: str, inputs: Path, tmp_path: Path
) -> None:
    interrupted = threading.Event()

    def interrupt(event: Event) -> None:
        if event.stage == stage and not interrupted.is_set():
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(BLINK_S)

    with pytest.raises(KeyboardInterrupt):
        run(approach, images=inputs, output=tmp_path, workers=3, on_event=interrupt, **TINY)
    assert temporary_files(tmp_path) == []


@pytest.fixture
def mixed(inputs: Path, tmp_path: Path) -> Path:
    """The five images among files that cannot be done."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in inputs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "0.webp").touch()  # the stem of 0.png
    (folder / "empty.png").touch()
    (folder / "gone.png").symlink_to(folder / "nowhere")
    (folder / "text.jpg").write_text("Dear diary")
    whole = (inputs / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.mark.parametrize("approach", ["a", "b", "c"])
@pytest.mark.parametrize("room", [NARROW, {}], ids=["narrow", "wide"])
def test_images_that_cannot_be_done_are_listed_and_the_others_are_done(
    approach: str, room: dict[str, Any], mixed: Path, tmp_path: Path
) -> None:
    report = run(approach, images=mixed, output=tmp_path, workers=2, **TINY, **room)
    assert not report.ok
    assert report.pixels() == expected()
    failed = {item["image"]: item["error"] for item in report.failed_images}
    assert sorted(failed) == ["0.webp", "cut.png", "empty.png", "gone.png", "text.jpg"]
    for name, error in failed.items():
        assert str(mixed / name) in error
    assert report.images == len(SIZES) + len(failed)


@pytest.mark.parametrize("approach", ["a", "b", "c"])
def test_an_image_that_does_not_fit_on_the_disk_fails_alone(
    approach: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, full = os.fsync, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # The first call is the check that the output folder can be written.
    monkeypatch.setattr(os, "fsync", failing(fsync, 3, full))
    report = run(approach, images=inputs, output=tmp_path, workers=2, **TINY, **NARROW)
    (failed,) = report.failed_images
    assert "No space left on device" in failed["error"]
    assert sorted([*report.pixels(), failed["image"]]) == sorted(expected())
    assert report.pixels().items() <= expected().items()
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == sorted(report.pixels())


# --- every order of steps ------------------------------------------------------------------------

SEEDS = range(20)


def scheduled(approach: str, folder: Path, output: Path, scheduler: Scheduler) -> list[str]:
    """Run b or c with the narrowest queues on threads that take turns; the images it saved."""
    blur = Blur.of(5, method="separable")
    settings = Settings(folder, output, 3, 8, 1, 1, blur=blur)
    saved: list[str] = []

    def note(event: Event) -> None:
        if event.stage == "save":
            saved.append(event.image)

    function = APPROACHES[approach].on_threads
    assert function
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "threading", scheduler)
        function(work.Run(settings, Recorder(note)))
    return sorted(saved)


@pytest.mark.parametrize("approach", ["b", "c"])
def test_in_many_orders_of_steps_b_and_c_come_to_their_end(
    approach: str, inputs: Path, tmp_path: Path
) -> None:
    for seed in SEEDS:
        assert scheduled(approach, inputs, tmp_path, Scheduler(seed)) == sorted(expected())


@pytest.mark.parametrize("approach", ["b", "c"])
@pytest.mark.parametrize(("module", "stage"), STAGES, ids=[name for _, name in STAGES])
def test_in_many_orders_of_steps_an_error_ends_the_run(
    approach: str, module: Any, stage: str, inputs: Path, tmp_path: Path
) -> None:
    for seed in SEEDS[:8]:
        planted = ZeroDivisionError(str(seed))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, stage, failing(getattr(module, stage), 1 + seed % 5, planted))
            with pytest.raises(ZeroDivisionError, match=str(seed)):
                scheduled(approach, inputs, tmp_path, Scheduler(seed))


@pytest.mark.parametrize("approach", ["b", "c"])
def test_in_many_orders_of_steps_an_interrupt_ends_the_run(
    approach: str, inputs: Path, tmp_path: Path
) -> None:
    for seed in SEEDS[1:]:
        with pytest.raises(KeyboardInterrupt):
            scheduled(approach, inputs, tmp_path, Scheduler(seed, interrupt_at=1 + seed // 2))
