"""The command line, as people and containers call it: real processes, real signals."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import redis
from PIL import Image
from support import (
    SMALL,
    TILES,
    free_port,
    grey,
    make_images,
    noise,
    processes_with,
    temporary_files,
    wait_until,
)

from studyguide.approaches import APPROACHES
from studyguide.blur import blur_whole
from studyguide.cluster import GRACE_S
from studyguide.machinery.redis_server import RedisServer
from studyguide.record.report import read_log
from studyguide.record.timeline import EventTail
from studyguide.settings import Blur

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="this system has no /proc"
)
pytestmark = pytest.mark.usefixtures("compiled")

FLAGS = tuple(
    part for name, value in SMALL.items() for part in (f"--{name.replace('_', '-')}", str(value))
)
HASTY = ("--workers", "1", "--visibility", "1", "--patience", "2")
END_S = 120.0  # a bound for slow machines


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def expected() -> dict[str, str]:
    blur = Blur.of(5, method="separable")
    return {
        "cloud.png": digest(blur_whole(grey(), blur)),
        "grain.png": digest(blur_whole(noise(), blur)),
    }


def decoded(folder: Path) -> dict[str, str]:
    """What a folder of images holds: name -> digest of the pixels."""
    return {path.name: digest(np.asarray(Image.open(path))) for path in sorted(folder.iterdir())}


@dataclass
class Cli:
    """Starts the program in a folder of its own, by which its processes are recognised."""

    folder: Path
    images: Path

    def start(self, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
        env = {**os.environ, "TMPDIR": str(self.folder / "tmp"), **environment}
        return subprocess.Popen(
            [sys.executable, "-m", "studyguide", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=env,
        )

    def end(
        self, process: "subprocess.Popen[str]", within_s: float = END_S
    ) -> "subprocess.CompletedProcess[str]":
        with process:
            try:
                out, err = process.communicate(timeout=within_s)
            finally:
                process.kill()  # does nothing unless it hangs
        assert "Traceback" not in err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def __call__(
        self, *arguments: object, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return self.end(self.start(*arguments, **environment))

    def run(self, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        """`studyguide run` on the small images; what comes later in `arguments` counts."""
        return self(*self.run_arguments(*arguments), **environment)

    def run_arguments(self, *arguments: object) -> list[object]:
        places = ("--images", self.images, "--output", "out", "--logs", "logs")
        return ["run", *places, *FLAGS, *HASTY, *arguments]

    def left_behind(self) -> list[str]:
        return processes_with(str(self.folder))

    def saved(self, letter: str) -> dict[str, str]:
        return decoded(self.folder / "out" / APPROACHES[letter].stem)


@pytest.fixture
def cli(tmp_path: Path, two_images: Path) -> Iterator[Cli]:
    """Whatever a test does: no process and no half-written file is left."""
    (tmp_path / "tmp").mkdir()
    cli = Cli(tmp_path, two_images)
    yield cli
    wait_until(lambda: not cli.left_behind())
    assert temporary_files(tmp_path) == []


# studyguide run


def test_json_is_all_that_a_run_prints_to_stdout(cli: Cli) -> None:
    done = cli.run("a", "f", "--json", "--workers", "2")
    assert done.returncode == 0
    reports = json.loads(done.stdout)
    assert [report["approach"] for report in reports] == ["a", "f"]
    for report, tiles, workers in zip(reports, (0, sum(TILES.values())), (1, 2), strict=True):
        assert (report["images"], report["tiles"], report["workers"]) == (2, tiles, workers)
        for name in ("lost_tiles", "redelivered", "dead_letters"):
            assert report[name] == 0
        assert report["wall_s"] > 0
        assert report["blur_s"] > 0
        assert (report["backend"], report["failed_images"]) == ("local", [])
        assert [sorted(output) for output in report["outputs"]] == [["path", "pixels_sha256"]] * 2
        digests = {Path(o["path"]).name: o["pixels_sha256"] for o in report["outputs"]}
        assert digests == expected() == cli.saved(report["approach"])
    assert "same pixels as a" in done.stderr
    assert list((cli.folder / "tmp").iterdir()) == []


def test_without_json_the_comparison_is_printed_to_stdout_and_nothing_to_a_pipe(cli: Cli) -> None:
    done = cli.run("a", "b")
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = done.stdout.splitlines()
    assert header.startswith("approach")
    assert [(row[0], row.rpartition(" ")[2]) for row in rows] == [("a", "yes"), ("b", "yes")]


def test_a_run_with_bad_images_ends_with_1_and_names_them(cli: Cli) -> None:
    cli.images = make_images(cli.folder / "images")
    (cli.images / "broken.png").write_bytes((cli.images / "grain.png").read_bytes()[:999])
    (cli.images / "empty.jpg").touch()
    done = cli.run("a", "b", "--json")
    assert done.returncode == 1
    for report in json.loads(done.stdout):
        assert [item["image"] for item in report["failed_images"]] == ["broken.png", "empty.jpg"]
        assert cli.saved(report["approach"]) == expected()
        line = f"failed in {report['approach']}: {cli.images / 'empty.jpg'} is empty. Replace"
        assert line in done.stderr


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_on_purpose_counts_what_was_redelivered(cli: Cli) -> None:
    done = cli.run("f", "--json", "--kill-worker-after", "2", "--fault", "slow:grain.png:3")
    assert done.returncode == 0
    (report,) = json.loads(done.stdout)
    assert (report["lost_tiles"], report["failed_images"]) == (0, [])
    assert report["redelivered"] >= 1
    assert cli.saved("f") == expected()


WRONG = {
    "z": (["z"], "The approach is 'z'. Use any of a b c d e f g"),
    "a backend": (["a", "--backend", "clouds"], "The backend is 'clouds'. Use one of"),
    "an even kernel": (["a", "--kernel-size", "4"], "The kernel size is 4. Use an odd number"),
    "no kernel": (["f", "--kernel-size", "0"], "The kernel size is 0. Use an odd number"),
    "a negative kernel": (["a", "--kernel-size", "-3"], "The kernel size is -3. Use an odd"),
    "no sigma": (["a", "--sigma", "0"], "sigma is 0.0. Use a positive number"),
    "nan": (["g", "--sigma", "nan"], "sigma is nan. Use a positive number"),
    "no tile": (["a", "--tile-size", "0"], "The setting tile size is 0. Use a whole number"),
    "no worker": (["f", "--workers", "0"], "The setting workers is 0. Use a whole number"),
    "no patience": (["f", "--patience", "0"], "patience_s is 0.0. Use a positive number"),
    "a fault": (["f", "--fault", "x:a.png:1"], "The fault is 'x:a.png:1'. Use KIND:IMAGE:TILE"),
    "nobody to kill": (
        ["a", "d", "--kill-worker-after", "3"],
        "--kill-worker-after 3 finds no worker process to kill. Run one of e f g with it",
    ),
    "no folder": (["a", "--images", "no/such"], "The image folder no/such does not exist. Name"),
    "no image": (["f", "--images", "tmp"], "The folder tmp holds no image. Put files"),
    "output": (["f", "--output", "file/out"], "cannot be written (Not a directory). Choose"),
    "logs": (["a", "--logs", "file/logs"], "file/logs cannot be written (Not a directory)"),
    "a Redis": (["f"], "The Redis URL is 'redis:/nowhere'. Use "),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_usage_ends_with_2_and_one_line_and_starts_nothing(
    arguments: list[str], message: str, cli: Cli
) -> None:
    (cli.folder / "file").touch()
    done = cli.run("--json", *arguments, REDIS_URL="redis:/nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("studyguide: ")
    assert message in line
    assert [path for path in cli.folder.rglob("*.*") if path.is_file()] == []


EVIL = "evil\x1b[31m\nstudyguide: \u202eall well\udcff.png"
SHOWN = r"evil\x1b[31m\nstudyguide: \u202eall well\udcff.png"


def test_a_name_that_would_control_the_terminal_is_escaped_wherever_it_is_shown(cli: Cli) -> None:
    cli.images = make_images(cli.folder / "images")
    (cli.images / EVIL).touch()
    done = cli.run("a", "c")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"failed in {letter}: {cli.images}/{SHOWN} is empty. Replace or remove the file."
        for letter in "ac"
    ]
    logs = list((cli.folder / "logs").glob("*.txt"))
    for text in (path.read_text() for path in logs):
        assert f"\n  {SHOWN}: {cli.images}/{SHOWN} is empty." in text
        assert not set(text) & {"\x1b", "\u202e"}
    assert len(logs) == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["fly\x1b\n"], 2),
        (["run", "a", "--fly\x1b\n"], 2),
        (["run", "a", "--kernel-size", "\x1b\n"], 2),
        (["run", "a", "--images", "\x1b\n"], 2),
        (["run", "\x1b\n"], 2),
        (["run", "f", "--resume", "\x1b\n"], 2),
        (["trace", "\x1b\n", "trace.json"], 1),
        (["log", "f", "\x1b\n"], 1),
        (["init", "new\x1b\n"], 0),
        (["worker", "--redis", "\x1b\n"], 2),
    ],
    ids=lambda value: " ".join(value[:2]).strip() if isinstance(value, list) else "",
)
def test_an_argument_that_would_control_the_terminal_is_escaped(
    arguments: list[str], code: int, cli: Cli
) -> None:
    done = cli(*arguments)
    assert done.returncode == code
    told = done.stdout + done.stderr
    assert "\x1b" not in told
    assert r"\x1b" in told


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_needs_no_standard_input_output_or_error(closed: str, cli: Cli) -> None:
    command = ["exec", sys.executable, "-m", "studyguide", *cli.run_arguments("a", "f")]
    done = subprocess.run(
        ["/bin/sh", "-c", f"{' '.join(map(str, command))} {closed}"], cwd=cli.folder, check=False
    )
    assert done.returncode == 0
    assert cli.saved("a") == cli.saved("f") == expected()


HIT = """
import os, signal, sys

