"""A report is computed from events, written to a log, read back and compared."""

import errno
import json
import os
import tempfile
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyguide.errors import MessageError, StudyguideError, UsageError
from studyguide.record.report import (
    FATES,
    QUEUED,
    Ledger,
    RunReport,
    comparison,
    machine,
    newest_log,
    read_log,
    readable,
    write_log,
)
from studyguide.record.timeline import Event, Timeline
from studyguide.settings import Settings, describe

EPOCH = 1_700_000_000.0  # 2023-11-14T22:13:20 UTC
SETTINGS = describe(Settings(workers=2))


class Script:
    """Writes the events of a run that never was, each half a second after the one before."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, stage: str, tile: int = -1, image: str = "a.png", **detail: Any) -> "Script":
        start = EPOCH + 0.5 * len(self.events)
        lane = "worker-0" if stage in ("wait", "blur") else "MainThread"
        self.events.append(Event(stage, start, start + 0.25, "main", lane, image, tile, 1, detail))
        return self

    def save(self, image: str = "a.png", digest: str = "d1") -> "Script":
        return self.add("save", image=image, path=f"output/{image}", pixels_sha256=digest)

    def timeline(self) -> Timeline:
        return Timeline(self.events)

    def report(self, approach: str = "b") -> RunReport:
        return RunReport.of(approach, "local", self.timeline(), SETTINGS)


def whole_run(digest: str = "d1") -> Script:
    """One image of two tiles: nothing goes wrong."""
    script = Script().add("run", image="").add("load")
    for tile in range(2):
        script.add("enqueue", tile).add("wait", tile).add("blur", tile, cpu_s=0.125)
        script.add("transfer", tile).add("assemble", tile)
    return script.save(digest=digest)


# --- the ledger ----------------------------------------------------------------------------------


def test_in_a_run_without_trouble_every_tile_is_counted_once() -> None:
    assert Ledger.of(whole_run().timeline()) == Ledger(2, 2, 2, 0, 0, 0, 0)


def test_a_tile_that_is_delivered_three_times_is_redelivered_twice() -> None:
    script = whole_run().add("wait", 1).add("wait", 1)
    ledger = Ledger.of(script.timeline())
    assert (ledger.enqueued, ledger.delivered, ledger.redelivered) == (2, 4, 2)


def test_tiles_of_the_same_index_in_two_images_are_two_tiles() -> None:
    script = Script()
    for image in ("a.png", "b.png"):
        script.add("enqueue", 0, image).add("wait", 0, image).add("assemble", 0, image)
    assert Ledger.of(script.timeline()) == Ledger(2, 2, 2, 0, 0, 0, 0)


def test_a_tile_that_is_assembled_or_enqueued_again_is_still_one_tile() -> None:
    ledger = Ledger.of(whole_run().add("enqueue", 0).add("assemble", 0).timeline())
    assert (ledger.enqueued, ledger.assembled) == (2, 2)


def test_each_duplicate_result_is_counted() -> None:
    assert Ledger.of(Script().add("duplicate", 3).add("duplicate", 3).timeline()).duplicates == 2


def test_dead_letters_and_lost_tiles_are_distinct_tiles() -> None:
    script = Script().add("dead", 3).add("dead", 3).add("lost", 4).add("lost", 4).add("lost", 5)
    ledger = Ledger.of(script.timeline())
    assert (ledger.dead_letters, ledger.lost) == (1, 2)


def test_a_wait_that_brought_no_tile_is_no_delivery() -> None:
    assert Ledger.of(Script().add("wait").timeline()).delivered == 0


@given(
    stages=st.lists(
        st.tuples(
            st.sampled_from([*QUEUED, *FATES, "split", "save"]),
            st.integers(-1, 3),
        )
    )
)
def test_whatever_the_events_are_the_ledger_adds_up(stages: list[tuple[str, int]]) -> None:
    script = Script()
    for stage, tile in stages:
        script.save() if stage == "save" else script.add(stage, tile)
    assert_adds_up(Ledger.of(script.timeline()))


def assert_adds_up(ledger: Ledger) -> None:
    ended = ledger.assembled + ledger.dead_letters + ledger.lost
    assert ledger.enqueued == ended + ledger.in_doubt
    assert ledger.delivered >= ledger.assembled + ledger.dead_letters + ledger.redelivered


# Which process (coordinator, worker, assembler) writes which events of a tile, by its end.
ROADS = {
    "assemble": "c:enqueue w:wait w:blur w:transfer a:assemble",
    "dead": "c:enqueue w:wait w:retry w:wait w:dead",
    "lost": "c:enqueue w:wait c:lost",
    "lost again": "c:enqueue w:wait w:transfer a:assemble c:lost",
    "thawed": "c:enqueue w:wait c:lost w:transfer a:assemble",
}
ENDS = {"lost again": "lost", "thawed": "assemble"}


@given(
    roads=st.lists(st.sampled_from(sorted(ROADS)), min_size=1, max_size=6),
    saved=st.booleans(),
    left=st.fixed_dictionaries({process: st.none() | st.integers(0, 20) for process in "cwa"}),
)
def test_the_last_events_of_the_killed_are_there_or_their_tiles_are_in_doubt(
    roads: list[str], saved: bool, left: dict[str, int | None]
) -> None:
    """`left` says how many events of each process are left; None: all, it was not killed."""
    script, known, killed = Script(), dict[int, str](), any(n is not None for n in left.values())
    steps = zip_longest(*(ROADS[road].split() for road in roads))
    for tile, step in ((tile, step) for row in steps for tile, step in enumerate(row) if step):
        process, stage = step.split(":")
        if left[process] != 0:
            left[process] = left[process] and left[process] - 1
            script.add(stage, tile)
            known[tile] = stage if stage in FATES else known.get(tile, "")
    ends = [ENDS.get(road, road) for road in roads]
    if saved and set(ends) == {"assemble"}:
        script.save()
        known = dict.fromkeys(known, "assemble")
    ledger = Ledger.of(script.timeline())
    assert_adds_up(ledger)
    assert ledger.enqueued == len(known)
    assert ledger.in_doubt == list(known.values()).count("")
    assert killed or (ledger.assembled, ledger.dead_letters, ledger.lost, ledger.in_doubt) == (
        *(ends.count(fate) for fate in FATES),
        0,
    )


def test_what_the_others_saw_of_a_killed_process_is_counted() -> None:
    """A worker took its events along, then the coordinator, then the assembler."""
    without_worker = Script().add("enqueue", 0).add("assemble", 0)
    without_coordinator = Script().add("wait", 0).add("assemble", 0)
    without_assembler = Script().add("enqueue", 0).add("wait", 0).save()
    for script in (without_worker, without_coordinator, without_assembler):
        ledger = Ledger.of(script.timeline())
        assert (ledger.enqueued, ledger.delivered, ledger.assembled) == (1, 1, 1)
    assert Ledger.of(Script().add("split", 0).timeline()).enqueued == 0
    assert Ledger.of(Script().add("enqueue", 0).add("wait", 0).timeline()).in_doubt == 1


# --- the report ----------------------------------------------------------------------------------


def test_a_report_says_what_its_events_say() -> None:
    report = whole_run().report()
    assert (report.approach, report.backend) == ("b", "local")
    assert (report.images, report.tiles, report.workers) == (1, 2, 2)
    assert report.wall_s == 0.5 * 12 + 0.25
    assert report.blur_s == 0.25
    assert report.started == "2023-11-14T22:13:20+00:00"
    assert report.outputs == [{"path": "output/a.png", "pixels_sha256": "d1"}]
    assert report.pixels() == {"a.png": "d1"}
    assert report.ledger == asdict(Ledger.of(report.timeline))
    assert report.failed_images == []
    assert report.ok


def test_without_cpu_time_a_blur_counts_with_its_duration() -> None:
    assert Script().add("blur", 0).add("blur", 1, cpu_s=1.0).report().blur_s == 1.25


def test_failed_images_are_listed_by_name_and_make_the_run_fail() -> None:
    script = whole_run().add("failed", image="z.png", error="z is empty.")
    report = script.add("failed", image="c.png", error="c is gone.").report()
    assert report.failed_images == [
        {"image": "c.png", "error": "c is gone."},
        {"image": "z.png", "error": "z is empty."},
    ]
    assert report.images == 3
    assert not report.ok


def test_a_run_without_output_is_not_ok() -> None:
    assert not Script().add("run", image="").report().ok


def test_a_run_with_a_tile_in_doubt_is_not_ok() -> None:
    report = whole_run().add("enqueue", 0, "b.png").report()
    assert report.ledger["in_doubt"] == 1
    assert "in_doubt      1" in readable(report)
    assert not report.ok
    del report.ledger["in_doubt"]  # as in the log of an earlier version
    assert report.ok


def test_the_last_word_on_an_image_decides() -> None:
    repaired = Script().add("failed", error="a.png is gone.").save().report()
    assert (repaired.failed_images, repaired.images, repaired.ok) == ([], 1, True)
    spoilt = whole_run().add("failed", error="a.png was changed.").report()
    assert (spoilt.outputs, spoilt.images, spoilt.ok) == ([], 1, False)
    assert [item["image"] for item in spoilt.failed_images] == ["a.png"]


def test_an_image_that_was_saved_twice_after_a_crash_counts_once() -> None:
    report = whole_run().save(digest="d2").report()
    assert report.outputs == [{"path": "output/a.png", "pixels_sha256": "d2"}]
    assert report.images == 1


def test_losses_stand_in_the_report() -> None:
    script = whole_run().add("lost", 7).add("dead", 8).add("wait", 1)
    report = script.report()
    assert (report.lost_tiles, report.dead_letters, report.redelivered) == (1, 1, 1)


def test_a_report_is_plain_json_without_its_timeline() -> None:
    report = whole_run().report()
    flat = json.loads(json.dumps(report.to_dict()))
    assert flat == report.to_dict()
    assert "timeline" not in flat
    promised = {
        *("approach", "backend", "images", "tiles", "workers", "wall_s", "blur_s", "lost_tiles"),
        *("redelivered", "dead_letters", "failed_images", "outputs"),
    }
    assert promised <= set(flat)


def test_the_machine_is_described_without_its_name() -> None:
    described = machine()
    assert described["cores"] == os.cpu_count()
    assert os.uname().nodename not in [str(value) for value in described.values()]


# --- logs ----------------------------------------------------------------------------------------


def test_a_log_comes_back_with_its_report_and_its_events(tmp_path: Path) -> None:
    report = whole_run().add("failed", image="z.png", error="z is “empty”.").report()
    path = write_log(report, tmp_path / "logs", "b_tile_parallel")
    back = read_log(path)
    assert back == report
    assert back.timeline.events == report.timeline.events


def test_a_log_of_a_run_without_events_comes_back(tmp_path: Path) -> None:
    report = Script().report()
    back = read_log(write_log(report, tmp_path, "b_tile_parallel"))
    assert back == report
    assert back.timeline.events == []


def test_a_log_is_a_text_and_a_json_named_by_stem_and_start(tmp_path: Path) -> None:
    write_log(whole_run().report(), tmp_path, "b_tile_parallel")
    name = "b_tile_parallel_20231114T221320.000000Z"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.json", f"{name}.txt"]


def test_a_log_of_another_schema_is_refused_and_both_versions_are_told(tmp_path: Path) -> None:
    path = write_log(whole_run().report(), tmp_path, "b_tile_parallel")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))
    with pytest.raises(MessageError, match="has schema 2, not 1") as caught:
        read_log(path)
    assert str(path) in caught.value.problem
    assert caught.value.remedy == "Record it again"


def test_a_log_whose_report_has_a_field_more_is_read(tmp_path: Path) -> None:
    report = whole_run().report()
    path = write_log(report, tmp_path, "b_tile_parallel")
    log = json.loads(path.read_text())
    log["report"]["energy_j"] = 12.0
    path.write_text(json.dumps(log))
    assert read_log(path) == report


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"schema": 1}',
        '{"schema": 1, "report": {}, "events": []}',
        '{"schema": 1, "report": [], "events": []}',
        '{"schema": 1, "report": null, "events": null}',
        b"\xff\xfe\x00",
    ],
)
def test_a_file_that_is_no_log_is_refused_by_name(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "b_tile_parallel_1.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(MessageError) as caught:
        read_log(path)
    assert str(path) in caught.value.problem


@pytest.mark.parametrize(
    "event", [None, {}, [], {"stage": "sleep"}, {"stage": "blur", "start": 0}], ids=str
)
def test_a_log_with_a_damaged_event_is_refused(event: object, tmp_path: Path) -> None:
    path = write_log(whole_run().report(), tmp_path, "b_tile_parallel")
    log = json.loads(path.read_text())
    log["events"][3] = event
    path.write_text(json.dumps(log))
    with pytest.raises(MessageError):
        read_log(path)


@given(data=st.data())
def test_a_log_with_any_field_changed_is_refused_by_name_or_can_be_shown(
    data: st.DataObject,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_log(whole_run().report(), Path(folder), "b")
        log = json.loads(path.read_text())
        place: Any = log
        while isinstance(place, (dict, list)) and place:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = data.draw(st.sampled_from(keys))
            owner, place = place, place[key]
            if data.draw(st.booleans()):
                break
        owner[key] = data.draw(st.sampled_from([None, [], {}, "x", -1, 1e300, [7], {"x": 7}]))
        path.write_text(json.dumps(log))
        try:
            report = read_log(path)
        except MessageError as refusal:
            told = str(refusal)
        else:
            told = readable(report) + comparison([report]) + str(path)
        assert str(path) in told


def test_a_truncated_log_is_refused(tmp_path: Path) -> None:
    path = write_log(whole_run().report(), tmp_path, "b_tile_parallel")
    whole = path.read_text()
    for end in range(0, len(whole) - 2, 97):
        path.write_text(whole[:end])
        with pytest.raises(MessageError):
            read_log(path)


def test_the_newest_log_of_an_approach_is_found(tmp_path: Path) -> None:
    for hours in (3, 1, 2):
        script = whole_run()
        script.events = [
            replace(event, start=event.start + 3600 * hours, end=event.end + 3600 * hours)
            for event in script.events
        ]
        write_log(script.report(), tmp_path, "b_tile_parallel")
    write_log(whole_run().report(), tmp_path, "c_tile_image_parallel")
    newest = newest_log(tmp_path, "b_tile_parallel")
    assert newest.name == "b_tile_parallel_20231115T011320.000000Z.json"


def test_without_a_log_the_command_that_makes_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="studyguide run b") as caught:
        newest_log(tmp_path, "b_tile_parallel")
    assert str(tmp_path) in caught.value.problem


def test_a_full_disk_leaves_no_half_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(StudyguideError, match="No space left on device") as caught:
        write_log(whole_run().report(), tmp_path, "b_tile_parallel")
    assert str(tmp_path) in caught.value.problem
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_logs_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with pytest.raises(StudyguideError, match="cannot be written") as caught:
        write_log(whole_run().report(), tmp_path / "logs", "b_tile_parallel")
    assert str(tmp_path / "logs") in caught.value.problem


def test_the_readable_log_shows_times_workers_ledger_failures_and_digests() -> None:
    script = whole_run(digest="5eed" * 16).add("failed", image="z.png", error="z is empty.")
    text = readable(script.report())
    for line in (
        "approach b on backend local, started 2023-11-14T22:13:20+00:00",
        "wall time      6.750 s   images 2, tiles 2",
        "blur time      0.250 s   CPU, summed over 2 workers",
        "a.png                       0.250    0.500    0.250     5.750",
        "main worker-0                 2        0.500",
        "  enqueued      2",
        "  z.png: z is empty.",
        "  output/a.png  " + "5eed" * 16,
    ):
        assert line in text.splitlines()
    assert "tile_size 256" in text


def test_a_run_without_failures_says_so_in_its_readable_log() -> None:
    lines = readable(whole_run().report()).splitlines()
    assert lines[lines.index("failed images") + 1] == "  none"


@pytest.mark.parametrize(
    ("name", "shown"), [("日没.png", "日没.png"), ("caf\udce9.png", r"caf\udce9.png")]
)
def test_a_file_name_of_any_letters_and_bytes_can_be_logged(
    name: str, shown: str, tmp_path: Path
) -> None:
    report = whole_run().save(image=name).report()
    path = write_log(report, tmp_path, "b_tile_parallel")
    assert read_log(path) == report
    assert f"output/{shown}" in path.with_suffix(".txt").read_text("utf-8")


# --- the comparison ------------------------------------------------------------------------------


def last_words(table: str) -> list[str]:
    return [line.split()[-1] for line in table.splitlines()[1:]]


def test_the_comparison_says_of_each_run_whether_its_pixels_are_those_of_a() -> None:
    same, other = whole_run().report("b"), whole_run(digest="d2").report("e")
    table = comparison([whole_run().report("a"), same, other])
    assert "same pixels as a" in table.splitlines()[0]
    assert last_words(table) == ["yes", "yes", "no"]


@pytest.mark.parametrize(
    "script", [Script(), whole_run().save(image="more.png")], ids=["fewer", "more"]
)
def test_a_run_that_saved_fewer_or_more_images_than_a_has_other_pixels(script: Script) -> None:
    table = comparison([whole_run().report("a"), script.report("e")])
    assert last_words(table) == ["yes", "no"]


def test_outputs_are_compared_by_file_name_though_each_approach_has_its_folder() -> None:
    base = whole_run().report("a")
    moved = replace(base, approach="b", outputs=[{**base.outputs[0], "path": "elsewhere/a.png"}])
    assert last_words(comparison([base, moved])) == ["yes", "yes"]


def test_without_a_run_of_a_the_comparison_claims_neither_pixels_nor_speed_up() -> None:
    row = comparison([whole_run().report("b")]).splitlines()[1]
    assert row.split()[-1] == "-"
    assert "x" not in row


def test_the_comparison_shows_speed_up_and_losses_under_their_headings() -> None:
    base = replace(whole_run().report("a"), wall_s=6.0, workers=1)
    script = whole_run().add("enqueue", 2).add("wait", 2).add("wait", 2).add("dead", 2)
    script.add("lost", 0).add("lost", 1)
    run = replace(script.report("e"), wall_s=1.5, blur_s=3.25, workers=4)
    header, first, second = comparison([base, run]).splitlines()
    assert first.split() == [
        *("a", "local", "1", "2", "1", "6.00", "0.25", "1.00x", "0", "0", "0", "yes")
    ]
    assert second.split() == [
        *("e", "local", "1", "3", "4", "1.50", "3.25", "4.00x", "2", "1", "1", "yes")
    ]
    for heading in ("wall s", "blur s", "speed-up", "lost", "redelivered", "dead"):
        end = header.index(heading) + len(heading)
        assert second[end - 1] != " "
        assert second[end] == " "
