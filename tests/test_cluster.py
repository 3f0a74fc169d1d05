"""Faults for real: processes and servers are killed in the middle of a run."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from PIL import Image
from support import SMALL, TILES, WAIT_S, failing, grey, noise, temporary_files, wait_until

import studyguide
from studyguide import cluster as cluster_module
from studyguide import images, runs
from studyguide.approaches import APPROACHES
from studyguide.blur import blur_whole
from studyguide.cluster import Cluster, KillRedis, KillWorker, LocalCluster
from studyguide.errors import ToolError, UsageError
from studyguide.images import sha256
from studyguide.machinery.processes import Child
from studyguide.machinery.redis_server import RedisServer
from studyguide.machinery.run_folder import KEPT_S
from studyguide.plan import Plan, Role
from studyguide.record.report import Ledger, RunReport
from studyguide.record.timeline import Event, Recorder
from studyguide.settings import Blur, from_options

pytestmark = pytest.mark.usefixtures("compiled")

BLUR = Blur.of(5, method="separable")
EXPECTED = {
    "cloud.png": sha256(blur_whole(grey(), BLUR)),
    "grain.png": sha256(blur_whole(noise(), BLUR)),
}
EAGER = {"visibility_s": 1.0, "backoff_s": 0.05, "quiet_s": 1.0, "patience_s": 20.0}
# The run is not over before its last tiles are: whatever strikes before them strikes in mid-run.
SLOW_END = ("slow:grain.png:10", "slow:grain.png:11")
Perform = Callable[..., RunReport]


@pytest.fixture
def perform(two_images: Path, tmp_path: Path) -> Iterator[Perform]:
    """Run an approach with two workers on the two images."""

    def run(letter: str, **options: Any) -> RunReport:
        places = {"images": two_images, "output": tmp_path}
        return studyguide.run(letter, **{"workers": 2, **SMALL, **EAGER, **places, **options})

    yield run
    assert temporary_files(tmp_path) == []


class Kill:
    """Chaos: kill a process, once, after so many events of one stage."""

    def __init__(self, name: str, stage: str, after: int) -> None:
        self.name = name
        self.stage = stage
        self.left = after

    def see(self, event: Event) -> None:
        self.left -= event.stage == self.stage

    def __call__(self, cluster: Cluster) -> None:
        if self.left <= 0 and self.name:
            assert isinstance(cluster, LocalCluster)
            cluster.kill_redis() if self.name == "redis" else cluster.kill(self.name)
            self.name = ""


def outputs(tmp_path: Path, letter: str) -> list[str]:
    return sorted(path.name for path in (tmp_path / APPROACHES[letter].stem).iterdir())


def deaths(report: RunReport, process: str) -> list[Event]:
    return [event for event in report.timeline.of("death") if event.process.startswith(process)]


# a worker is killed


def test_e_loses_what_a_killed_worker_held_and_says_so(perform: Perform, tmp_path: Path) -> None:
    report = perform("e", chaos=[KillWorker(after=2)], faults=["slow:grain.png:3"])
    assert not report.ok
    lost = report.timeline.of("lost")
    assert report.lost_tiles == len(lost) >= 1
    failed = {item["image"]: item["error"] for item in report.failed_images}
    assert set(failed) == {event.image for event in lost}
    assert all("tiles were lost" in error for error in failed.values())
    saved = {name: digest for name, digest in EXPECTED.items() if name not in failed}
    assert report.pixels() == saved
    assert outputs(tmp_path, "e") == list(saved) != []
    assert (report.redelivered, report.dead_letters) == (0, 0)
    (death,) = deaths(report, "worker")
    assert (death.image, death.tile) in {(event.image, event.tile) for event in lost}


# something else is killed


def test_f_survives_the_death_of_redis(perform: Perform) -> None:
    report = perform("f", chaos=[KillRedis(after=6)], faults=SLOW_END, queue_size=4)
    (death,) = deaths(report, "redis")
    assert max(event.end for event in report.timeline.of("blur")) > death.end
    assert report.pixels() == EXPECTED


@pytest.mark.slow
def test_e_tells_what_its_assembler_took_along(perform: Perform, tmp_path: Path) -> None:
    kill = Kill("assembler-0", "assemble", 6)
    report = perform("e", chaos=[kill], on_event=kill.see, faults=SLOW_END)
    assert len(deaths(report, "assembler")) == 1
    assert not report.ok
    assert report.lost_tiles >= 1
    failed = [item["image"] for item in report.failed_images]
    assert "grain.png" in failed
    assert sorted([*report.pixels(), *failed]) == sorted(EXPECTED)
    assert all(EXPECTED[name] == digest for name, digest in report.pixels().items())
    assert outputs(tmp_path, "e") == sorted(report.pixels())


def test_a_redis_that_is_not_ours_is_never_killed(
    perform: Perform, shared_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", shared_server.url)
    with pytest.raises(UsageError, match="is external; refusing to kill it"):
        perform("f", chaos=[KillRedis(after=0)])
    assert shared_server.alive


# the ledger


@pytest.mark.slow
@pytest.mark.parametrize("letter", "efg")
@pytest.mark.parametrize(
    ("victim", "stage", "after"),
    [
        ("worker-0", "transfer", 3),
        ("assembler-0", "assemble", 8),
        ("coordinator-0", "enqueue", 1),
        ("coordinator-0", "save", 1),
        ("redis", "assemble", 8),
    ],
)
def test_the_ledger_adds_up_and_says_whether_all_is_well_whatever_was_killed(
    victim: str, stage: str, after: int, letter: str, perform: Perform, tmp_path: Path
) -> None:
    kill = Kill(victim, stage, after)
    report = perform(letter, chaos=[kill], on_event=kill.see, faults=SLOW_END, instances=2)
    assert deaths(report, victim)
    ledger = Ledger(**report.ledger)
    not_done = ledger.dead_letters + ledger.lost + ledger.in_doubt
    assert ledger.enqueued == ledger.assembled + not_done == sum(TILES.values())
    assert ledger.delivered >= ledger.assembled + ledger.redelivered
    failed = {item["image"] for item in report.failed_images}
    assert report.pixels().items() == {(k, v) for k, v in EXPECTED.items() if k not in failed}
    assert report.ok == (not_done == 0) == (not failed)
    assert report.ok or letter == "e"
    assert outputs(tmp_path, letter) == sorted(report.pixels())


# a tile fails


def test_e_loses_a_tile_that_fails_with_the_worker_that_it_ends(
    perform: Perform, tmp_path: Path
) -> None:
    report = perform("e", faults=["raise:grain.png:3"])
    (lost,) = report.timeline.of("lost")
    assert (lost.image, lost.tile) == ("grain.png", 3)
    assert len(deaths(report, "worker")) == 1
    assert report.pixels() == {"cloud.png": EXPECTED["cloud.png"]}
    assert outputs(tmp_path, "e") == ["cloud.png"]


# the cluster itself


@pytest.fixture
def cluster(
    tmp_path: Path, two_images: Path, shared_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalCluster]:
    """A cluster of f that has a Redis and no processes yet."""
    monkeypatch.setenv("REDIS_URL", shared_server.url)
    settings = from_options({**SMALL, "images": two_images, "output": tmp_path / "out"})
    plan = Plan("f", settings, tmp_path / "run", "1")
    with LocalCluster(plan, Recorder(lambda event: None)) as cluster:
        cluster.start_redis(persistent=False)
        yield cluster


def wait_until_started(cluster: LocalCluster, name: str) -> None:
    path = cluster.plan.folder / "events" / f"{name}.jsonl"
    wait_until(lambda: path.exists() and path.stat().st_size)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_scaling_starts_those_missing_and_drains_those_too_many_frozen_or_not(
    cluster: LocalCluster,
) -> None:
    cluster.scale("worker", 2)
    for name in ("worker-0", "worker-1"):
        wait_until_started(cluster, name)
    first, second = (cluster.processes[name].child for name in ("worker-0", "worker-1"))
    cluster.scale("worker", 1)
    assert list(cluster.processes) == ["worker-0"]
    assert (first.poll(), second.poll()) == (None, 0)
    first.pause()
    cluster.close()
    assert first.poll() == 0
    assert not is_running(first.pid)


def test_a_process_that_ends_too_early_is_started_again_and_leaves_no_half_written_file(
    cluster: LocalCluster,
) -> None:
    cluster.start("assembler")
    wait_until_started(cluster, "assembler-0")
    process, output = cluster.processes["assembler-0"], cluster.settings.output
    half, whole, others = ".studyguide-0123.tmp", "a.png", ".b.png.1-1.tmp"
    output.mkdir()
    for name in (half, whole, others):
        (output / name).touch()
    process.child.terminate()
    assert process.child.wait(WAIT_S) == 0
    wait_until(lambda: cluster.step() or process.restarts == 1)
    assert process.child.poll() is None
    assert {path.name for path in output.iterdir()} == {whole, others}


def test_a_process_that_dies_again_and_again_is_given_up(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "MAX_RESTARTS", 2)
    cluster.plan = replace(cluster.plan, chaos=(lambda cluster: cluster.kill("worker-0"),))
    cluster.start("worker")
    with pytest.raises(ToolError, match=r"worker-0.* ended with exit code -9"):
        wait_until(cluster.step)
    assert cluster.processes["worker-0"].restarts == 2


def test_a_process_that_ran_well_for_long_begins_to_count_anew(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "MAX_RESTARTS", 1)
    cluster.start("worker")
    process = cluster.processes["worker-0"]
    for _ in range(3):
        before, process.since = process.child, process.since - 2 * cluster_module.HEALTHY_S
        cluster.kill("worker-0")
        wait_until(lambda before=before: cluster.step() or process.child is not before)
    assert process.restarts == 1


def test_a_process_that_cannot_write_is_given_up_at_once_with_what_it_said(
    cluster: LocalCluster,
) -> None:
    cluster.plan.folder.mkdir()
    (cluster.plan.folder / "events").write_text("where its events should go")
    cluster.start("worker")
    with pytest.raises(ToolError, match=r"worker-0.* exit code 75: studyguide: .*File exists: '/"):
        wait_until(cluster.step)
    assert cluster.processes["worker-0"].restarts == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"folder": "x", "settings": {"workers": 0}}'])
def test_a_process_whose_role_is_damaged_is_given_up_at_once(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    cluster.plan.folder.mkdir()
    monkeypatch.setattr(Role, "write", lambda role: role.path.write_text(text))
    cluster.start("worker")
    with pytest.raises(ToolError, match=r"worker-0.* ended with exit code 2:.*worker-0.json"):
        wait_until(cluster.step)
    assert cluster.processes["worker-0"].restarts == 0


def test_a_coordinator_that_crashes_is_not_taken_for_one_whose_images_failed(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = (sys.executable, "-c", "raise ImportError('redis is gone')")
    monkeypatch.setattr(cluster_module, "STUDYGUIDE", crash)
    fresh = replace(cluster.settings, start="fresh")
    cluster.plan = replace(cluster.plan, settings=fresh)
    cluster.start("coordinator")
    with pytest.raises(ToolError, match=r"(?s)coordinator-0.* exit code 1:.*redis is gone"):
        cluster.watch("coordinator")


# the end of a cluster


@pytest.mark.parametrize("error", [OSError("planted"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("step", ["ask_to_end", "stop", "read_events", "clear"])
def test_whichever_step_of_its_end_fails_a_cluster_leaves_nothing_behind(
    step: str,
    error: BaseException,
    cluster: LocalCluster,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster.scale("worker", 2)
    children = [process.child for process in cluster.processes.values()]
    client.set(f"{cluster.plan.prefix}state", "saved")
    homes = {"read_events": cluster, "clear": cluster_module}
    home = homes.get(step, Child)
    monkeypatch.setattr(home, step, failing(getattr(home, step), 1, error))
    with pytest.raises(type(error)):
        cluster.close()
    assert [child.wait(WAIT_S) is None for child in children] == [False, False]
    assert cluster._reaper._helper.poll() is not None
    assert step == "clear" or not client.keys(f"{cluster.plan.prefix}*")


def test_what_fails_at_the_end_does_not_hide_what_failed_before(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "read_events", failing(cluster.read_events, 1, OSError("later")))
    with pytest.raises(UsageError, match="first"), cluster:
        raise UsageError("first")
    assert "later" in caplog.text


@pytest.mark.parametrize(("letter", "lasts"), [("e", False), ("f", True), ("g", True)])
def test_on_a_server_of_others_a_run_that_is_cut_short_leaves_no_key_for_ever(
    letter: str,
    lasts: bool,
    perform: Perform,
    shared_server: RedisServer,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("REDIS_URL", shared_server.url)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[Event] = []

    def interrupt(event: Event) -> None:
        seen.append(event)
        if event.stage == "transfer":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(letter, on_event=interrupt, workers=1, instances=1, faults=SLOW_END)
    lives = {key: client.ttl(key) for key in client.keys("*")}
    assert bool(lives) == lasts
    assert all(0 < life <= KEPT_S for life in lives.values())
    if lasts:
        (folder,) = tmp_path.glob("studyguide-*")
        run = folder.name.removeprefix("studyguide-")
        report = perform(letter, resume=run, workers=1, instances=1)
        assert report.pixels() == EXPECTED
        assert client.keys("*") == []


def cut_short(perform: Perform, tmp_path: Path, stage: str, image: str) -> str:
    """Interrupt a run of f after the first event of a stage and image; return its name."""

    def interrupt(event: Event) -> None:
        if (event.stage, event.image) == (stage, image):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform("f", on_event=interrupt, faults=SLOW_END)
    (folder,) = tmp_path.glob("studyguide-*")
    return folder.name.removeprefix("studyguide-")


def test_a_resumed_run_saves_again_what_is_gone_or_was_changed(
    perform: Perform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = cut_short(perform, tmp_path, "save", "cloud.png")
    (tmp_path / APPROACHES["f"].stem / "cloud.png").unlink()
    report = perform("f", resume=run)
    assert report.pixels() == EXPECTED
    assert outputs(tmp_path, "f") == sorted(EXPECTED)
    assert [event.image for event in report.timeline.of("save")].count("cloud.png") == 2


def test_an_image_that_was_repaired_does_not_fail_when_its_run_is_resumed(
    perform: Perform, two_images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = Path(shutil.copytree(two_images, tmp_path / "own"))
    whole = (own / "cloud.png").read_bytes()
    (own / "cloud.png").write_bytes(whole[:40])
    run = cut_short(partial(perform, images=own), tmp_path, "transfer", "grain.png")
    (own / "cloud.png").write_bytes(whole)
    report = perform("f", images=own, resume=run)
    assert report.timeline.of("failed")
    assert (report.failed_images, report.pixels()) == ([], EXPECTED)


def test_an_image_that_was_changed_before_its_run_is_resumed_fails(
    perform: Perform, two_images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Tiles of two images are never put together: what is saved is all of the first."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = Path(shutil.copytree(two_images, tmp_path / "own"))
    run = cut_short(partial(perform, images=own), tmp_path, "transfer", "grain.png")
    Image.fromarray(noise()[::-1]).save(own / "grain.png")
    report = perform("f", images=own, resume=run)
    errors = [failed["error"] for failed in report.failed_images]
    changed = "grain.png was changed during the run. Run it again"
    assert [changed in error for error in errors] == [True] * len(errors)
    saved = {name: tmp_path / APPROACHES["f"].stem / name for name in outputs(tmp_path, "f")}
    assert "cloud.png" in saved
    assert errors or "grain.png" in saved  # its last word may be that all of the first is saved
    for name, path in saved.items():
        assert sha256(images.load(path)) == EXPECTED[name]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"kernel_size": 7}, "kernel_size 5, not 7. Leave --kernel-size out to go on with it"),
        ({"tile_size": 16}, "tile_size 32, not 16. Leave --tile-size out"),
        ({"method": "direct"}, "method separable, not direct"),
        ({"output": "elsewhere"}, r"output .*, not .*elsewhere"),
    ],
)
def test_a_run_is_not_resumed_with_other_jobs(
    changed: dict[str, Any],
    problem: str,
    perform: Perform,
    two_images: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = from_options({**SMALL, "images": two_images, "output": tmp_path / "f"})
    folder = tmp_path / "studyguide-1"
    folder.mkdir(mode=0o700)
    settings = replace(settings, output=tmp_path / APPROACHES["f"].stem)
    (folder / "run.json").write_text(json.dumps(runs._notes("f", settings, resumable=True)))
    with pytest.raises(UsageError, match=f"The run 1 was begun with {problem}"):
        perform("f", **{"resume": "1", **changed})
    assert list(folder.iterdir()) == [folder / "run.json"]
