"""Work grows with the number of images and not with its square: operations are counted, not time.

An operation is a line of the library that runs, once for each turn of a loop, or a call of any
Python function below one.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import MagicMock

import pytest
from matplotlib.axes import Axes

import studyguide
from studyguide import images
from studyguide.record import charts
from studyguide.record.charts import comparison_figure, timeline_figure
from studyguide.record.report import RunReport, newest_log, read_log, readable, write_log
from studyguide.record.scene import Scene
from studyguide.record.timeline import Event, Timeline
from studyguide.record.trace import chrome_trace
from studyguide_course.measures import lower_bound, path_s
from studyguide_course.view import Drawing

OURS = str(Path(studyguide.__file__).parent)
FEW = 150  # images; a square term would be far above the slack by then
SLACK = 1.15  # sorting is n log n


def operations(call: Callable[[], object]) -> int:
    """How many lines of the library run in a call, and how many functions are called."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += 1
        return trace if frame.f_code.co_filename.startswith(OURS) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def events(approach: str, number: int) -> list[Event]:
    """A run over so many images of one tile; every third fails after a retry and a reclaim."""
    found = [event for n in range(number) for event in one_image(n)]
    if approach == "c":  # threads of one process, an assembler for each image
        for n, event in enumerate(found):
            own = event.lane.replace("assembler", f"assembler {event.image}")
            found[n] = replace(event, process="main", lane=own)
    return found


def one_image(n: int) -> Iterator[Event]:
    worker, tile = (f"worker-{n % 4}",) * 2, (f"{n}.png", 0)
    coordinator, assembler = ("coordinator-0", "coordinator"), ("assembler-0", "assembler")
    image, at = (f"{n}.png", -1), float(n)
    yield Event("load", at, at + 0.5, *coordinator, *image, detail={"cpu_s": 0.1})
    yield Event("enqueue", at + 0.5, at + 1, *coordinator, *tile, detail={"full_s": 0.1})
    yield Event("wait", at + 0.5, at + 1, *worker, *tile, detail={"cause": "backoff"})
    yield Event("blur", at + 1, at + 1.5, *worker, *tile, detail={"cpu_s": 0.1})
    yield Event("transfer", at + 1.5, at + 2, *worker, *tile)
    yield Event("assemble", at + 2, at + 2.5, *assembler, *tile)
    if n % 3:
        saved = {"path": f"output/{n}.png", "pixels_sha256": "0" * 64}
        yield Event("save", at + 2.5, at + 3, *assembler, *image, detail=saved)
        return
    error = {"error": "disk full", "from_worker": "worker-1/worker-1"}
    yield Event("retry", at + 1.5, at + 1.5, *worker, *tile, detail=error)
    yield Event("reclaim", at + 1.6, at + 1.6, *worker, *tile, detail=error)
    yield Event("failed", at + 2.5, at + 2.5, *assembler, *image, detail=error)


def report_of(approach: str, number: int) -> RunReport:
    return RunReport.of(approach, "local", Timeline(events(approach, number)), {"workers": 4})


def assert_linear(work: Callable[[int], Callable[[], object]]) -> None:
    """`work` prepares a call on so many images."""
    few, many = operations(work(FEW)), operations(work(2 * FEW))
    assert few > FEW, "nothing was counted"
    assert many <= 2 * SLACK * few, f"{few} operations for {FEW} images, {many} for twice as many"


def test_what_is_quadratic_is_caught() -> None:
    def quadratic(number: int) -> Callable[[], object]:
        paths = [Path(str(n)) for n in range(number)]
        return lambda: [path for path in paths if path not in paths[::-1]]

    with pytest.raises(AssertionError, match="operations for"):
        assert_linear(quadratic)


def test_finding_images_is_linear(tmp_path: Path) -> None:
    def find(number: int) -> Callable[[], object]:
        folder = tmp_path / str(number)
        folder.mkdir()
        for n in range(number):
            (folder / f"{n}.{'jpg' if n % 2 else 'png'}").touch()
            if n % 3 == 0:
                (folder / f"{n}.webp").touch()  # a clash
        return lambda: images.find(folder)

    assert_linear(find)


@pytest.mark.slow
@pytest.mark.parametrize("approach", "cf")
@pytest.mark.parametrize(
    "work",
    [
        lambda report: report.timeline.lanes() + report.timeline.queue_depth(),
        lambda report: RunReport.of("f", "local", report.timeline, {"workers": 4}),
        readable,
        lambda report: lower_bound(report.timeline, 2),
        lambda report: path_s(report.timeline),
        lambda report: chrome_trace(report.timeline),
        lambda report: timeline_figure(report).png(),
        lambda report: comparison_figure([report]),
        lambda report: Drawing("a run", Scene(report.timeline)).seen(0.0, float("inf")),
    ],
    ids=["timeline", "report", "log", "bound", "path", "trace", "chart", "comparison", "view"],
)
def test_logging_and_charting_a_run_is_linear(work: Callable[[Any], object], approach: str) -> None:
    def prepared(number: int) -> Callable[[], object]:
        report = report_of(approach, number)
        return lambda: work(report)

    assert_linear(prepared)


@pytest.mark.parametrize("approach", "cf")
def test_a_chart_of_shares_with_arrows_is_linear(
    approach: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So few images would be drawn as bars, and so many faults as dots without arrows."""
    monkeypatch.setattr(charts, "MAX_BARS", 0)
    monkeypatch.setattr(charts, "MAX_SIGNS", 10_000)
    for name in ("_pile", "_fitted", "shares"):  # numpy and Matplotlib do these
        monkeypatch.setattr(charts, name, lambda *_: {})

    def prepared(number: int) -> Callable[[], object]:
        timeline, axes = report_of(approach, number).timeline, MagicMock(spec=Axes)
        axes.get_xlim.return_value = (0.0, float(number))

        def draw() -> None:
            scene = Scene(timeline)
            rows = charts._rows(scene.lanes)
            charts._draw_bars(axes, scene, rows)
            charts._draw_faults(axes, scene, rows)

        return draw

    assert_linear(prepared)


def test_writing_and_reading_a_log_is_linear(tmp_path: Path) -> None:
    def prepared(number: int) -> Callable[[], object]:
        report, folder = report_of("f", number), tmp_path / str(number)

        def write_and_read() -> None:
            folder.mkdir()
            write_log(report, folder, "f")
            read_log(newest_log(folder, "f"))

        return write_and_read

    assert_linear(prepared)


@pytest.mark.slow
def test_a_chart_of_ten_thousand_images_has_shares_and_no_bar_or_row_for_each() -> None:
    chart = timeline_figure(report_of("c", 10_000))
    axes = chart.axes[0]
    assert len(axes.patches) == 0
    assert len(axes.get_yticks()) < 20
    assert len(axes.collections) < 100
    assert len(axes.texts) < 20
    assert any("10,000" in label.get_text() for label in axes.get_yticklabels())