class Hit:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Hit())
if {again}:
    import atexit
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize(
    ("module", "again", "code"),
    [
        ("argparse", False, -signal.SIGINT),
        ("studyguide.settings", False, -signal.SIGINT),
        ("studyguide.approaches", False, 130),
        ("numba", False, 130),
        ("numba", True, -signal.SIGINT),
    ],
)
def test_ctrl_c_during_the_imports_and_at_the_end_shows_no_traceback(
    module: str, again: bool, code: int, cli: Cli
) -> None:
    (cli.folder / "first").mkdir()
    text = HIT.format(module=module, again=again)
    (cli.folder / "first" / "sitecustomize.py").write_text(text)
    done = cli.run("b", PYTHONPATH=str(cli.folder / "first"))
    assert done.returncode == code
    said = "studyguide: stopped\n" if "numba" in module or "approaches" in module else ""
    assert (done.stdout, done.stderr) == ("", said)


@pytest.mark.parametrize("arguments", [[], ["run"], ["run", "a", "--workers", "x"], ["fly"]])
def test_a_command_that_cannot_be_parsed_ends_with_2(arguments: list[str], cli: Cli) -> None:
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: studyguide")


# a full disk


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, or of as much as the test asks for."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = f"size={getattr(request, 'param', '64k')}"
    command = ["mount", "-t", "tmpfs", "-o", size, "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here ({error})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, room: int = 0) -> None:
    """Leave no more than so many bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(free - room))


@pytest.mark.slow
def test_an_image_that_finds_the_disk_full_is_told_and_the_others_are_saved(
    cli: Cli, small_disk: Path
) -> None:
    cli.images = make_images(cli.folder / "images")
    large = np.random.default_rng(1).integers(0, 256, (200, 200, 4), dtype=np.uint8)
    Image.fromarray(large).save(cli.images / "large.png")
    (cli.images / "grain.png").unlink()
    done = cli.run("a", "c", "f", "--json", "--kernel-size", "1", "--output", small_disk)
    assert done.returncode == 1
    reports = json.loads(done.stdout)
    assert [report["approach"] for report in reports] == ["a", "c", "f"]
    for report in reports:
        (failed,) = report["failed_images"]
        folder = small_disk / APPROACHES[report["approach"]].stem
        problem = f"{folder / 'large.png'} cannot be saved (No space left on device). Free some"
        assert problem in failed["error"]
        assert decoded(folder) == {"cloud.png": digest(grey())}
    assert temporary_files(small_disk) == []


def test_a_log_that_finds_the_disk_full_is_told_and_the_images_are_saved(
    cli: Cli, small_disk: Path
) -> None:
    fill(small_disk)
    done = cli.run("a", "--logs", small_disk)
    assert done.returncode == 1
    assert "cannot be written (No space left on device)" in done.stderr
    assert cli.saved("a") == expected()
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_without_a_report_no_table_is_printed(cli: Cli) -> None:
    done = cli.run("f", "--backend", "kubernetes", PATH="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "studyguide: approach f: " in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("room", [4096, 8192, 16384])
def test_a_run_that_finds_the_disk_of_its_own_files_full_ends_with_1(
    cli: Cli, small_disk: Path, room: int
) -> None:
    fill(small_disk, room)
    done = cli.run("f", "--json", TMPDIR=str(small_disk))
    assert (done.returncode, json.loads(done.stdout)) == (1, [])
    assert "studyguide: approach f: " in done.stderr
    assert str(small_disk) in done.stderr
    for kept in small_disk.glob("studyguide-*"):
        assert f"--resume {kept.name.removeprefix('studyguide-')} goes on with it" in done.stderr
        shutil.rmtree(kept)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["1m"], indirect=True)
def test_a_run_that_found_the_disk_full_goes_on_once_there_is_room(
    cli: Cli, small_disk: Path
) -> None:
    arguments = cli.run_arguments("f", "--fault", "slow:grain.png:7")
    process = cli.start(*arguments, TMPDIR=str(small_disk))
    folder: Path = wait_until(lambda: next(small_disk.glob("studyguide-*"), None))
    wait_until(lambda: ("grain.png", 7) in tiles_of(folder, "wait"))
    fill(small_disk)
    done = cli.end(process)
    assert done.returncode == 1
    assert "approach f: " in done.stderr
    run = folder.name.removeprefix("studyguide-")
    assert f"--resume {run} goes on with it" in done.stderr
    (small_disk / "filler").unlink()
    finished = set(tiles_of(folder, "transfer"))
    assert finished
    done = cli("run", "f", "--logs", "logs", "--resume", run, TMPDIR=str(small_disk))
    assert done.returncode == 0, done.stderr
    assert cli.saved("f") == expected()
    (log,) = (cli.folder / "logs").glob("*.json")
    blurs = Counter((e.image, e.tile) for e in read_log(log).timeline.of("blur"))
    assert {tile: blurs[tile] for tile in finished} == dict.fromkeys(finished, 1)
    assert list(small_disk.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["1m"], indirect=True)
def test_a_folder_that_becomes_read_only_in_mid_run_is_told_and_what_is_saved_is_whole(
    cli: Cli, small_disk: Path
) -> None:
    output = small_disk / APPROACHES["f"].stem
    slowly = ("--fault", "slow:grain.png:7", "--output", small_disk)
    process = cli.start(*cli.run_arguments("f", "--json", *slowly))
    wait_until(lambda: (output / "cloud.png").exists())
    remount = ["mount", "-o", "remount", str(small_disk)]
    subprocess.run([*remount, "-o", "ro"], check=True)
    done = cli.end(process)
    assert done.returncode == 1
    (report,) = json.loads(done.stdout)
    (failed,) = report["failed_images"]
    problem = f"{output / 'grain.png'} cannot be saved (Read-only file system)."
    assert failed["error"].startswith(problem)
    assert decoded(output) == {"cloud.png": expected()["cloud.png"]}
    subprocess.run([*remount, "-o", "rw"], check=True)
    assert cli.run("f", "--output", small_disk).returncode == 0
    assert decoded(output) == expected()


# a file goes away


@pytest.mark.slow
def test_an_image_that_is_deleted_in_mid_run_is_told_and_the_others_are_saved(cli: Cli) -> None:
    cli.images = make_images(cli.folder / "images")
    slowly = ("--queue-size", 1, "--fault", "slow:cloud.png:0")
    process = cli.start(*cli.run_arguments("f", "--json", *slowly))
    folder: Path = wait_until(lambda: next((cli.folder / "tmp").glob("studyguide-*"), None))
    wait_until(lambda: ("cloud.png", 0) in tiles_of(folder, "wait"))
    (cli.images / "grain.png").unlink()
    done = cli.end(process)
    assert done.returncode == 1
    ((failed,),) = (report["failed_images"] for report in json.loads(done.stdout))
    assert failed["image"] == "grain.png"
    assert failed["error"].startswith(f"{cli.images / 'grain.png'} is gone. Restore the file")
    assert cli.saved("f") == {
        "cloud.png": digest(blur_whole(grey(), Blur.of(5, method="separable")))
    }


# what is read is checked


@pytest.mark.parametrize(
    "events", [b"\xff\xfe\n", b"[" * 100_000, b'{"stage":"save","start":0,"end":0}\n', b'{"a":1}\n']
)
def test_an_event_log_that_is_damaged_is_told_by_name_in_one_line(events: bytes, cli: Cli) -> None:
    (cli.folder / "f.jsonl").write_bytes(events)
    done = cli("log", "f", "f.jsonl")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("studyguide: f.jsonl: Not an event of schema 1")
    assert line.endswith("Fetch the events again.")


# Redis is not as it should be


@pytest.mark.slow
def test_a_redis_that_is_not_there_is_told(cli: Cli) -> None:
    port = free_port()
    url = f"redis://:secret@127.0.0.1:{port}/0"
    done = cli.run("e", "f", "g", "--json", REDIS_URL=url)
    assert (done.returncode, json.loads(done.stdout)) == (1, [])
    for letter in "efg":
        problem = f"approach {letter}: The server at redis://:***@127.0.0.1:{port}/0 cannot be"
        assert problem in done.stderr
    assert "Check host, port" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.slow
def test_a_wrong_password_is_told_and_not_shown(cli: Cli, shared_server: RedisServer) -> None:
    url = f"redis://:secret@127.0.0.1:{shared_server.port}/0"
    done = cli.run("f", "--json", REDIS_URL=url)
    assert (done.returncode, json.loads(done.stdout)) == (1, [])
    assert "refuses the password" in done.stderr
    assert "Give it as redis://:PASSWORD@HOST:PORT/0" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.slow
def test_a_redis_that_goes_away_in_mid_run_is_told_once_our_patience_ends(
    cli: Cli, tmp_path: Path
) -> None:
    slow = [part for n in range(12) for part in ("--fault", f"slow:grain.png:{n}")]
    with RedisServer.start(tmp_path / "redis", persistent=False) as server:
        runs = [
            cli.start(*cli.run_arguments(letter, "--json", *slow), REDIS_URL=server.url)
            for letter in "ef"
        ]
        with redis.Redis.from_url(server.url) as client:
            for progress in ("*received", "*res:*"):  # a result of e, and one of f
                wait_until(lambda progress=progress: client.keys(progress))
        server.kill()
        ended = [cli.end(run) for run in runs]
    for done in ended:
        assert (done.returncode, json.loads(done.stdout)) == (1, [])
        assert f"redis://:***@127.0.0.1:{server.port}/0 did not answer for 2 s" in done.stderr
        assert server.url.split("@")[0] not in done.stderr


# nobody is left behind


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
)
def test_a_run_that_is_stopped_leaves_no_process_behind(
    number: signal.Signals, code: int, cli: Cli
) -> None:
    process = cli.start(*cli.run_arguments("f", "--fault", "slow:cloud.png:0"))

    def is_blurring() -> bool:
        logs = (cli.folder / "tmp").glob("*/events/worker-*.jsonl")
        return any('"image":"cloud.png"' in log.read_text() for log in logs)

    wait_until(is_blurring)
    running = cli.left_behind()
    for part in ("-server", "worker-0.json", "assembler-0.json", "coordinator-0.json"):
        assert any(part in command for command in running)
    process.send_signal(number)
    done = cli.end(process)
    assert done.returncode == code
    wait_until(lambda: not cli.left_behind())
    (kept,) = (cli.folder / "tmp").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o700
    run = kept.name.removeprefix("studyguide-")
    assert f"run {run}, in {kept}" in done.stderr
    if number != signal.SIGKILL:  # which leaves us no last word
        assert f"--resume {run} goes on with it" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_init_that_is_stopped_leaves_no_half_of_a_course(
    number: signal.Signals, code: int, cli: Cli
) -> None:
    (cli.folder / "first").mkdir()
    text = f"import os, shutil\nshutil.copyfile = lambda *_: os.kill(os.getpid(), {int(number)})\n"
    (cli.folder / "first" / "sitecustomize.py").write_text(text)
    done = cli("init", "course", PYTHONPATH=str(cli.folder / "first"))
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert sorted(path.name for path in cli.folder.iterdir()) == ["first", "tmp"]


@pytest.mark.slow
@needs_proc
def test_the_password_of_a_run_is_in_no_process_list_and_in_nothing_that_it_writes(
    cli: Cli,
) -> None:
    process = cli.start(*cli.run_arguments("f", "--fault", "slow:grain.png:7"))
    folder: Path = wait_until(lambda: next((cli.folder / "tmp").glob("studyguide-*/events"), None))
    config = (folder.parent / "redis" / "redis.conf").read_text()
    password = next(line.split()[1] for line in config.splitlines() if "requirepass" in line)
    wait_until(lambda: ("grain.png", 7) in tiles_of(folder.parent, "wait"))
    assert len(cli.left_behind()) > 5
    assert [command for command in cli.left_behind() if password in command] == []
    done = cli.end(process)
    assert done.returncode == 0
    written = [path for path in cli.folder.rglob("*") if path.is_file()]
    assert len(written) >= 4
    assert [path for path in written if password.encode() in path.read_bytes()] == []
    assert password not in done.stdout + done.stderr


# a run that was cut short goes on


def kill_all(cli: Cli) -> None:
    """SIGKILL every process of a run, those that would clean up after others first."""
    while found := cli.left_behind():
        for pid in (int(command.split()[0]) for command in found):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def tiles_of(folder: Path, stage: str) -> list[tuple[str, int]]:
    return [
        (event.image, event.tile)
        for event in EventTail(folder / "events").read()
        if event.stage == stage and event.tile >= 0
    ]


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("letter", ["f", "g"])
def test_a_run_whose_every_process_was_killed_goes_on_and_repeats_no_finished_tile(
    letter: str, cli: Cli
) -> None:
    process = cli.start(*cli.run_arguments(letter, "--fault", "slow:grain.png:7"))
    folder: Path = wait_until(lambda: next((cli.folder / "tmp").glob("studyguide-*"), None))
    wait_until(lambda: ("grain.png", 7) in tiles_of(folder, "wait"))
    kill_all(cli)
    assert cli.end(process).returncode == -signal.SIGKILL
    finished = set(tiles_of(folder, "transfer"))
    assert finished
    assert ("grain.png", 7) not in finished
    run = folder.name.removeprefix("studyguide-")
    places = ("--logs", "logs")
    other = "g" if letter == "f" else "f"
    assert "There is no run" in cli("run", other, *places, "--resume", run).stderr
    done = cli("run", letter, *places, "--resume", run, "--json")
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    assert report["ledger"]["assembled"] == sum(TILES.values())
    assert report["lost_tiles"] == 0
    assert cli.saved(letter) == expected()
    (log,) = (cli.folder / "logs").glob("*.json")
    blurs = Counter((e.image, e.tile) for e in read_log(log).timeline.of("blur"))
    assert {tile: blurs[tile] for tile in finished} == dict.fromkeys(finished, 1)
    assert set(blurs) == {(name, n) for name, count in TILES.items() for n in range(count)}
    assert list((cli.folder / "tmp").iterdir()) == []


@pytest.mark.slow
@needs_proc
def test_a_run_that_still_goes_on_is_not_resumed(cli: Cli) -> None:
    process = cli.start(*cli.run_arguments("f", "--fault", "slow:grain.png:7"))
    folder: Path = wait_until(lambda: next((cli.folder / "tmp").glob("studyguide-*/events"), None))
    run = folder.parent.name.removeprefix("studyguide-")
    done = cli("run", "f", "--resume", run)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"The run {run} still goes on. Wait for its end." in done.stderr
    assert cli.end(process).returncode == 0
    assert cli.saved("f") == expected()


@pytest.mark.parametrize(
    ("letter", "run"), [("f", "1234abcd"), ("f", "x/../elsewhere"), ("f", "../y"), ("a", "1234")]
)
def test_a_run_that_is_not_there_is_not_resumed(letter: str, run: str, cli: Cli) -> None:
    for folder in ("studyguide-x", "elsewhere", "studyguide-1234"):
        (cli.folder / "tmp" / folder).mkdir(parents=True)
        text = '{"approach": "f", "settings": {}}'
        (cli.folder / "tmp" / folder / "run.json").write_text(text)
    done = cli("run", letter, "--resume", run)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert f"There is no run {run!r} to resume in" in line


# roles by hand


@dataclass
class Hand:
    """Starts roles of one run as containers would."""

    cli: Cli
    url: str

    def start(self, role: str, *options: object) -> "subprocess.Popen[str]":
        places = ("--images", self.cli.images, "--output", "out", "--folder", "shared")
        where = ("--redis", self.url, "--prefix", "{hand}:", "--run", "by-hand")
        return self.cli.start(role, *places, *where, *FLAGS, "--visibility", "1", *options)

    def wait_for(self, name: str, text: str) -> None:
        log = self.cli.folder / "shared" / "events" / f"{name}.jsonl"
        wait_until(lambda: log.exists() and text in log.read_text())

    def events(self, name: str, stage: str) -> list[tuple[str, int]]:
        lines = (self.cli.folder / "shared" / "events" / f"{name}.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return [(e["image"], e["tile"]) for e in events if e["stage"] == stage and e["image"]]

    def drain(self, process: "subprocess.Popen[str]") -> int:
        process.send_signal(signal.SIGTERM)
        return self.cli.end(process, GRACE_S).returncode


@pytest.fixture
def hand(cli: Cli, shared_server: RedisServer, client: redis.Redis) -> Hand:
    return Hand(cli, shared_server.url)


@pytest.mark.slow
def test_roles_that_are_started_one_by_one_do_the_job_and_drain_when_told(hand: Hand) -> None:
    approach = ("--approach", "f", "--workers", 1)
    first = hand.start("worker", *approach, "--name", "first", "--fault", "slow:cloud.png:0")
    coordinator = hand.start("coordinator", *approach, "--name", "coordinator")
    assembler = hand.start("assembler", *approach, "--name", "assembler")
    hand.wait_for("first", '"stage":"wait"')
    assert hand.drain(first) == 0
    assert hand.events("first", "wait") == [("cloud.png", 0)]
    assert hand.events("first", "transfer") == [("cloud.png", 0)]
    second = hand.start("worker", *approach, "--name", "second")
    assert hand.cli.end(coordinator).returncode == 0
    assert [hand.drain(process) for process in (second, assembler)] == [0, 0]
    assert decoded(hand.cli.folder / "out") == expected()


@pytest.mark.parametrize("letter", ["e", "f"])
def test_a_coordinator_that_is_told_to_stop_too_early_does_not_say_that_all_is_well(
    letter: str, hand: Hand
) -> None:
    coordinator = hand.start("coordinator", "--approach", letter, "--name", "coordinator")
    hand.wait_for("coordinator", '"stage":"enqueue"')
    assert hand.drain(coordinator) == 143


def test_one_service_with_all_roles_does_the_whole_job_alone(hand: Hand) -> None:
    done = hand.cli.end(hand.start("service", "--mode", "all", "--workers", 2, "--name", "all"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert decoded(hand.cli.folder / "out") == expected()


@pytest.mark.slow
def test_logs_are_json_lines_if_asked_for_and_name_run_worker_image_tile_and_attempt(
    hand: Hand,
) -> None:
    port = free_port()
    telling = ("--verbose", "--log-format", "json", "--metrics-port", port)
    fault = ("--fault", "flaky:grain.png:3", "--fault", "slow:grain.png:5")
    role = hand.start("service", "--workers", 1, "--name", "all", *telling, *fault)
    hand.wait_for("all", '"retry"')
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        assert 'studyguide_tiles_total{outcome="retried"} 1.0\n' in page.read().decode()
    done = hand.cli.end(role)
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    told = ("level", "run", "worker", "stage", "image", "tile", "attempt")
    (retry,) = ([line[key] for key in told] for line in lines if line.get("stage") == "retry")
    assert retry == ["INFO", "by-hand", "all/worker-0", "retry", "grain.png", 3, 1]
    assert {line["logger"] for line in lines} == {"studyguide.roles"}


def test_an_error_is_a_json_line_as_well_and_holds_no_password(cli: Cli) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    done = cli("worker", "--patience", "0.5", "--redis", url, "--log-format", "json")
    assert done.returncode == 75
    line = json.loads(done.stderr)
    assert line["level"] == "ERROR"
    assert "did not answer for 0.5 s" in line["message"]
    assert "secret" not in done.stderr


@pytest.mark.slow
def test_a_service_that_met_a_bad_image_does_the_others_and_ends_with_1(hand: Hand) -> None:
    hand.cli.images = make_images(hand.cli.folder / "images")
    (hand.cli.images / "empty.png").touch()
    options = ("--workers", 2, "--name", "all", "--payload", "redis")
    assert hand.cli.end(hand.start("service", *options)).returncode == 1
    assert decoded(hand.cli.folder / "out") == expected()
    assert hand.events("all", "failed") == [("empty.png", -1)]


@pytest.mark.slow
def test_roles_that_wait_for_redis_end_when_told(hand: Hand, tmp_path: Path) -> None:
    """Two whose server stopped answering, and one whose server never did."""
    with (
        RedisServer.start(tmp_path / "redis", persistent=False) as server,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        hand.url = server.url
        start = partial(hand.start, "worker", "--workers", 1)
        roles = [start("--approach", n, "--name", n, "--prefix", n) for n in "ef"]
        hand.url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        roles.append(start())
        for name in "ef":
            hand.wait_for(name, '"stage":"start"')
        with silent.accept()[0]:
            server.pause()
            for role in roles:
                role.send_signal(signal.SIGTERM)
            assert [hand.cli.end(role, GRACE_S).returncode for role in roles] == [0, 0, 0]


UNUSABLE: dict[str, tuple[int, str, Callable[[RedisServer], list[str]]]] = {
    "none": (2, "No Redis is named. Use --redis URL or set REDIS_URL.", lambda _: []),
    "malformed": (2, "The Redis URL is 'nowhere'", lambda _: ["--redis", "nowhere"]),
    "absent": (
        75,
        "did not answer for 0.5 s",
        lambda _: ["--redis", f"redis://:secret@127.0.0.1:{free_port()}/0"],
    ),
    "wrong password": (
        75,
        "refuses our password",
        lambda server: ["--redis", f"redis://:secret@127.0.0.1:{server.port}/0"],
    ),
}


@pytest.mark.parametrize(("code", "message", "options"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_role_that_cannot_use_its_redis_says_so(
    code: int, message: str, options: Any, cli: Cli, shared_server: RedisServer
) -> None:
    done = cli("worker", "--patience", "0.5", *options(shared_server))
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert message in line
    assert "secret" not in line


def test_a_service_cannot_run_the_roles_of_e(cli: Cli) -> None:
    """They are processes of one role each: all of them in one would be another approach."""
    done = cli("service", "--approach", "e", "--redis", "redis://127.0.0.1/0")
    assert done.returncode == 2
    assert "The approach 'e' has no role all. Use one of f g." in done.stderr


# studyguide doctor


@pytest.mark.slow
def test_the_doctor_says_what_is_here_and_what_will_be_used(cli: Cli) -> None:
    done = cli("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    found = {line[:12].strip(): line[12:].strip() for line in done.stdout.splitlines()}
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cores"] == str(os.cpu_count())
    assert found["numpy"] == np.__version__
    assert re.fullmatch(r"[\w-]+, started for each run", found["Redis server"])
    assert found["cluster"]


@pytest.mark.slow
def test_the_doctor_looks_at_the_redis_that_the_environment_names(
    cli: Cli, shared_server: RedisServer
) -> None:
    done = cli("doctor", REDIS_URL=shared_server.url)
    assert (
        f"{shared_server.version} at redis://:***@127.0.0.1:{shared_server.port}/0" in done.stdout
    )
    done = cli("doctor", REDIS_URL=f"redis://:secret@127.0.0.1:{free_port()}/0")
    assert done.returncode == 0
    assert "none: The server at redis://:***@" in done.stdout
    assert "secret" not in done.stdout
