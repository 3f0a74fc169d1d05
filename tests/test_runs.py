"""Whole runs of all seven approaches: equal pixels, good images saved and bad ones told."""

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from PIL import Image
from support import SMALL, TILES, folder_of_mode, grey, make_images, noise, temporary_files

import studyguide
from studyguide.approaches import APPROACHES
from studyguide.blur import blur_whole
from studyguide.errors import UsageError
from studyguide.machinery import run_folder
from studyguide.machinery.redis_server import RedisServer
from studyguide.record.report import RunReport
from studyguide.record.timeline import Event
from studyguide.settings import Blur

pytestmark = pytest.mark.usefixtures("compiled")

UNTILED = ("a", "d")
FEW = {"workers": 2, "patience_s": 20.0, **SMALL}
Run = Callable[..., RunReport]


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    """Digests of both images blurred in one piece, without any approach."""
    blur = Blur.of(5, method="separable")
    return {
        "cloud.png": digest(blur_whole(grey(), blur)),
        "grain.png": digest(blur_whole(noise(), blur)),
    }


def perform(letter: str, images: Path, folder: Path, **options: Any) -> RunReport:
    places = {"images": images, "output": folder / "out", "logs": folder / "logs"}
    return studyguide.run(letter, **{**FEW, **places, **options})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_outputs_are_whole(report: RunReport, output: Path, expected: dict[str, str]) -> None:
    folder = output / APPROACHES[report.approach].stem
    assert names(folder) == sorted(expected)
    assert report.pixels() == expected
    for item in report.outputs:
        path = Path(item["path"])
        assert path.parent == folder
        assert digest(np.asarray(Image.open(path))) == item["pixels_sha256"]


# good images


@pytest.fixture(scope="module", params=APPROACHES)
def good(
    request: pytest.FixtureRequest, two_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunReport, Path]:
    """One run of each approach on two good images, for all tests of this group."""
    folder = tmp_path_factory.mktemp(f"good-{request.param}")
    return perform(request.param, two_images, folder), folder


def test_every_approach_saves_the_same_pixels(
    good: tuple[RunReport, Path], expected: dict[str, str]
) -> None:
    report, folder = good
    assert report.ok
    assert report.failed_images == []
    assert_outputs_are_whole(report, folder / "out", expected)
    assert temporary_files(folder) == []


def test_every_tile_is_counted_once(good: tuple[RunReport, Path]) -> None:
    report, _ = good
    tiles = 0 if report.approach in UNTILED else sum(TILES.values())
    assert (report.images, report.tiles) == (2, tiles)
    assert (report.ledger["enqueued"], report.ledger["assembled"]) == (tiles, tiles)
    assert (report.ledger["delivered"], report.redelivered) == (tiles, 0)
    assert (report.lost_tiles, report.dead_letters) == (0, 0)
    blurred = {(event.image, event.tile) for event in report.timeline.of("blur")}
    everything = {(name, n) for name, count in TILES.items() for n in range(count)}
    assert blurred == ({(name, -1) for name in TILES} if report.approach in UNTILED else everything)


def test_a_run_says_how_it_was_done(good: tuple[RunReport, Path]) -> None:
    report, _ = good
    assert report.backend == "local"
    assert report.workers == (1 if report.approach in UNTILED else 2)
    assert report.settings["kernel_size"] == 5
    assert report.wall_s > 0
    assert report.blur_s > 0
    assert len(report.timeline.of("run")) == 1


def test_a_run_leaves_one_log_for_people_and_one_for_programs(
    good: tuple[RunReport, Path],
) -> None:
    report, folder = good
    stem = APPROACHES[report.approach].stem
    for_programs, for_people = (folder / "logs" / name for name in names(folder / "logs"))
    assert re.fullmatch(rf"{stem}_\d{{8}}T\d{{6}}\.\d{{6}}Z\.json", for_programs.name)
    assert for_people == for_programs.with_suffix(".txt")
    log = json.loads(for_programs.read_text())
    assert log["report"]["outputs"] == report.outputs
    assert len(log["events"]) == len(report.timeline.events)


