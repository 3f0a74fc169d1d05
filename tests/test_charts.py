"""Charts are checked for what they draw: lanes, faults, hatches, words and bytes."""

import io
import itertools
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch
from matplotlib.text import Text
from PIL import Image
from support import SMALL, make_images

from studyguide import __version__
from studyguide.approaches import APPROACHES
from studyguide.record.charts import MAX_BARS, comparison_figure, draw_all, timeline_figure
from studyguide.record.looks import FAULTS, LOOKS, Chart
from studyguide.record.report import RunReport, write_log
from studyguide.record.scene import Bar, Scene
from studyguide.record.timeline import MARKS, SPANS, Event, Timeline
from studyguide.runs import run
from studyguide_course.view import side_by_side

EPOCH = 1_700_000_000.0

# --- fabricated runs -----------------------------------------------------------------------------


class Script:
    """Writes the events of a run that never was; times in seconds from its start."""

    def __init__(self, seed: int = 1) -> None:
        self.events: list[Event] = []
        self.random = random.Random(seed)

    def add(
        self, who: str, stage: str, start: float, seconds: float, tile: int = -1, **detail: Any
    ) -> float:
        """Add a span or a mark on the lane `process/thread`; return its end."""
        process, _, thread = who.partition("/")
        if stage == "save":
            detail |= {"path": f"output/{process}.png", "pixels_sha256": "0" * 64}
        attempt, image = detail.pop("attempt", 1), detail.pop("image", "photo.png")
        begin, end = EPOCH + start, EPOCH + start + seconds
        lane = thread or "MainThread"
        self.events.append(Event(stage, begin, end, process, lane, image, tile, attempt, detail))
        return start + seconds

    def timeline(self) -> Timeline:
        return Timeline(self.events)


def sequential(images: int = 5) -> Timeline:
    """One thread does everything, image by image."""
    script, now = Script(), 0.0
    for image, stage in itertools.product(range(images), ("load", "blur", "save")):
        seconds = script.random.uniform(0.1, 0.3)
        now = script.add("main", stage, now, seconds, image=f"{image}.png")
    return script.timeline()


def pool(
    threads: int = 10, tiles: int = 200, process: str = "main", blur: float = 0.05
) -> Timeline:
    """One process: a coordinator fills a queue, threads blur, an assembler collects."""
    script, free = Script(), dict.fromkeys((f"{process}/worker-{n}" for n in range(threads)), 0.0)
    now = script.add(f"{process}/coordinator", "load", 0.0, 2 * blur)
    now = script.add(f"{process}/coordinator", "split", now, blur)
    done = now
    for tile in range(tiles):
        full_s = 2 * blur * (tile % 25 == 24)
        spent = full_s + blur / 20
        now = script.add(f"{process}/coordinator", "enqueue", now, spent, tile, full_s=full_s)
        worker = min(free, key=lambda name: free[name])
        ready = max(free[worker], now) + blur / 50
        script.add(worker, "wait", free[worker], ready - free[worker], tile)
        end = script.add(worker, "blur", ready, blur * script.random.uniform(0.6, 1.6), tile)
        free[worker] = script.add(worker, "transfer", end, blur / 10, tile)
        arrived = max(done, free[worker])
        script.add(f"{process}/assembler", "wait", done, arrived - done)
        done = script.add(f"{process}/assembler", "assemble", arrived, blur / 40, tile)
    script.add(f"{process}/assembler", "save", done, 3 * blur)
    return script.timeline()


