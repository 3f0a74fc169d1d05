"""The folder that pods share, with real processes on the loopback interface."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support import wait_until

SHARE = Path(__file__).parents[1] / "k8s" / "share.py"
NAME = "name with ä and %41.png"


class Pods:
    """Processes of share.py, each with a /data of its own as if in a pod of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        (folder / "samples").mkdir()
        (folder / "samples" / NAME).write_bytes(b"sample")
        self._running: list[subprocess.Popen[bytes]] = []

    def data(self, pod: str) -> Path:
        folder = self.folder / pod
        folder.mkdir(exist_ok=True)
        return folder

    def start(
        self, pod: str, *arguments: str, before: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        env = {
            **os.environ,
            "SHARE_DATA": str(self.data(pod)),
            "SHARE_CLAIM": str(self.folder / "claim"),
            "SHARE_SAMPLES": str(self.folder / "samples"),
            "SHARE_HOST": self.host,
        }
        process = subprocess.Popen([*before, sys.executable, str(SHARE), *arguments], env=env)
        self._running.append(process)
        return process

    def keep(self, max_bytes: int = 0) -> Path:
        """Start the pod `files`; `max_bytes` is the size of a file at which its claim is full."""
        limit = f'ulimit -f {max_bytes // 1024}; exec "$@"'
        full = ["bash", "-c", limit, "bash"] if max_bytes else []
        self.keeper = self.start("files", "keep", before=full)
        wait_until(self.answers)
        return self.data("files")

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"http://{self.host}/").status == 200
        except OSError:
            return False

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    pods = Pods(tmp_path)
    yield pods
    pods.end()


def test_a_pod_waits_for_images_where_those_of_a_run_come_and_not_the_samples(pods: Pods) -> None:
    shutil.rmtree(pods.folder / "samples")
    kept = pods.keep()
    pulling = pods.start("role", "pull", "input")
    (kept / "input" / "first.png").write_bytes(b"first")
    time.sleep(1)
    assert pulling.poll() is None, "it did not wait for the others"
    (kept / "input" / "second.png").write_bytes(b"second")
    (kept / "run" / ".complete").touch()
    assert pulling.wait(60) == 0
    names = sorted(path.name for path in (pods.data("role") / "input").iterdir())
    assert names == ["first.png", "second.png"]


def test_a_pod_fetches_images_also_if_it_is_there_before_files(pods: Pods) -> None:
    pulling = pods.start("role", "pull", "input")
    pods.keep()
    assert pulling.wait(60) == 0
    assert (pods.data("role") / "input" / NAME).read_bytes() == b"sample"


def test_files_lie_on_the_claim_if_there_is_one_and_samples_do_not_replace_images(
    pods: Pods,
) -> None:
    images = pods.folder / "claim" / "input"
    images.mkdir(parents=True)
    (images / "own.png").write_bytes(b"own")
    kept = pods.keep()
    assert [path.name for path in (kept / "input").iterdir()] == ["own.png"]
    assert (kept / "output").resolve() == pods.folder / "claim" / "output"


def test_what_a_role_writes_arrives_while_it_runs_and_grows_with_it(pods: Pods) -> None:
    kept = pods.keep() / "run" / "events" / "w.jsonl"
    written = pods.data("role") / "run" / "events" / "w.jsonl"
    written.parent.mkdir(parents=True)
    written.write_text("one\n")
    pods.start("role", "push", "run/events", "output")
    wait_until(lambda: kept.exists() and kept.read_text() == "one\n")
    with written.open("a") as file:
        file.write("two\n")
    wait_until(lambda: kept.read_text() == "one\ntwo\n")


def test_the_last_that_a_role_wrote_arrives_when_its_pod_ends(pods: Pods) -> None:
    kept, output = pods.keep() / "output" / "e", pods.data("role") / "output" / "e"
    output.mkdir(parents=True)
    pushing = pods.start("role", "push", "run/events", "output")
    (output / "first.png").write_bytes(b"whole")
    wait_until((kept / "first.png").exists)
    (output / f".{NAME}.1-2.tmp").write_bytes(b"half")
    (output / NAME).write_bytes(b"whole")
    pushing.send_signal(signal.SIGTERM)
    assert pushing.wait(60) == 0
    assert sorted(path.name for path in kept.iterdir()) == ["first.png", NAME]