@pytest.mark.parametrize("letter", ["f", "g"])
def test_pixels_may_travel_through_a_redis_that_somebody_else_runs(
    letter: str,
    two_images: Path,
    tmp_path: Path,
    expected: dict[str, str],
    shared_server: RedisServer,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.set("not ours", "stays")
    monkeypatch.setenv("REDIS_URL", shared_server.url)
    report = perform(letter, two_images, tmp_path, payload="redis", workers=1, instances=1)
    assert report.ok
    assert_outputs_are_whole(report, tmp_path / "out", expected)
    assert client.keys("*") == ["not ours"]


# bad images among good ones


def png_that_claims(width: int, height: int) -> bytes:
    """The beginning of a PNG: its header says how much memory it would take."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"")
    chunks = (header, body, b"IEND")
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


BAD = {
    "bomb.png": "claims more than 179 million pixels. Scale it down first",
    "cloud.webp": "has the same stem as cloud.png: both would be saved as cloud.png. Rename one",
    "empty.jpg": "is empty. Replace or remove",
    "grain.mask.png": "has the name of a part of grain.png, which is saved if it loses tiles",
    "text.tif": "cannot be read as an image",
    "truncated.png": "cannot be read as an image",
    "wrong.png": "holds JPEG data though its name says PNG. Rename it to wrong.jpg",
}


@pytest.fixture(scope="module")
def mixed_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two good images among bad ones, and a file that this project did not write."""
    folder = make_images(tmp_path_factory.mktemp("mixed") / "images")
    whole = (folder / "grain.png").read_bytes()
    (folder / "bomb.png").write_bytes(png_that_claims(60_000, 60_000))
    Image.fromarray(noise()).save(folder / "cloud.webp", lossless=True)
    (folder / "empty.jpg").touch()
    (folder / "folder.png").mkdir()  # this and the next two are skipped
    os.mkfifo(folder / "pipe.png")
    (folder / "._grain.png").write_bytes(b"AppleDouble")
    frames = [Image.fromarray(grey())] * 2
    frames[0].save(folder / "cloud.png", dpi=(300, 300), save_all=True, append_images=frames[1:])
    (folder / "grain.mask.png").write_bytes(whole)
    (folder / "text.tif").write_text("no image\n")
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(grey()).save(folder / "wrong.png", format="JPEG")
    (folder / "notes.txt").write_text("not an image, and not named like one\n")
    return folder


@pytest.mark.parametrize("letter", APPROACHES)
def test_bad_images_are_told_and_the_good_ones_are_saved(
    letter: str, mixed_images: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    report = perform(letter, mixed_images, tmp_path, workers=1, instances=1)
    assert not report.ok
    assert report.images == len(expected) + len(BAD)
    assert_outputs_are_whole(report, tmp_path / "out", expected)
    assert temporary_files(tmp_path) == []
    assert report.notes == [{"image": "cloud.png", "note": "first of 2 frames"}]
    with Image.open(tmp_path / "out" / APPROACHES[letter].stem / "cloud.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
    errors = {item["image"]: item["error"] for item in report.failed_images}
    assert sorted(errors) == sorted(BAD)
    for name, problem in BAD.items():
        assert f"{mixed_images / name} {problem}" in errors[name]


@pytest.mark.parametrize("letter", "af")
@pytest.mark.parametrize("through_a_link", [False, True])
def test_an_output_folder_that_is_the_image_folder_is_refused(
    letter: str, through_a_link: bool, tmp_path: Path
) -> None:
    place = tmp_path / APPROACHES[letter].stem
    folder = make_images(tmp_path / "images" if through_a_link else place)
    if through_a_link:
        place.symlink_to(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match="would overwrite the images") as caught:
        studyguide.run(letter, images=folder, output=tmp_path, **FEW)
    assert "--output" in caught.value.remedy
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("letter", "abc")
def test_an_image_in_a_folder_that_may_not_be_entered_fails_by_name(letter: str) -> None:
    with folder_of_mode(0o444) as folder:
        report = studyguide.run(letter, images=folder, output=folder.parent / "out", **FEW)
    [failed] = report.failed_images
    assert failed["image"] == "a.png"
    assert f"{folder / 'a.png'} cannot be read (Permission denied)" in failed["error"]


@pytest.mark.parametrize("letter", ["a", "b", "c"])
def test_a_folder_of_bad_images_alone_gives_a_report_of_failures(
    letter: str, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "empty.png").touch()
    report = perform(letter, tmp_path / "images", tmp_path)
    assert (report.ok, report.outputs, len(report.failed_images)) == (False, [], 1)


def test_images_that_a_run_did_not_come_to_are_told(
    two_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def a_sequential(_run: Run) -> None:
        """Do nothing."""

    monkeypatch.setitem(APPROACHES, "a", replace(APPROACHES["a"], on_threads=a_sequential))
    report = perform("a", two_images, tmp_path)
    assert not report.ok
    errors = [item["error"] for item in report.failed_images]
    problem = "was not done: the run ended before. Run it again."
    assert errors == [f"{two_images / name} {problem}" for name in TILES]


# how a run is called


def test_events_are_handed_over_as_they_happen(two_images: Path, tmp_path: Path) -> None:
    seen: list[Event] = []
    report = perform("b", two_images, tmp_path, on_event=seen.append)
    assert sorted(seen, key=lambda event: (event.start, event.end)) == report.timeline.events


def test_nothing_but_images_is_written_when_no_log_is_wanted(
    two_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    studyguide.run("a", images=two_images, output="out", **SMALL)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"approach": "z"}, "The approach is 'z'. Use one of a b c d e f g"),
        ({"backend": "clouds"}, "The backend is 'clouds'"),
        ({"faults": ["flaky:grain.png"]}, "The fault is 'flaky:grain.png'"),
        ({"faults": ["slow:brain.png:0"]}, "brain.png, which is not among the images. Use one of"),
        ({"faults": ["slow:grain.png:0", "slow:grain.png:99"]}, "tile 99 of grain.png, which"),
        (
            {"approach": "b", "faults": ["slow:grain.png:0"]},
            "Approach b has no place for",
        ),
        ({"tile_sise": 64}, "There is no setting 'tile_sise'"),
        ({"tile_size": 0}, "The setting tile size is 0"),
        ({"kernel_size": 4}, "The kernel size is 4. Use an odd number"),
        ({"payload": "pigeon"}, "payload is 'pigeon'. Use file or redis"),
        ({"images": "no/such/folder"}, "The image folder no/such/folder does not exist"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_started(
    options: dict[str, Any], message: str, two_images: Path, tmp_path: Path
) -> None:
    given = {"images": two_images, "output": tmp_path / "out", **options}
    with pytest.raises(UsageError) as caught:
        studyguide.run(given.pop("approach", "f"), **given)
    assert message in str(caught.value)
    assert caught.value.remedy
    assert names(tmp_path) == []


def test_an_output_folder_that_cannot_be_made_is_told(two_images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/out.* cannot be written .*--output"):
        studyguide.run("a", images=two_images, output=tmp_path / "file" / "out")


def test_a_log_folder_that_cannot_be_made_is_told(two_images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/logs.* cannot be written .*--logs"):
        perform("a", two_images, tmp_path, logs=tmp_path / "file" / "logs")


# the folders of runs


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def left(folder: Path, approach: str, age_s: float, mode: int = 0o700) -> Path:
    """What a run leaves that was killed so many seconds after its start."""
    (folder / "pixels").mkdir(parents=True)
    folder.chmod(mode)
    (folder / "run.json").write_text(json.dumps({"resumable": approach == "f", "settings": {}}))
    (folder / run_folder.LOCK).touch()
    os.utime(folder / run_folder.LOCK, (time.time() - age_s,) * 2)
    return folder


DAY_S = 24 * 3600


def test_the_folder_of_a_killed_run_is_removed_by_a_later_one_unless_it_can_be_resumed(
    temporary: Path,
) -> None:
    kept = [
        left(temporary / "studyguide-0young", "e", 1),
        left(temporary / "studyguide-0resumable", "f", DAY_S),
        left(temporary / "studyguide-0others", "e", DAY_S, mode=0o755),
        left(temporary / "elsewhere", "e", DAY_S),
        left(temporary / "studyguide-0held", "e", DAY_S),
        temporary / "studyguide-0unlocked",
        temporary / "studyguide-0link",
    ]
    kept[-2].mkdir()
    kept[-1].symlink_to(temporary / "elsewhere")
    left(temporary / "studyguide-0dead", "e", DAY_S)
    left(temporary / "studyguide-0forgotten", "f", 8 * DAY_S)
    (left(temporary / "studyguide-0damaged", "f", DAY_S) / "run.json").write_text("[")
    with run_folder.hold(temporary / "studyguide-0held"):
        os.utime(temporary / "studyguide-0held" / run_folder.LOCK, (time.time() - DAY_S,) * 2)
        run_folder.sweep()
        assert sorted(temporary.iterdir()) == sorted(kept)
    run_folder.sweep()
    assert sorted(temporary.iterdir()) == sorted(set(kept) - {temporary / "studyguide-0held"})


def test_the_keys_of_a_killed_run_are_removed_or_get_a_time_to_live(
    temporary: Path,
    shared_server: RedisServer,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", shared_server.url)
    for run, approach in {"0dead": "e", "0resumable": "f", "0held": "f"}.items():
        left(temporary / f"studyguide-{run}", approach, DAY_S)
        client.set(f"{{sg-{run}}}:tasks", "x")
    client.set("{sg-0resumable}:hb:w", "x", ex=5)
    client.set("not ours", "x")
    with run_folder.hold(temporary / "studyguide-0held"):
        run_folder.sweep()
    lives = {key: client.ttl(key) for key in client.keys("*")}
    assert lives.pop("{sg-0resumable}:tasks") > 6 * DAY_S
    assert 0 < lives.pop("{sg-0resumable}:hb:w") <= 5
    assert lives == {"{sg-0held}:tasks": -1, "not ours": -1}


def test_the_temporary_folder_of_a_killed_lesson_is_removed_by_a_later_one(temporary: Path) -> None:
    program = (
        "import os, signal; from studyguide.machinery.run_folder import TemporaryFolder\n"
        "folder = TemporaryFolder('lesson'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    (folder,) = temporary.iterdir()
    os.utime(folder / run_folder.LOCK, (time.time() - DAY_S,) * 2)
    with run_folder.TemporaryFolder("lesson") as name:
        assert [path.name for path in temporary.iterdir()] == [Path(name).name]
    assert list(temporary.iterdir()) == []