def faulty() -> Timeline:
    """Four processes: worker-1 dies holding tile 7, worker-0 fails once and later reclaims 7."""
    script = Script()
    for n, process in enumerate(("coordinator", "worker-0", "worker-1", "worker-2")):
        script.add(process, "start", 0.0, 0.4 + 0.1 * n)
    now = script.add("coordinator/coordinator", "load", 0.4, 0.3)
    for tile in range(24):
        now = script.add("coordinator/coordinator", "enqueue", now, 0.01, tile)
    free = {"worker-0/t": 0.5, "worker-1/t": 0.6, "worker-2/t": 0.7}
    for tile in range(24):
        worker = min(free, key=lambda name: free[name])
        ready = max(free[worker], 0.75 + 0.01 * tile) + 0.02
        script.add(worker, "wait", free[worker], ready - free[worker], tile)
        if tile == 7:
            dead = worker
            script.add(worker.partition("/")[0], "death", ready + 0.2, 0.0, tile, exit_code=-9)
            free.pop(worker)
            continue
        end = script.add(worker, "blur", ready, script.random.uniform(0.1, 0.2), tile)
        if tile == 12:
            script.add(worker, "retry", end, 0.0, tile, error="disk full", delay_s=0.1)
            end = script.add(worker, "wait", end, 0.15, tile, attempt=2, cause="backoff")
            end = script.add(worker, "blur", end, 0.15, tile, attempt=2)
        free[worker] = script.add(worker, "transfer", end, 0.03, tile)
    worker = min(free, key=lambda name: free[name])
    taken = free[worker] + 0.4
    script.add(worker, "reclaim", taken, 0.0, 7, attempt=2, from_worker=dead)
    script.add(worker, "wait", free[worker], 0.4 + 1e-5, 7, attempt=2)
    end = script.add(worker, "blur", taken + 1e-5, 0.15, 7, attempt=2)
    end = script.add(worker, "transfer", end, 0.03, 7, attempt=2)
    script.add("coordinator/assembler", "wait", 0.5, end - 0.5)
    script.add("coordinator/assembler", "save", end, 0.2)
    return script.timeline()


def report_of(timeline: Timeline, approach: str = "f") -> RunReport:
    title = APPROACHES[approach].title
    return RunReport.of(approach, "local", timeline, {"workers": 3}, title)


def draw(timeline: Timeline) -> Chart:
    return timeline_figure(report_of(timeline))


def signs(chart: Chart, gid: str) -> list[Text]:
    """The texts and arrows that mark one kind of fault."""
    return [text for text in chart.axes[0].texts if text.get_gid() == gid]


def row(chart: Chart, name: str) -> float:
    """The height of the lane with this name."""
    labels = [label.get_text() for label in chart.axes[0].get_yticklabels()]
    return float(chart.axes[0].get_yticks()[labels.index(name)])


# --- looks ---------------------------------------------------------------------------------------


def test_every_stage_and_fault_of_the_schema_can_be_drawn() -> None:
    assert set(SPANS) <= set(LOOKS)
    assert set(FAULTS) == set(MARKS) - {"run"}


def test_stages_differ_in_colour_and_also_in_hatch() -> None:
    looks = [LOOKS[stage] for stage in SPANS]
    assert len({colour for _, colour, _, _ in looks}) == len(SPANS)
    assert len({hatch for _, _, hatch, _ in looks}) == len(SPANS)
    assert len({(colour, hatch) for _, colour, hatch, _ in LOOKS.values()}) == len(LOOKS)


def test_a_stage_looks_the_same_in_the_lanes_the_strip_and_the_legend() -> None:
    chart = draw(pool())
    lanes, strip = (
        next(artist for artist in axes.get_children() if artist.get_gid() == "transfer")
        for axes in chart.axes[:2]
    )
    handles = chart.legends[0].legend_handles
    handle = next(patch for patch in handles if patch.get_label() == "transfer")
    assert isinstance(lanes, PathPatch)
    assert isinstance(strip, PolyCollection)
    assert {artist.get_hatch() for artist in (lanes, strip, handle)} == {LOOKS["transfer"][2]}
    colours = (lanes.get_facecolor(), strip.get_facecolor()[0], handle.get_facecolor())
    assert {to_hex(colour).upper() for colour in colours} == {LOOKS["transfer"][1]}