def test_an_image_arrives_before_the_event_that_tells_of_it(pods: Pods) -> None:
    kept, data = pods.keep(), pods.data("role")
    (data / "run" / "events").mkdir(parents=True)
    pods.start("role", "push", "run/events", "output")
    for n in range(40):
        (data / "output").mkdir(exist_ok=True)
        (data / "output" / f"{n}.png").write_bytes(bytes(100_000))
        with (data / "run" / "events" / "a.jsonl").open("a") as file:
            file.write(f"{n}\n")
        told = kept / "run" / "events" / "a.jsonl"
        for line in told.read_text().splitlines() if told.exists() else []:
            assert (kept / "output" / f"{line}.png").exists()
    wait_until(lambda: told.exists() and told.read_text().endswith("39\n"))


@pytest.mark.parametrize("name", ["../outside", "run/../../outside", "%2e%2e/outside"])
def test_names_that_lead_out_of_the_folder_are_refused(pods: Pods, name: str) -> None:
    pods.keep()
    request = urllib.request.Request(f"http://{pods.host}/{name}", b"x", method="PUT")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request)
    refusal.value.close()
    assert refusal.value.code == 500
    assert not (pods.folder / "outside").exists()


def put(pods: Pods, name: str, *headers: str, body: bytes = b"") -> int:
    """The status that a hand-made request gets."""
    lines = [f"PUT /{name} HTTP/1.0", *headers, "", ""]
    host, _, port = pods.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("verb", ["GET", "PUT"])
def test_links_that_lead_out_of_the_folder_are_not_followed(pods: Pods, verb: str) -> None:
    kept = pods.keep()
    (pods.folder / "secret").write_text("not theirs")
    (kept / "input" / "file.png").symlink_to(pods.folder / "secret")
    (kept / "input" / "folder").symlink_to(pods.folder)
    for name in ("input/file.png", "input/folder/secret"):
        body = b"overwritten" if verb == "PUT" else None
        request = urllib.request.Request(f"http://{pods.host}/{name}", body, method=verb)
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(request)
        refusal.value.close()
    assert (pods.folder / "secret").read_text() == "not theirs"


@pytest.mark.parametrize(
    "headers", [[], ["Content-Length: x"], ["Content-Length: -1"], ["Content-Length: 1073741825"]]
)
def test_a_file_without_a_length_or_too_large_is_refused(pods: Pods, headers: list[str]) -> None:
    kept = pods.keep()
    assert put(pods, "output/a.png", *headers, body=b"x") == 500
    assert put(pods, "output/b.png", "Content-Length: 1", body=b"x") == 204
    assert sorted(path.name for path in (kept / "output").iterdir()) == ["b.png"]


# --- what must not go wrong ----------------------------------------------------------------------

ODD_NAMES = ["line\nbreak.png", "separator\u2028.png", os.fsdecode(b"bytes \xff.png"), ".dot.png"]


