"""Events survive the way through files and the death of their process; a timeline orders them."""

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyguide.errors import MessageError
from studyguide.record.report import RunReport, readable
from studyguide.record.timeline import (
    MARKS,
    NEEDED,
    SPANS,
    Clock,
    Event,
    EventFile,
    EventTail,
    Recorder,
    Timeline,
    critical_path,
)

EVENT = Event("blur", 1.5, 2.25, "worker-1", "pool-0", "a.png", 7, 2, {"cpu_s": 0.5})

moments = st.floats(0, 2e9, allow_nan=False)
details = st.dictionaries(
    st.text(), st.text() | st.integers() | moments | st.booleans() | st.none(), max_size=3
)
file_names = st.text() | st.text("a\udce9\udcff", min_size=1)  # bytes that are no UTF-8 included


def complete(event: Event) -> Event:
    """With the texts that others rely on."""
    return replace(event, detail=event.detail | dict.fromkeys(NEEDED.get(event.stage, ()), "x"))


events = st.builds(
    Event,
    st.sampled_from(SPANS + MARKS),
    moments,
    moments,
    st.text(),
    st.text(),
    file_names,
    st.integers(-1, 10**6),
    st.integers(1, 100),
    details,
).map(complete)

# --- events --------------------------------------------------------------------------------------


@given(event=events)
def test_an_event_comes_back_from_its_line(event: Event) -> None:
    line = event.to_json()
    assert line.isascii()
    assert line.splitlines() == [line]
    assert Event.from_json(line) == event


def test_what_an_event_leaves_out_has_its_default() -> None:
    line = '{"stage":"run","start":1.0,"end":1.0,"process":"main","lane":"MainThread"}'
    assert Event.from_json(line) == Event("run", 1.0, 1.0, "main", "MainThread", "", -1, 1, {})