# --- lanes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeline", "lanes"), [(sequential(), 1), (pool(10), 12), (pool(23), 25), (faulty(), 5)]
)
def test_each_thread_has_one_lane(timeline: Timeline, lanes: int) -> None:
    assert len(draw(timeline).axes[0].get_yticks()) == lanes


def test_a_process_with_several_threads_is_named_once_above_them() -> None:
    chart = draw(Timeline(pool(2, 8, "pod-1").events + pool(2, 8, "pod-2").events))
    assert [text.get_text() for text in chart.axes[0].texts] == ["pod-1", "pod-2"]


def test_lanes_stand_in_the_order_of_the_flow_and_of_their_numbers() -> None:
    names = [label.get_text() for label in draw(pool(11)).axes[0].get_yticklabels()]
    assert names == ["coordinator", *(f"worker-{n}" for n in range(11)), "assembler"]


def test_a_process_starts_on_the_lanes_of_its_threads_and_on_no_other() -> None:
    scene = Scene(faulty())
    started = {bar.lane for bar in scene.bars if bar.kind == "start"}
    assert started == set(scene.lanes)
    assert ("worker-0", "MainThread") not in scene.lanes


def test_the_height_grows_with_the_lanes_up_to_a_bound() -> None:
    heights = [draw(pool(threads, 300)).get_figheight() for threads in (1, 5, 25, 100, 300)]
    assert heights == sorted(heights)
    assert heights[2] < heights[3] == pytest.approx(heights[4])
    assert heights[4] < 15


def test_a_run_without_events_can_be_drawn() -> None:
    chart = draw(Timeline([]))
    assert chart.png()
    assert "lanes: 0" in chart.alt


# --- bars and shares -----------------------------------------------------------------------------


def test_each_span_is_one_box_at_its_time() -> None:
    timeline = pool()
    patch = next(p for p in draw(timeline).axes[0].patches if p.get_gid() == "blur")
    starts = sorted(patch.get_path().vertices[::5, 0])
    assert starts == pytest.approx(
        sorted(event.start - timeline.start for event in timeline.of("blur"))
    )


def test_a_line_marks_the_critical_path_from_the_start_to_the_end() -> None:
    timeline = pool()
    axes = draw(timeline).axes[0]
    (line,) = [line for line in axes.lines if line.get_gid() == "path"]
    x, y = line.get_data()
    assert [x[0], x[-1]] == pytest.approx([0, timeline.seconds])
    assert list(x) == sorted(x)
    lanes = [lane for lane, _, _ in Scene(timeline).path()]
    assert len(set(lanes)) > 2
    assert len(set(y)) == len(set(lanes))


def test_a_process_that_starts_twice_is_on_the_path_in_the_row_of_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts = [Event("start", n, n + 1, "worker-0", "MainThread") for n in (0, 2)]
    blur = Event("blur", 3, 4, "worker-0", "worker-0", "a.png", 0)
    monkeypatch.setattr("studyguide.record.scene.critical_path", lambda timeline: [*starts, blur])
    scene = Scene(Timeline([*starts, blur]))
    assert {lane for lane, _, _ in scene.path()} <= set(scene.lanes) == {("worker-0", "worker-0")}


def test_too_many_spans_become_shares_of_time() -> None:
    timeline = pool(10, 4000, blur=0.01)
    assert len(timeline.of(*SPANS)) > 4 * MAX_BARS
    axes = draw(timeline).axes[0]
    assert not axes.patches
    assert len(axes.collections) <= 12 * len(LOOKS)


@pytest.mark.parametrize("tiles", [40, 4000])
def test_the_area_of_the_utilisation_strip_is_the_time_spent_blurring(tiles: int) -> None:
    timeline = pool(4, tiles)
    strip = next(c for c in draw(timeline).axes[1].collections if c.get_gid() == "blur")
    x, y = strip.get_paths()[0].vertices.T
    area = abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
    assert area == pytest.approx(sum(event.seconds for event in timeline.of("blur")) / 4, rel=1e-6)