def unfinished(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.tmp"))


def test_a_file_whose_sender_dies_halfway_stays_as_it_was(pods: Pods) -> None:
    kept = pods.keep() / "output" / "a.png"
    assert put(pods, "output/a.png", "Content-Length: 5", body=b"whole") == 204
    host, _, port = pods.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"PUT /output/a.png HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        connection.shutdown(socket.SHUT_WR)
        connection.makefile("rb").read()  # until the server has closed its side
    assert kept.read_bytes() == b"whole"
    assert unfinished(kept.parent) == []


def test_what_cannot_be_written_leaves_nothing_behind_and_holds_nothing_else_up(pods: Pods) -> None:
    kept, data = pods.keep(max_bytes=1_000_000), pods.data("role")
    (data / "output" / "e").mkdir(parents=True)
    (data / "run" / "events").mkdir(parents=True)
    (data / "output" / "e" / "a.png").write_bytes(bytes(2_000_000))
    (data / "output" / "e" / "b.png").write_bytes(b"small")
    (data / "run" / "events" / "w.jsonl").write_text("event\n")
    pods.start("role", "push", "run/events", "output")
    wait_until((kept / "run" / "events" / "w.jsonl").exists)
    assert [path.name for path in (kept / "output" / "e").iterdir()] == ["b.png"]


def test_what_a_killed_pod_was_writing_is_removed_when_files_starts(pods: Pods) -> None:
    half = pods.data("files") / "output" / "e" / ".a.png.12345.tmp"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    pods.keep()
    assert not half.exists()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")
def test_large_files_pass_in_parts(pods: Pods) -> None:
    size = 150 * 2**20  # far less fits a pod's memory beside Python
    large = pods.data("role") / "output" / "large.png"
    large.parent.mkdir()
    with large.open("wb") as file:
        file.truncate(size)
    kept = pods.keep() / "output" / "large.png"
    pushing = pods.start("role", "push", "run/events", "output")
    wait_until(kept.exists)
    pulling = pods.start("other", "pull", "output")
    assert pulling.wait(60) == 0
    assert (pods.data("other") / "output" / "large.png").stat().st_size == size
    for process in (pods.keeper, pushing):
        status = Path(f"/proc/{process.pid}/status").read_text()
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        assert int(peak) * 1024 < size / 2


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_any_name_of_an_image_passes_both_ways(pods: Pods, name: str) -> None:
    kept, data = pods.keep(), pods.data("role")
    (kept / "input" / name).write_bytes(b"image")
    assert pods.start("role", "pull", "input").wait(60) == 0
    assert (data / "input" / name).read_bytes() == b"image"
    (data / "output").mkdir()
    (data / "output" / name).write_bytes(b"blurred")
    pods.start("role", "push", "run/events", "output")
    wait_until((kept / "output" / name).exists)
    assert (kept / "output" / name).read_bytes() == b"blurred"


def test_a_new_pod_files_gets_again_what_the_old_one_had(pods: Pods) -> None:
    kept, data = pods.keep(), pods.data("role")
    (data / "output" / "e").mkdir(parents=True)
    (data / "run" / "events").mkdir(parents=True)
    (data / "output" / "e" / "a.png").write_bytes(b"image")
    (data / "run" / "events" / "w.jsonl").write_text("event\n")
    pods.start("role", "push", "run/events", "output")
    wait_until((kept / "run" / "events" / "w.jsonl").exists)
    pods.keeper.kill()
    pods.keeper.wait()
    shutil.rmtree(kept)
    pods.keep()
    wait_until((kept / "run" / "events" / "w.jsonl").exists)
    assert (kept / "output" / "e" / "a.png").read_bytes() == b"image"
    assert (kept / "run" / "events" / "w.jsonl").read_text() == "event\n"


def test_what_was_removed_on_purpose_does_not_come_back_when_files_restarts(pods: Pods) -> None:
    kept, output = pods.keep(), pods.data("role") / "output"
    output.mkdir()
    (output / "old.png").write_bytes(b"image")
    pods.start("role", "push", "run/events", "output")
    wait_until((kept / "output" / "old.png").exists)
    (kept / "output" / "old.png").unlink()
    pods.keeper.kill()
    pods.keeper.wait()
    pods.keep()
    (output / "new.png").write_bytes(b"image")
    wait_until((kept / "output" / "new.png").exists)
    assert not (kept / "output" / "old.png").exists()


def test_only_the_new_part_of_a_growing_file_is_sent(pods: Pods) -> None:
    kept = pods.keep() / "run" / "events" / "w.jsonl"
    written = pods.data("role") / "run" / "events" / "w.jsonl"
    written.parent.mkdir(parents=True)
    written.write_text("one\n")
    pods.start("role", "push", "run/events", "output")
    wait_until(lambda: kept.exists() and kept.read_text() == "one\n")
    kept.write_text("ONE\n")  # a part that is not sent again stays as it is
    with written.open("a") as file:
        file.write("two\n")
    wait_until(lambda: kept.read_text() == "ONE\ntwo\n")
    kept.write_text("")  # lost: of another length than the sender believes
    with written.open("a") as file:
        file.write("three\n")
    wait_until(lambda: kept.read_text() == "one\ntwo\nthree\n")
