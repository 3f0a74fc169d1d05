"""A live run obeys its buttons and its script alike, tells what happens and leaves nothing."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import make_course, processes_with, wait_until

from studyguide import images
from studyguide.errors import Cancelled, UsageError
from studyguide.record.scene import Scene
from studyguide.record.timeline import Event, Timeline
from studyguide_course.lesson import Lesson
from studyguide_course.live import LiveRun, in_hand

SETTINGS = {"tile_size": 64, "kernel_size": 61, "workers": 2, "visibility_s": 0.5, "quiet_s": 0.5}


@pytest.fixture
def lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lesson]:
    """A lesson with two images of 72 tiles, each a few milliseconds of work."""
    rng = np.random.default_rng(1)
    for name in ("one.png", "two.png"):
        images.save(
            tmp_path / "images" / "input" / name, rng.integers(0, 256, (384, 384, 4), np.uint8)
        )
    make_course(tmp_path)
    monkeypatch.chdir(tmp_path)
    lesson = Lesson("f", **SETTINGS)
    yield lesson
    assert processes_with(str(tmp_path)) == []
    lesson.close()


def ledger(view: LiveRun, n: int) -> dict[str, int]:
    found: dict[str, int] = view.runs[n]["ledger"]
    return found


@pytest.mark.slow
def test_the_same_kill_costs_e_a_tile_and_f_a_redelivery(lesson: Lesson, compiled: None) -> None:
    guess = lesson.predict("How many tiles are lost?", 0, 9, 1, "tiles")
    view = LiveRun(lesson, "ef")
    said: list[str] = []
    view.observe(lambda change: said.append(change.new), "said")
    view.start(kill_after=5)
    with pytest.raises(UsageError, match="locked at 1 tiles"):
        guess.value = 2
    e, f = view.wait()
    assert not Path(view.options["images"]).parent.exists()
    assert (e.lost_tiles, f.lost_tiles) == (1, 0)
    assert ledger(view, 0)["lost"] == 1
    assert ledger(view, 0)["acknowledged"] is None  # it does not acknowledge
    assert ledger(view, 1)["lost"] == 0
    assert ledger(view, 1)["redelivered"] >= 1
    assert ledger(view, 1)["acknowledged"] == ledger(view, 1)["enqueued"] == 72
    assert [row[1:] for row in view.runs[1]["progress"]] == [(36, 36, "saved")] * 2
    assert any("death on worker" in line for line in said)
    assert "71 of 72 tiles in place, 1 lost" in said[-1]
    assert not view.running
    assert "image/png" in view._repr_mimebundle_()[0]
    view.close()


def test_buttons_pause_resume_add_and_kill_while_it_runs(lesson: Lesson, compiled: None) -> None:
    view = LiveRun(lesson)
    (shown,) = view.runs
    assert shown["bars"] == []
    assert view._repr_mimebundle_()[0]["text/plain"] == "Live in JupyterLab: approach f"
    buttons, whom = view.controls.buttons, view.controls.whom
    assert [name for name, button in buttons.items() if not button.disabled] == ["start"]
    buttons["start"].click()
    assert buttons["start"].disabled
    view.start()  # it runs already
    view.tell("pause", "worker-0")
    buttons["add"].click()
    wait_until(lambda: "worker-2" in whom.options)
    whom.value = "redis"
    buttons["kill"].click()
    wait_until(lambda: "death on redis" in view.said)
    assert whom.value == "redis"
    buttons["resume"].click()
    (f,) = view.wait()
    assert f.ledger["assembled"] == 72
    assert {event.process for event in f.timeline.of("start")} >= {"worker-0", "worker-2"}
    view.close()


@pytest.mark.slow
def test_a_run_that_is_stopped_leaves_no_process_and_can_be_started_again(
    lesson: Lesson, compiled: None
) -> None:
    view = LiveRun(lesson, "e")
    with pytest.raises(UsageError, match="no run"):
        view.wait()
    view.start()
    wait_until(lambda: view.runs[0]["ledger"]["enqueued"])
    view.stop()
    with pytest.raises(Cancelled):
        view.wait()
    assert not view.running
    view.start()
    assert view.wait()[0].ledger["lost"] == 0
    assert not Path(view.options["images"]).parent.exists()
    view.close()


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, None])
def test_whatever_ends_the_kernel_ends_the_run(
    lesson: Lesson, compiled: None, end: signal.Signals | None, tmp_path: Path
) -> None:
    script = f"""
        from studyguide_course.lesson import Lesson
        from studyguide_course.live import LiveRun

        view = LiveRun(Lesson("f", **{SETTINGS!r}))
        view.start()
        while not view.runs[0]["ledger"]["delivered"]:
            pass
        print("works", flush=True)
        {"view.wait()" if end else ""}
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env=None,
        text=True,
    ) as kernel:
        assert kernel.stdout is not None
        wait_until(lambda: kernel.stdout and kernel.stdout.readline() == "works\n")
        if end:
            kernel.send_signal(end)
        kernel.wait(60)
    assert processes_with(str(tmp_path)) == []


def test_a_tile_in_hand_is_shown_until_its_lane_hands_it_over_or_dies() -> None:
    def event(stage: str, start: float, end: float, process: str, tile: int = 1) -> Event:
        return Event(stage, start, end, process, "lane", "a.png", tile)

    events = [
        *(event("wait", 0, 1, name) for name in ("works", "done", "dead")),
        event("transfer", 1, 2, "done"),
        event("death", 2, 2, "dead"),
        event("enqueue", 0, 3, "coordinator", tile=9),
    ]
    (bar,) = in_hand(Scene(Timeline(events)))
    assert (bar.lane, bar.start, bar.end) == (("works", "lane"), 1, 3)