def test_an_event_of_an_unknown_stage_is_refused() -> None:
    with pytest.raises(MessageError, match="'sleep' is no stage of event schema 1"):
        replace(EVENT, stage="sleep")
    with pytest.raises(MessageError, match="'sleep'"):
        Event.from_json(EVENT.to_json().replace('"blur"', '"sleep"'))


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "7", "null", "{}", '{"stage":"blur"}', EVENT.to_json()[:-1]]
)
def test_a_line_that_is_no_event_is_refused_and_shown(line: str) -> None:
    with pytest.raises(MessageError, match="Not an event of schema 1") as caught:
        Event.from_json(line)
    assert repr(line[:80]) in str(caught.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
SAVED = replace(
    EVENT, stage="save", tile=-1, detail={"path": "a.png", "pixels_sha256": "d", "cpu_s": 1}
)
FAILED = replace(EVENT, stage="failed", tile=-1, detail={"error": "it is empty"})


@given(event=st.sampled_from([EVENT, SAVED, FAILED]), data=st.data())
def test_an_event_with_any_field_changed_is_refused_or_can_be_reported(
    event: Event, data: st.DataObject
) -> None:
    raw = asdict(event)
    place = data.draw(st.sampled_from([raw, raw["detail"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(anything)
    with suppress(MessageError):
        read = [Event.from_json(json.dumps(raw)), EVENT]
        readable(RunReport.of("f", "local", Timeline(read), {"workers": 1}))


@pytest.mark.parametrize("line", ["[" * 100_000, '{"detail":' * 50_000], ids=["lists", "objects"])
def test_a_line_that_is_nested_too_deep_is_refused(line: str) -> None:
    with pytest.raises(MessageError, match="Not an event"):
        Event.from_json(line)


def test_no_stage_is_both_a_span_and_a_mark() -> None:
    assert len(set(SPANS + MARKS)) == len(SPANS) + len(MARKS)


# --- clock and recorder --------------------------------------------------------------------------


class FakeClock(Clock):
    """Stands still until it is moved on."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time now."""
        return self.now


def test_a_clock_starts_at_the_epoch_time_given() -> None:
    clock = Clock(1000.0)
    assert 1000.0 <= clock() < 1060.0


def test_a_clock_starts_at_the_wall_time_when_none_is_given() -> None:
    before = time.time()
    now = Clock()()
    assert before - 1e-3 <= now <= time.time() + 1e-3


def test_a_clock_does_not_follow_a_jump_of_the_system_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    before = clock()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert before <= clock() < before + 60.0


def test_a_span_takes_from_the_start_of_its_body_to_its_end_with_what_the_body_notes() -> None:
    kept: list[Event] = []
    clock = FakeClock(10.0)
    with Recorder(kept.append, "worker-1", clock).span("blur", "a.png", 7, 2) as detail:
        clock.now = 12.5
        detail["path"] = "b.png"
        assert kept == []
    del kept[0].detail["cpu_s"]
    expected = Event("blur", 10.0, 12.5, "worker-1", "MainThread", "a.png", 7, 2, {"path": "b.png"})
    assert kept == [expected]
    assert kept[0].seconds == 2.5


def test_a_mark_takes_no_time() -> None:
    kept: list[Event] = []
    Recorder(kept.append, clock=FakeClock(10.0)).mark("dead", "a.png", 7, 3, error="poison")
    assert kept == [
        Event("dead", 10.0, 10.0, "main", "MainThread", "a.png", 7, 3, {"error": "poison"})
    ]


def test_the_lane_of_an_event_is_the_name_of_its_thread() -> None:
    kept: list[Event] = []
    recorder = Recorder(kept.append)
    thread = threading.Thread(target=recorder.mark, args=("run",), name="worker-3")
    thread.start()
    thread.join()
    assert [event.lane for event in kept] == ["worker-3"]


# --- files ---------------------------------------------------------------------------------------


def numbered(count: int, **fields: Any) -> list[Event]:
    return [replace(EVENT, tile=n, **fields) for n in range(count)]


def write(folder: Path, process: str, written: Iterable[Event]) -> Path:
    file = EventFile(folder, process)
    for event in written:
        file(event)
    return file.path


def test_an_event_is_in_its_file_at_once(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "events", "worker-1")
    file(EVENT)
    assert (tmp_path / "events" / "worker-1.jsonl").read_text() == EVENT.to_json() + "\n"


def test_a_restarted_process_goes_on_in_its_file(tmp_path: Path) -> None:
    first, second = numbered(2)
    assert write(tmp_path, "worker-1", [first]) == write(tmp_path, "worker-1", [second])
    assert EventTail(tmp_path).read() == [first, second]


def test_what_was_recorded_survives_the_kill_of_its_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from studyguide.record.timeline import EventFile, Recorder\n"
        "recorder = Recorder(EventFile(Path(sys.argv[1]), 'worker-1'), 'worker-1')\n"
        "for n in range(100):\n"
        "    recorder.mark('run', tile=n)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [event.tile for event in EventTail(tmp_path).read()] == list(range(100))


def test_threads_share_a_file_without_mixing_their_lines(tmp_path: Path) -> None:
    file = EventFile(tmp_path, "worker-1")
    recorder = Recorder(file)

    def record(lane: int) -> None:
        for n in range(200):
            recorder.mark("run", "x" * 500, tile=n, lane=lane)

    threads = [threading.Thread(target=record, args=(lane,)) for lane in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = EventTail(tmp_path).read()
    for lane in range(4):
        mine = [event.tile for event in read if event.detail["lane"] == lane]
        assert mine == list(range(200))


def test_a_folder_without_events_gives_none(tmp_path: Path) -> None:
    assert EventTail(tmp_path).read() == []
    assert EventTail(tmp_path / "nowhere").read() == []


def test_each_read_gives_what_is_new_of_all_files(tmp_path: Path) -> None:
    tail = EventTail(tmp_path)
    first, second, third = numbered(3)
    write(tmp_path, "worker-1", [first])
    assert tail.read() == [first]
    assert tail.read() == []
    write(tmp_path, "worker-2", [second])
    write(tmp_path, "worker-1", [third])
    assert tail.read() == [third, second]
    assert tail.read() == []


def test_a_half_written_line_waits_for_its_other_half(tmp_path: Path) -> None:
    tail, path = EventTail(tmp_path), tmp_path / "worker-1.jsonl"
    first, second = numbered(2)
    line = second.to_json() + "\n"
    path.write_text(first.to_json() + "\n" + line[:20])
    assert tail.read() == [first]
    assert tail.read() == []
    with path.open("a") as file:
        file.write(line[20:-1])
    assert tail.read() == []
    with path.open("a") as file:
        file.write("\n")
    assert tail.read() == [second]


@given(written=st.lists(events, max_size=5), data=st.data())
def test_a_file_that_grows_by_any_pieces_gives_each_event_once_and_in_order(
    written: list[Event], data: st.DataObject
) -> None:
    whole = "".join(event.to_json() + "\n" for event in written).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    read: list[Event] = []
    with tempfile.TemporaryDirectory() as folder:
        tail, path = EventTail(Path(folder)), Path(folder) / "worker-1.jsonl"
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            with path.open("ab") as file:
                file.write(whole[start:end])
            read += tail.read()
    assert read == written


# --- timelines -----------------------------------------------------------------------------------


def span(stage: str, start: float, end: float, tile: int = 0, image: str = "a.png") -> Event:
    return Event(stage, start, end, "main", "MainThread", image, tile)


@given(kept=st.lists(events))
def test_a_timeline_sorts_its_events_by_start_and_keeps_them_all(kept: list[Event]) -> None:
    timeline = Timeline(kept)
    starts = [event.start for event in timeline.events]
    assert starts == sorted(starts)
    assert sorted(map(repr, timeline.events)) == sorted(map(repr, kept))
    if kept:
        assert timeline.start == min(event.start for event in kept)
        assert timeline.end == max(event.end for event in kept)
        assert timeline.seconds == timeline.end - timeline.start


def test_an_empty_timeline_takes_no_time_and_has_no_lanes() -> None:
    empty = Timeline([])
    assert (empty.start, empty.end, empty.seconds) == (0.0, 0.0, 0.0)
    assert empty.lanes() == []
    assert empty.queue_depth() == []


def test_events_are_picked_by_their_stages() -> None:
    load, blur, save = span("load", 0, 1), span("blur", 1, 2), span("save", 2, 3)
    timeline = Timeline([save, blur, load])
    assert timeline.of("load", "save") == [load, save]
    assert timeline.of("dead") == []


def test_lanes_are_grouped_by_process_in_order_of_first_appearance() -> None:
    def event(start: float, process: str, lane: str) -> Event:
        return Event("blur", start, start + 1, process, lane)

    timeline = Timeline(
        [
            event(3, "coordinator", "pool-1"),
            event(1, "worker-2", "pool-0"),
            event(2, "worker-1", "pool-0"),
            event(0, "coordinator", "MainThread"),
            event(4, "worker-2", "MainThread"),
            event(5, "worker-2", "pool-0"),
        ]
    )
    assert timeline.lanes() == [
        ("coordinator", "MainThread"),
        ("coordinator", "pool-1"),
        ("worker-2", "pool-0"),
        ("worker-2", "MainThread"),
        ("worker-1", "pool-0"),
    ]


# --- queue depth ---------------------------------------------------------------------------------


def test_the_queue_grows_with_each_tile_enqueued_and_shrinks_with_each_delivered() -> None:
    timeline = Timeline(
        [
            span("enqueue", 0, 1, tile=0),
            span("enqueue", 1, 2, tile=1),
            span("wait", 0, 3, tile=0),
            span("enqueue", 2, 4, tile=2),
            span("wait", 3, 5, tile=1),
            span("wait", 5, 6, tile=2),
        ]
    )
    assert timeline.queue_depth() == [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1), (6, 0)]


def test_tiles_of_the_same_index_in_two_images_are_two_tiles() -> None:
    timeline = Timeline(
        [
            span("enqueue", 0, 1, image="a.png"),
            span("enqueue", 0, 2, image="b.png"),
            span("wait", 0, 3, image="b.png"),
        ]
    )
    assert timeline.queue_depth() == [(1, 1), (2, 2), (3, 1)]


def test_a_redelivery_takes_no_further_tile_out_of_the_queue() -> None:
    timeline = Timeline(
        [
            span("enqueue", 0, 1, tile=0),
            span("enqueue", 0, 2, tile=1),
            span("wait", 0, 3, tile=0),
            replace(span("wait", 3, 4, tile=0), attempt=2),
        ]
    )
    assert timeline.queue_depth() == [(1, 1), (2, 2), (3, 1)]


def test_a_wait_for_nothing_changes_no_depth() -> None:
    timeline = Timeline([span("enqueue", 0, 1, tile=0), span("wait", 0, 2, tile=-1)])
    assert timeline.queue_depth() == [(1, 1)]


@given(tiles=st.lists(st.tuples(moments, moments), max_size=8))
def test_the_queue_is_never_negative_and_empty_in_the_end_even_if_a_delivery_is_noted_first(
    tiles: list[tuple[float, float]],
) -> None:
    """A consumer may record that it has a tile before the producer records that it put it in."""
    enqueued = [span("enqueue", 0, end, tile=n) for n, (end, _) in enumerate(tiles)]
    delivered = [span("wait", 0, end, tile=n) for n, (_, end) in enumerate(tiles)]
    depths = [depth for _, depth in Timeline(enqueued + delivered).queue_depth()]
    assert all(0 <= depth <= len(tiles) for depth in depths)
    assert depths[-1:] in ([], [0])


def test_a_line_that_a_full_disk_cut_off_is_skipped_and_not_joined_to_the_next(
    tmp_path: Path,
) -> None:
    (tmp_path / "worker-0.jsonl").write_text('{"stage": "blur", "sta')
    Recorder(EventFile(tmp_path, "worker-0")).mark("run")
    assert [event.stage for event in EventTail(tmp_path).read()] == ["run"]


def test_a_field_that_a_later_version_adds_is_ignored() -> None:
    event = Event("run", 1.0, 1.0, "main", "lane")
    line = event.to_json().replace("{", '{"weather": "fine", ', 1)
    assert Event.from_json(line) == event


# --- the critical path ---------------------------------------------------------------------------


def on(lane: str, *spans: Event) -> list[Event]:
    """The same spans on a lane of their own, in a process of the same name."""
    return [replace(event, process=lane, lane=lane) for event in spans]


def path_of(*lanes: list[Event]) -> list[str]:
    timeline = Timeline(event for lane in lanes for event in lane)
    return [f"{event.stage} {event.lane}" for event in critical_path(timeline)]


def test_one_lane_is_its_own_critical_path() -> None:
    steps = on("main", span("load", 0, 1), span("blur", 1, 5), span("save", 5, 6))
    assert path_of(steps) == ["load main", "blur main", "save main"]
    assert path_of() == []


def work(enqueued: float, started: float) -> list[list[Event]]:
    """One tile through coordinator, worker and assembler."""
    begin = max(enqueued, started)
    return [
        on("coordinator", span("load", 0, 1), span("enqueue", 1, enqueued, tile=0)),
        on(
            "worker",
            span("start", 0, started, image=""),
            span("wait", started, begin, tile=0),
            span("blur", begin, begin + 2, tile=0),
            span("transfer", begin + 2, begin + 3, tile=0),
        ),
        on("assembler", span("assemble", begin + 3, begin + 4, tile=0)),
        on("main", span("save", begin + 4, begin + 5)),
    ]


def test_a_loader_that_had_to_wait_for_a_place_in_memory_waited_for_a_save() -> None:
    loader = on("loader", span("load", 0, 1), span("load", 5, 6, image="b.png"))
    one = on("one", span("assemble", 1, 2), span("save", 2, 5))
    two = on("two", span("assemble", 6, 7, image="b.png"), span("save", 7, 8, image="b.png"))
    steps = ["load loader", "assemble one", "save one", "load loader", "assemble two", "save two"]
    assert path_of(loader, one, two) == steps


TAIL = [
    "wait worker",
    "blur worker",
    "transfer worker",
    "assemble assembler",
    "save main",
]


def test_the_path_follows_a_tile_from_who_made_it_last_to_who_saves_it() -> None:
    made = ["load coordinator", "enqueue coordinator"]
    assert path_of(*work(enqueued=4, started=2)) == made + TAIL
    assert path_of(*work(enqueued=2, started=4)) == ["start worker", *TAIL]


def test_a_tile_that_is_taken_before_its_put_returns_still_comes_from_its_producer() -> None:
    lanes = work(enqueued=4, started=2)
    lanes[0][1] = replace(lanes[0][1], end=4.5)
    assert path_of(*lanes)[:3] == [
        "load coordinator",
        "enqueue coordinator",
        TAIL[0],
    ]


def test_the_path_goes_through_the_slower_of_two_workers() -> None:
    slow = [span("blur", 0, 5, tile=0), span("transfer", 5, 6, tile=0)]
    fast = [span("blur", 0, 6, tile=1), span("transfer", 6, 6.5, tile=1)]
    joined = [span("assemble", *times) for times in ((3, 4, 2), (6, 7, 0), (7, 8, 1))]
    path = path_of(
        on("slow", *slow), on("fast", *fast), on("assembler", *joined, span("save", 8, 9))
    )
    assert path[:3] == ["blur slow", "transfer slow", "assemble assembler"]


def test_an_image_that_is_assembled_at_once_waits_for_its_last_tile() -> None:
    first = on("worker-0", span("blur", 0, 1, tile=0), span("transfer", 1, 2, tile=0))
    last = on("worker-1", span("blur", 0, 5, tile=1), span("transfer", 5, 6, tile=1))
    joined = [span("assemble", 7, 8, tile=0), span("assemble", 8, 9, tile=1), span("save", 9, 10)]
    assert path_of(first, last, on("assembler", *joined))[:3] == [
        "blur worker-1",
        "transfer worker-1",
        "assemble assembler",
    ]


def test_an_image_may_be_assembled_before_the_last_transfer_returns() -> None:
    early = on("worker-0", span("blur", 0, 1, tile=0), span("transfer", 1, 2, tile=0))
    last = on("worker-1", span("blur", 0, 5, tile=1), span("transfer", 5, 9, tile=1))
    joined = [span("assemble", 6, 7, tile=0), span("assemble", 7, 8, tile=1), span("save", 8, 9.5)]
    assert path_of(early, last, on("assembler", *joined))[:2] == [
        "blur worker-1",
        "transfer worker-1",
    ]


def test_a_process_that_was_started_again_waited_for_its_second_start() -> None:
    lanes = work(enqueued=2, started=1)
    again = replace(span("start", 4, 10, image=""), process="worker", lane="again")
    second = [span("wait", 10, 11, tile=1), span("transfer", 11, 12, tile=1)]
    joined = [span("assemble", 12, 13, tile=1), span("save", 13, 14)]
    late = replace(span("start", 14, 99, image=""), process="worker", lane="late")
    lanes[0].append(replace(span("enqueue", 2, 3, tile=1), process="coordinator"))
    path = path_of(*lanes, [again], on("worker", *second), on("assembler", *joined), [late])
    assert path[-5:-2] == ["start again", "wait worker", "transfer worker"]


def test_a_free_worker_that_takes_a_tile_over_waited_for_the_one_that_had_it() -> None:
    start = replace(span("start", 0, 1, image=""), process="dead", lane="a lane of its own")
    dead = [start, *on("dead", span("wait", 1, 2, tile=0))]
    idle = on(
        "idle",
        span("start", 0, 3, image=""),
        replace(span("wait", 8, 9, tile=0), attempt=2),
        span("blur", 9, 10, tile=0),
    )
    expected = [
        "start a lane of its own",
        "wait dead",
        "wait idle",
        "blur idle",
    ]
    assert path_of(dead, idle) == expected
    busy = on("idle", span("start", 0, 8, image=""), *idle[1:])
    assert path_of(dead, busy) == ["start idle", *expected[2:]]


@given(found=st.lists(events, max_size=20))
def test_whatever_the_events_say_the_path_is_a_way_through_them_without_a_loop(
    found: list[Event],
) -> None:
    path = critical_path(Timeline(found))
    assert len(path) <= sum(event.stage in SPANS for event in found)
    assert bool(path) == any(event.stage in SPANS for event in found)


def steps_of(*lanes: list[Event]) -> list[tuple[str, str, float, float]]:
    timeline = Timeline(event for lane in lanes for event in lane)
    return [(step.stage, step.image, step.start, step.end) for step in critical_path(timeline)]


def test_the_first_load_of_a_loader_may_have_waited_for_a_place_too() -> None:
    first = on("loader-0", span("load", 0, 1))
    one = on("one", span("assemble", 1, 2), span("save", 2, 5))
    second = on("loader-1", span("load", 5, 6, image="b.png"))
    two = on("two", span("assemble", 6, 7, image="b.png"), span("save", 7, 8, image="b.png"))
    begin = ["load loader-0", "assemble one", "save one", "load loader-1"]
    steps = [*begin, "assemble two", "save two"]
    assert path_of(first, one, second, two) == steps


def lost_tile() -> list[list[Event]]:
    """Tile 1 is lost, after tile 0 was assembled and another image saved."""
    silent = replace(span("wait", 6, 9, tile=-1), detail={"cause": "silence"})
    failed = replace(span("failed", 9, 9, tile=-1), detail={"error": "1 tile was lost"})
    made = [span("load", 0, 1), span("enqueue", 1, 2, tile=0), span("enqueue", 2, 3, tile=1)]
    taken = [span("wait", 1, 2, tile=0), span("blur", 2, 4, tile=0), span("transfer", 4, 5, tile=0)]
    return [
        on("coordinator", *made, silent, failed),
        on("worker", *taken),
        on("assembler", span("save", 3, 4, image="b.png"), span("assemble", 5, 6, tile=0)),
    ]


def test_with_a_lost_tile_the_path_goes_on_through_the_silence_to_the_end_of_the_run() -> None:
    assert path_of(*lost_tile())[-3:] == [
        "transfer worker",
        "assemble assembler",
        "wait coordinator",
    ]
    assert steps_of(*lost_tile())[-1][2:] == (6, 9)


def test_a_run_that_ends_with_a_failed_image_ends_its_path_there() -> None:
    saved = on("assembler", span("save", 1, 2, image="b.png"), span("assemble", 3, 5, tile=0))
    failed = replace(span("failed", 6, 6, tile=-1), detail={"error": "a dead tile"})
    assert path_of([*saved, *on("assembler", failed)]) == ["save assembler", "assemble assembler"]
    elsewhere = on("main", failed)
    assert path_of(saved, elsewhere) == ["save assembler"]


def test_a_worker_that_is_frozen_after_its_commit_does_not_turn_the_path_back_in_time() -> None:
    """Its transfer ends only when it goes on, long after the tile was assembled and saved."""
    frozen = on("worker", span("blur", 0, 2), span("transfer", 2, 99))
    last = on("assembler", span("assemble", 3, 4), span("save", 4, 5))
    assert steps_of(frozen, last) == [
        ("blur", "a.png", 0, 2),
        ("transfer", "a.png", 2, 3),
        ("assemble", "a.png", 3, 4),
        ("save", "a.png", 4, 5),
    ]


few = st.sampled_from(["a", "b"])
streams = st.lists(
    st.builds(
        Event,
        st.sampled_from(SPANS + MARKS),
        st.integers(0, 20),
        st.integers(0, 20),
        few,
        few,
        few,
        st.integers(-1, 2),
        st.integers(1, 2),
        st.sampled_from([{}, {"cause": "silence"}, {"cause": "backoff"}]),
    ).filter(lambda event: event.start <= event.end),
    max_size=30,
)


@given(found=streams)
def test_steps_of_the_path_follow_each_other_in_time_and_lie_in_their_spans(
    found: list[Event],
) -> None:
    path, timeline = critical_path(Timeline(found)), Timeline(found)
    for step, following in pairwise(path):
        assert step.end <= following.start
    for step in path:
        assert timeline.start <= step.start <= step.end <= timeline.end