def kinds_of(approach: str, folder: Path, **options: Any) -> dict[str, list[Bar]]:
    """The bars of a real run by their kind."""
    places = {"images": make_images(folder / "in"), "output": folder / "out"}
    found: dict[str, list[Bar]] = {}
    for bar in Scene(run(approach, **SMALL | places | options).timeline).bars:
        found.setdefault(bar.kind, []).append(bar)
    return found


SLOW: Any = {"method": "direct", "kernel_size": 101}  # a tile takes longer to blur than to queue


@pytest.mark.parametrize("approach", "bcef")
def test_a_producer_of_a_real_run_is_seen_to_wait_for_room_in_a_full_queue(
    approach: str, tmp_path: Path
) -> None:
    found = kinds_of(approach, tmp_path, queue_size=1, workers=1, **SLOW)
    stages = {bar.span.stage for bar in found["full"]}
    assert "enqueue" in stages
    assert stages <= {"enqueue", "transfer"}
    for bar in found["full"]:
        assert 0 < bar.end - bar.start <= bar.span.seconds + 1e-6


def test_a_worker_of_a_real_run_is_seen_to_wait_for_the_back_off_of_a_flaky_tile(
    tmp_path: Path,
) -> None:
    options = {"workers": 1, "backoff_s": 0.5, "faults": ["flaky:grain.png:7"]}
    (wait,) = kinds_of("f", tmp_path, **options)["backoff"]
    assert (wait.span.image, wait.span.tile, wait.span.attempt) == ("grain.png", 7, 2)
    assert wait.end > wait.start


def test_the_silence_after_a_lost_tile_of_a_real_run_ends_the_critical_path(
    tmp_path: Path,
) -> None:
    places = {"images": make_images(tmp_path / "in"), "output": tmp_path / "out"}
    faults = ["flaky:grain.png:7"]  # in e it kills its worker
    report = run("e", workers=1, quiet_s=0.5, faults=faults, **SMALL, **places)
    (silence,) = (bar for bar in Scene(report.timeline).bars if bar.kind == "silence")
    assert report.lost_tiles == 1
    assert silence.end - silence.start >= 0.5
    assert Scene(report.timeline).path()[-1][2] == pytest.approx(silence.end)


def test_the_queue_strip_reaches_as_high_as_the_queue() -> None:
    timeline = pool()
    peak = max(depth for _, depth in timeline.queue_depth())
    axes = draw(timeline).axes[2]
    assert peak > 1
    assert axes.get_yticks().tolist() == [0, peak]
    assert axes.collections[0].get_paths()[0].vertices[:, 1].max() == peak


@pytest.mark.parametrize("thread", ["MainThread", "worker-0"])
def test_the_path_begins_with_the_start_of_a_process_whether_or_not_it_has_threads(
    thread: str,
) -> None:
    script = Script()
    now = script.add("worker-1/MainThread", "start", 0.0, 2.0, image="")
    for stage in ("wait", "blur", "transfer", "assemble", "save"):
        now = script.add(f"worker-1/{thread}", stage, now, 1.0, tile=0)
    assert Scene(script.timeline()).path() == [(("worker-1", thread), 0.0, now)]


# --- faults --------------------------------------------------------------------------------------


def test_a_death_is_a_cross_on_the_lane_that_held_the_tile() -> None:
    timeline = faulty()
    chart = draw(timeline)
    (cross,) = signs(chart, "death")
    (death,) = timeline.of("death")
    assert cross.get_position() == (death.start - timeline.start, row(chart, death.process))


def test_a_held_tile_is_shown_from_its_delivery_to_the_death() -> None:
    timeline = faulty()
    (death,) = timeline.of("death")
    delivery = next(wait for wait in timeline.of("wait") if wait.tile == death.tile)
    times = (delivery.end - timeline.start, death.start - timeline.start)
    assert Scene(timeline).held == [Bar("held", (death.process, "t"), *times, delivery)]


