"""A network in the box: links that are slow or cut, and a failover that loses what it should."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import make_course, processes_with, wait_until

from studyguide import images
from studyguide_course.lesson import Lesson
from studyguide_course.live import LiveRun
from studyguide_course.network.failover import fail_over
from studyguide_course.network.links import CutWorker, Network

SETTINGS = {"tile_size": 64, "kernel_size": 61, "workers": 2, "visibility_s": 0.5, "quiet_s": 0.5}
TILES = 36


@pytest.fixture
def lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lesson]:
    pixels = np.random.default_rng(1).integers(0, 256, (384, 384, 4), np.uint8)
    images.save(tmp_path / "images" / "input" / "one.png", pixels)
    make_course(tmp_path)
    monkeypatch.chdir(tmp_path)
    lesson = Lesson("f", **SETTINGS)
    yield lesson
    assert processes_with(str(tmp_path)) == []
    lesson.close()


def test_a_worker_that_is_cut_off_lives_and_its_late_commit_is_dropped(
    lesson: Lesson, compiled: None
) -> None:
    network, cut = Network(), CutWorker(after=5)
    f = lesson.run("f", local=network.cluster, chaos=[cut])
    assert f.pixels() == lesson.reference.pixels()
    assert f.timeline.of("death") == []
    heirs = {e.process for e in f.timeline.of("reclaim") if (e.image, e.tile) == cut.tile}
    (dropped,) = [e for e in f.timeline.of("duplicate") if (e.image, e.tile) == cut.tile]
    assert heirs
    assert cut.name not in heirs
    assert dropped.process == cut.name
    assert f.ledger["lost"] == 0


def test_e_asks_twice_for_each_tile_in_a_row_and_latency_changes_no_pixel(
    lesson: Lesson, compiled: None
) -> None:
    network = Network(jitter_s=0.004)
    network.change(latency_s=0.002)
    e = lesson.run("e", local=network.cluster)
    assert e.pixels() == lesson.reference.pixels()
    assert e.tiles == TILES
    assert network.round_trips["coordinator-0"] >= 2 * TILES
    assert network.round_trips["assembler-0"] >= 2 * TILES
    assert network.proxies == {}


def test_sliders_and_the_cut_of_a_live_run_act_on_its_links(lesson: Lesson, compiled: None) -> None:
    view = LiveRun(lesson)
    (thread,) = view.threads
    view.network(latency_s=0.05, jitter_s=0.02, loss=0.03)
    assert view.controls.sliders["latency_s"].value == 50
    assert (thread.network.latency_s, thread.network.jitter_s) == (0.05, 0.02)
    view.network(latency_s=0.003)
    view.start()
    view.controls.buttons["cut"].click()
    (thread,) = view.threads
    wait_until(lambda: any(event.stage == "reclaim" for event in thread.events))
    assert {link.latency_s for link in thread.network.proxies.values()} == {0.003}
    view.controls.sliders["latency_s"].value = 0
    assert {link.latency_s for link in thread.network.proxies.values()} == {0.0}
    view.controls.buttons["heal"].click()
    (f,) = view.wait()
    assert f.ledger["assembled"] == TILES
    assert f.timeline.of("duplicate")
    assert f.timeline.of("death") == []
    view.close()


@pytest.mark.parametrize("wait", [False, True])
def test_a_failover_loses_what_was_acknowledged_unless_the_writer_waits(
    tmp_path: Path, wait: bool
) -> None:
    found = fail_over(tmp_path, writes=50, cut_after=30, wait=wait)
    assert found.kept == frozenset(range(30))
    assert found.acknowledged == frozenset(range(30 if wait else 50))
    assert found.lost == (0 if wait else 20)
    assert processes_with(str(tmp_path)) == []
