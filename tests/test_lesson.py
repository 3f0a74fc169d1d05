"""Helpers for the notebooks."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support import make_course

from studyguide import images, threads
from studyguide.errors import UsageError
from studyguide.record.report import RunReport
from studyguide_course.lesson import (
    Lesson,
    Spent,
    copy_images,
    durations,
    fastest,
    free_cores,
    gallery,
    heat_map,
    show_command,
    show_source,
    spent,
    table,
)

SIZE = (40, 30)


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a course folder with two small images of its own, and work in it."""
    rng = np.random.default_rng(1)
    for name in ("one.png", "two.png"):
        pixels = rng.integers(0, 256, SIZE, dtype=np.uint8)
        images.save(tmp_path / "images" / "input" / name, pixels)
    make_course(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lesson(course: Path) -> Iterator[Lesson]:
    lesson = Lesson("b", tile_size=16, kernel_size=5, workers=2)
    yield lesson
    lesson.close()


def test_lesson_says_what_it_is_about_and_where_it_runs(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Lesson("b").close()
    Lesson("f").close()
    said = capsys.readouterr().out
    assert "b: Tile parallel, on threads of this process" in said
    assert "f: Fault-tolerant queue, on local processes" in said
    assert "cores" in said


def test_a_run_takes_the_lesson_s_approach_images_and_settings(lesson: Lesson) -> None:
    report = lesson.run()
    assert (report.approach, report.images, report.tiles) == ("b", 2, 12)
    assert Path(report.outputs[0]["path"]).is_relative_to(lesson.folder)
    assert lesson.run("a", kernel_size=3).settings["kernel_size"] == 3


def test_only_some_of_the_images_make_a_small_job(course: Path) -> None:
    lesson = Lesson("a", only=["two.png"], kernel_size=3)
    assert list(lesson.run().pixels()) == ["two.png"]
    lesson.close()


def test_the_reference_is_run_once_and_equal_work_is_checked_against_it(lesson: Lesson) -> None:
    assert lesson.reference is lesson.reference
    assert lesson.check(lesson.run()) == (
        "2/2 images with the pixels of a, 12/12 tiles in place, 0 lost, 0 dead"
    )
    assert lesson.check(lesson.run(kernel_size=3)).startswith("0/2 images with the pixels of a")


def test_a_race_goes_by_turns_and_keeps_the_median_run_of_each(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls = iter([5.0, 2.0, 1.0, 9.0, 3.0, 4.0])
    ran: list[str] = []

    def run(letter: str, **_: object) -> RunReport:
        ran.append(letter)
        return RunReport(letter, "local", 1, 0, 1, next(walls), 0.0, 0, 0, 0, [], [])

    monkeypatch.setattr(lesson, "run", run)
    a, b = lesson.race("a", "b", repeats=3)
    assert ran == ["a", "b"] * 3
    assert (a.approach, a.wall_s, b.approach, b.wall_s) == ("a", 3.0, "b", 4.0)


def test_cases_that_differ_in_an_option_are_interleaved(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls = iter([5.0, 2.0, 1.0, 9.0, 3.0, 4.0])
    ran: list[object] = []

    def run(letter: str = "b", **options: object) -> RunReport:
        ran.append((letter, options))
        return RunReport(letter, "local", 1, 0, 1, next(walls), 0.0, 0, 0, 0, [], [])

    monkeypatch.setattr(lesson, "run", run)
    found = lesson.interleave({"a": {"letter": "a"}, 4: {"workers": 4}})
    assert ran == [("a", {}), ("b", {"workers": 4})] * 3
    assert {name: report.wall_s for name, report in found.items()} == {"a": 3.0, 4: 4.0}


@pytest.mark.parametrize(("free", "warns"), [(2.0, False), (1.7, False), (1.5, True)])
def test_lesson_says_when_other_programs_make_times_worth_little(
    course: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    free: float,
    warns: bool,
) -> None:
    monkeypatch.setattr("studyguide_course.lesson.os.cpu_count", lambda: 2)
    monkeypatch.setattr("studyguide_course.lesson.free_cores", lambda: free)
    Lesson("a").close()
    said = capsys.readouterr().out
    assert f"free cores   {free} of 2" in said
    assert ("times and speed-ups say little" in said) == warns


def test_free_cores_are_no_more_than_there_are() -> None:
    assert 0 < free_cores(0.05) <= (os.cpu_count() or 1)


def test_both_clocks_of_a_call_are_read() -> None:
    asleep = spent(lambda: time.sleep(0.05))
    assert asleep.wall_s >= 0.05
    assert asleep.cores < 1
    assert Spent(wall_s=2.0, cpu_s=3.0).cores == 1.5


def test_fastest_calls_are_found_alternately() -> None:
    called: list[str] = []
    found = fastest({name: partial(called.append, name) for name in "ab"}, repeats=3)
    assert called == ["a", "b"] * 3
    assert set(found) == {"a", "b"}


def test_the_median_run_is_of_the_lesson_s_own_approach(lesson: Lesson) -> None:
    assert lesson.median(repeats=1).approach == "b"
    assert lesson.median(repeats=1, letter="a").approach == "a"


def test_closing_removes_the_lesson_s_files_and_may_be_repeated(course: Path) -> None:
    lesson = Lesson("a", kernel_size=3)
    lesson.run()
    assert lesson.close() == lesson.close()
    assert not lesson.folder.exists()


def test_closing_tells_of_a_thread_that_still_runs(course: Path) -> None:
    lesson, end = Lesson("a"), threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    thread.start()
    with pytest.raises(AssertionError, match="forgotten"):
        lesson.close()
    end.set()
    thread.join()


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == "darwin" and sys.version_info < (3, 13), reason="the system cannot tell"
)
def test_closing_tells_of_a_process_that_still_runs(course: Path) -> None:
    code = """
import subprocess, sys
from studyguide_course.lesson import Lesson
lesson = Lesson("a")
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
try:
    lesson.close()
except AssertionError as error:
    print(error)
child.communicate(b"\\n")
print(lesson.close())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == [
        "a process that was started still runs",
        "Nothing is left: no thread, no process, no file.",
    ]


def test_copied_images_are_equal_to_their_source(course: Path) -> None:
    folder = copy_images(course / "images" / "input", ["one.png"], course / "few")
    assert [path.name for path in folder.iterdir()] == ["one.png"]
    source = course / "images" / "input" / "one.png"
    assert (folder / "one.png").read_bytes() == source.read_bytes()


def test_source_is_shown_as_it_runs() -> None:
    text = show_source(threads.Channel.put, threads.blur_tiles).data
    assert text.startswith("```python\n    def put(self")
    assert "\n\n\ndef blur_tiles(" in text
    assert text.endswith("\n```")


def test_a_command_of_the_protocol_is_shown_and_an_unknown_one_is_refused() -> None:
    text = show_command("promote").data
    assert text.startswith("```lua\n-- promote limit")
    assert text.endswith("\nend\n```")
    with pytest.raises(UsageError, match="no command 'juggle'"):
        show_command("juggle")


def test_a_table_is_markdown() -> None:
    assert table(("a", "b"), [(1, 2)]).data == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_every_call_is_timed() -> None:
    calls: list[int] = []
    times = durations(lambda: calls.append(1), repeats=4)
    assert len(times) == len(calls) == 4
    assert min(times) >= 0


def test_a_gallery_shows_each_picture_under_its_name() -> None:
    grey, colour = np.zeros((20, 10), np.uint8), np.zeros((10, 20, 4), np.uint8)
    chart = gallery("Two", {"grey": grey, "colour": colour})
    shown = [(axes.get_title(), axes.images[0].get_array().shape) for axes in chart.axes]
    assert shown == [("grey", (20, 10)), ("colour", (10, 20, 4))]
    assert chart.name == "Two: grey, colour"
    assert chart.alt == "Two; from left to right: grey, colour."
    tall, wide = (axes.get_position() for axes in chart.axes)
    assert 0 < tall.x0 < tall.x1 < wide.x0 < wide.x1 < 1


def test_a_heat_map_writes_all_times_and_frames_the_fastest() -> None:
    chart = heat_map("Sweep", ["1 worker", "2 workers"], ["64 px", "128 px"], [[4, 3], [0.002, 1]])
    (axes,) = chart.axes
    assert [text.get_text() for text in axes.texts] == ["4000", "3000", "2", "1000"]
    assert "fastest, in the frame: 2 workers, 64 px" in chart.alt
    (frame,) = axes.lines
    assert (np.mean(frame.get_xdata()[:4]), np.mean(frame.get_ydata()[:4])) == (0, 1)
    assert chart.name == "Sweep: 2 by 2"


def test_run_locks_the_guess(lesson: Lesson) -> None:
    guess = lesson.predict("wall time", 0.0, 1.0, 0.5, "s")
    lesson.run()
    with pytest.raises(UsageError, match="locked"):
        guess.value = 0.1