def test_a_process_that_dies_with_idle_hands_holds_nothing() -> None:
    script = Script()
    now = script.add("worker-0", "wait", 0.0, 1.0, tile=1)
    now = script.add("worker-0", "transfer", script.add("worker-0", "blur", now, 1.0, 1), 0.1, 1)
    script.add("worker-0", "death", now + 1.0, 0.0)
    assert Scene(script.timeline()).held == []
    assert len(signs(draw(script.timeline()), "death")) == 1


def test_whoever_dies_without_having_worked_gets_a_lane() -> None:
    script = Script()
    script.add("worker-0", "blur", 0.0, 1.0, tile=1)
    script.add("redis/redis", "death", 0.5, 0.0)
    assert Scene(script.timeline()).lanes == [("worker-0", "MainThread"), ("redis", "redis")]


def test_a_reclaim_is_an_arrow_from_the_death_to_the_lane_that_took_the_tile() -> None:
    timeline = faulty()
    chart = draw(timeline)
    (arrow,) = signs(chart, "reclaim")
    (death,), (reclaim,) = timeline.of("death"), timeline.of("reclaim")
    assert arrow.xyann == (death.start - timeline.start, row(chart, death.process))
    assert arrow.xy == (reclaim.start - timeline.start, row(chart, reclaim.process))


def test_a_reclaim_from_a_lane_that_is_still_alive_begins_at_its_delivery() -> None:
    script = Script()
    delivered = script.add("worker-0", "wait", 0.0, 1.0, tile=1)
    script.add("worker-1", "blur", 0.0, 0.5)
    script.add("worker-1", "reclaim", 3.0, 0.0, tile=1, from_worker="worker-0")
    scene = Scene(script.timeline())
    (reclaim,) = scene.faults
    assert scene.loser(reclaim) == (("worker-0", "MainThread"), pytest.approx(delivered))


def test_a_reclaim_from_nobody_we_know_is_a_sign_on_the_lane_that_took_the_tile() -> None:
    script = Script()
    script.add("worker-1", "blur", 0.0, 1.0)
    script.add("worker-1", "reclaim", 0.5, 0.0, tile=1, from_worker="worker-9")
    (sign,) = signs(draw(script.timeline()), "reclaim")
    assert sign.get_text() == FAULTS["reclaim"][0]


def test_a_retry_bears_the_number_of_the_attempt() -> None:
    (sign,) = signs(draw(faulty()), "retry")
    assert sign.get_text() == FAULTS["retry"][0] + "1"


@pytest.mark.parametrize("stage", ["duplicate", "dead", "lost", "failed"])
def test_every_other_fault_has_a_sign_and_a_legend(stage: str) -> None:
    script = Script()
    script.add("main", "blur", 0.0, 1.0)
    script.add("main", stage, 0.5, 0.0, tile=1, error="disk full")
    chart = draw(script.timeline())
    (sign,) = signs(chart, stage)
    assert sign.get_text() == FAULTS[stage][0]
    assert FAULTS[stage][1] in [text.get_text() for text in chart.legends[0].get_texts()]


def test_faults_are_also_marked_where_spans_became_shares() -> None:
    many = pool(10, 4000, blur=0.001)
    assert len(signs(draw(Timeline(many.events + faulty().events)), "death")) == 1


# --- words ---------------------------------------------------------------------------------------


def test_the_alt_text_counts_faults_and_says_how_busy_the_workers_were() -> None:
    timeline = faulty()
    busy = sum(event.seconds for event in timeline.of("blur")) / 3 / timeline.seconds
    text = draw(timeline).alt
    assert f"blurring {100 * busy:.0f} %" in text
    assert "dead threads: 1, reclaims: 1, retries: 1" in text


def test_the_alt_text_says_that_there_were_no_faults() -> None:
    assert "no faults" in draw(sequential()).alt


def test_the_title_says_what_was_run_and_how_long_it_took() -> None:
    timeline = pool()
    title = draw(timeline).texts[0].get_text()
    assert title == f"f fault-tolerant queue: 1 image, 200 tiles in {timeline.seconds:.2f} s"


def test_a_notebook_shows_a_chart_once_and_can_compare_its_text() -> None:
    timeline = pool()
    slower = Timeline(
        replace(event, start=2 * event.start - EPOCH, end=2 * event.end - EPOCH)
        for event in timeline.events
    )
    first, metadata = DisplayFormatter().format(draw(timeline))
    second, _ = DisplayFormatter().format(draw(slower))
    assert set(first) == {"image/png", "text/plain"}
    assert first["text/plain"] == second["text/plain"]
    assert first["text/plain"] == "Timeline of approach f: 1 image, 200 tiles"
    assert first["image/png"] != second["image/png"]
    assert metadata["image/png"]["alt"] == draw(timeline).alt


def test_the_module_leaves_pyplot_alone() -> None:
    code = "import sys, studyguide.record.charts; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- files ---------------------------------------------------------------------------------------


def test_the_same_run_gives_the_same_bytes_whatever_the_readers_style() -> None:
    first = draw(faulty()).png()
    with matplotlib.style.context("dark_background"):
        assert draw(faulty()).png() == first


def test_a_picture_carries_its_description_and_nothing_that_changes() -> None:
    chart = draw(sequential())
    with Image.open(io.BytesIO(chart.png())) as image:
        words = {"Description": chart.alt, "Software": f"studyguide {__version__}"}
        assert image.text == words
        assert image.width == 990


def test_all_charts_are_drawn_from_the_newest_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for approach, timeline in {"a_sequential": sequential(), "b_tile_parallel": pool()}.items():
        write_log(report_of(timeline, approach[0]), tmp_path / "logs", approach)
    stems = ["a_sequential", "b_tile_parallel", "g_multithreaded_service"]
    drawn = draw_all(tmp_path / "logs", tmp_path / "charts", stems)
    names = ["a_sequential.png", "b_tile_parallel.png", "comparison.png"]
    assert [path.name for path in drawn] == names
    assert sorted(path.name for path in (tmp_path / "charts").iterdir()) == names
    assert "g_multithreaded_service" in caplog.text
    before = [path.read_bytes() for path in drawn]
    assert [
        path.read_bytes() for path in draw_all(tmp_path / "logs", tmp_path / "again", stems)
    ] == (before)


def test_without_logs_nothing_is_drawn(tmp_path: Path) -> None:
    assert draw_all(tmp_path, tmp_path / "charts", ["a_sequential"]) == []
    assert list(tmp_path.iterdir()) == []


# --- the comparison ------------------------------------------------------------------------------


def test_the_comparison_has_a_bar_for_each_run_and_says_its_speed_up() -> None:
    a = replace(report_of(sequential(), "a"), wall_s=6.0)
    b = replace(report_of(pool(), "b"), wall_s=1.5)
    chart = comparison_figure([a, b])
    assert [bar.get_width() for bar in bars(chart, "blur")] == [6.0, 1.5]
    assert "a sequential: 6.00 s, 1.0×; b tile parallel: 1.50 s, 4.0×" in chart.alt


def bars(chart: Chart, gid: str, panel: int = 0) -> list[Any]:
    return [bar for bar in chart.axes[panel].patches if bar.get_gid() == gid]


def test_each_bar_of_the_comparison_is_split_into_start_and_work() -> None:
    report = report_of(faulty())  # its last process is up after 0.7 s
    chart = comparison_figure([report])
    (start,), (work,) = bars(chart, "start"), bars(chart, "blur")
    assert (start.get_x(), start.get_width()) == (0, pytest.approx(0.7))
    assert work.get_x() == pytest.approx(0.7)
    assert work.get_x() + work.get_width() == pytest.approx(report.wall_s)


def lossy() -> Timeline:
    """The run of `faulty` in which nobody takes tile 7 over, and which gives up in the end."""
    kept = [event for event in faulty().events if (event.tile, event.attempt) != (7, 2)]
    script = Script()
    script.add("coordinator", "lost", 4.0, 0.0, tile=7)
    script.add("coordinator", "failed", 4.0, 0.0, error="1 of 24 tiles were lost")
    return Timeline([*(event for event in kept if event.stage != "save"), *script.events])


def test_a_second_panel_says_what_became_of_runs_with_a_killed_worker() -> None:
    whole, lost = report_of(faulty(), "f"), report_of(lossy(), "e")
    chart = comparison_figure([report_of(sequential(), "a")], [lost, whole])
    (given_up,), (recovered,) = bars(chart, "silence", 1), bars(chart, "assemble", 1)
    (death,) = lost.timeline.of("death")
    assert given_up.get_width() == pytest.approx(EPOCH + 4 - death.start)
    again = next(e for e in whole.timeline.of("transfer") if (e.tile, e.attempt) == (7, 2))
    assert recovered.get_width() == pytest.approx(again.end - death.start)
    assert "e distributed queue: 0 of 1 images saved, 1 tile lost, given up after" in chart.alt
    assert "f fault-tolerant queue: 1 of 1 images saved, no tile lost, recovered in" in chart.alt


def test_a_run_in_which_no_worker_was_killed_in_the_end_has_no_second_panel() -> None:
    chart = comparison_figure([report_of(sequential(), "a")], [report_of(pool(), "e")])
    assert len(chart.axes) == 1


def test_killed_runs_have_charts_of_their_own_and_each_chart_names_its_logs(
    tmp_path: Path,
) -> None:
    log = write_log(report_of(sequential(), "a"), tmp_path, "a_sequential")
    killed = write_log(report_of(faulty(), "f"), tmp_path, "f_fault_tolerant_queue-killed")
    drawn = draw_all(tmp_path, tmp_path, ["a_sequential", "f_fault_tolerant_queue"])
    sources = {}
    for path in drawn:
        with Image.open(path) as image:
            sources[path.name] = image.text["Source"]  # type: ignore[attr-defined]
    assert sources == {
        "a_sequential.png": log.name,
        "f_fault_tolerant_queue-killed.png": killed.name,
        "comparison.png": f"{log.name} {killed.name}",
    }


def test_the_comparison_marks_runs_that_lost_tiles() -> None:
    whole = report_of(pool(), "b")
    chart = comparison_figure([whole, replace(whole, approach="e", lost_tiles=2)])
    (cross,) = signs(chart, "lost")
    assert cross.get_position() == (whole.wall_s, 1)
    assert "tiles lost: 2" in chart.alt


def test_without_a_run_of_a_the_comparison_claims_no_speed_up() -> None:
    assert "×" not in comparison_figure([report_of(pool(), "b")]).alt


def test_strips_of_several_runs_share_one_axis_and_show_what_workers_did() -> None:
    slow, fast = report_of(pool(threads=1), "a"), report_of(pool(threads=4), "b")
    chart = side_by_side([slow, fast])
    first, second = chart.axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_xlim()[1] > max(slow.timeline.seconds, fast.timeline.seconds)
    ends = [max(line.get_xdata()) for line in (first.lines[0], second.lines[0])]
    assert ends == pytest.approx([slow.timeline.seconds, fast.timeline.seconds])
    for axes in (first, second):
        assert {"blur", "wait"} & {area.get_gid() for area in axes.collections}
    shown = {text.get_text() for legend in chart.legends for text in legend.get_texts()}
    assert "blur" in shown
    assert "load" not in shown, "no worker loads"
    said = f"a sequential {slow.wall_s:.2f} s, b tile parallel {fast.wall_s:.2f} s."
    assert said in chart.alt
