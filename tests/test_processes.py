"""Real processes: what a child does, and that none outlives its owner."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import failing

from studyguide.errors import StudyguideError, ToolError
from studyguide.machinery.processes import Child, Reaper

WAIT_S = 10.0  # a bound for slow machines; the waits end as soon as they can

# Prints the ids of all that must be gone after its end: the helper, a child and a grandchild.
OWNER = """
import os, sys, time
from pathlib import Path
from studyguide.machinery.processes import Child, Reaper
log, end = Path(sys.argv[1]), sys.argv[2]
reaper = Reaper()
child = Child("child", ["/bin/sh", "-c", "sleep 60 & echo $!; wait"], os.environ, log, reaper)
while not log.read_text().endswith("\\n"):
    time.sleep(0.01)
copy = os.fork() if end == "fork" else None
if copy == 0:
    time.sleep(60)
    os._exit(0)
print(reaper._helper.pid, child.pid, int(log.read_text()), copy or "", flush=True)
if end == "raise":
    raise RuntimeError("the owner fails")
while end != "exit":
    time.sleep(0.01)
"""
SIGNALS = {"terminate": signal.SIGTERM, "interrupt": signal.SIGINT, "kill": signal.SIGKILL}


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody collects does not."""
    status = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + WAIT_S
    while alive := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {alive}"
        time.sleep(0.01)


def wait_for_text(child: Child, text: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while text not in child.tail():
        assert time.monotonic() < deadline, f"no {text!r} in {child.tail()!r}"
        time.sleep(0.01)


@pytest.fixture
def reaper() -> Iterator[Reaper]:
    reaper = Reaper()
    yield reaper
    reaper.close()


def start(reaper: Reaper, folder: Path, code: str) -> Child:
    return Child("child", [sys.executable, "-c", code], os.environ, folder / "log", reaper)


def test_a_child_gives_its_exit_code_and_its_output(reaper: Reaper, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    code = "import os, sys; print(os.environ['A'], sys.stdin.read(), flush=True); sys.exit('bad')"
    child = Child("child", [sys.executable, "-c", code], {"A": "set"}, log, reaper)
    assert child.wait(WAIT_S) == 1
    assert child.poll() == 1
    assert child.tail().split() == ["set", "bad"]
    assert child.tail(lines=1) == "bad"


def test_a_missing_program_ends_with_127_and_its_name_in_the_log(
    reaper: Reaper, tmp_path: Path
) -> None:
    child = Child("child", ["/no/such/program"], os.environ, tmp_path / "log", reaper)
    assert child.wait(WAIT_S) == 127
    assert "/no/such/program" in child.tail()


def test_waiting_for_a_running_child_gives_none_after_the_time_out(
    reaper: Reaper, tmp_path: Path
) -> None:
    child = start(reaper, tmp_path, "import time; time.sleep(60)")
    assert child.wait(0.01) is None
    assert child.poll() is None
    child.kill()
    assert child.wait(WAIT_S) == -signal.SIGKILL


def test_signals_to_a_child_that_has_ended_do_nothing(reaper: Reaper, tmp_path: Path) -> None:
    child = start(reaper, tmp_path, "")
    child.wait(WAIT_S)
    for signal_it in (child.kill, child.terminate, child.pause, child.resume):
        signal_it()
    assert child.stop(grace_s=0) == 0


def test_a_paused_child_stands_still_until_it_is_resumed(reaper: Reaper, tmp_path: Path) -> None:
    code = "import time\nwhile True: print('tick', flush=True); time.sleep(0.01)"
    child = start(reaper, tmp_path, code)
    wait_for_text(child, "tick")
    child.pause()
    os.waitpid(child.pid, os.WUNTRACED)  # returns once it has stopped
    size = child.log.stat().st_size
    time.sleep(0.1)
    assert child.log.stat().st_size == size
    child.resume()
    deadline = time.monotonic() + WAIT_S
    while child.log.stat().st_size == size:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.stop(grace_s=0)


def test_stopping_lets_a_paused_child_finish_by_itself(reaper: Reaper, tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.01)"  # a signal just before one long sleep would wait for its end
    )
    child = start(reaper, tmp_path, code)
    wait_for_text(child, "ready")
    child.pause()
    assert child.stop(grace_s=WAIT_S) == 7


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace_period(
    reaper: Reaper, tmp_path: Path
) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    child = start(reaper, tmp_path, code)
    wait_for_text(child, "ready")
    assert child.stop(grace_s=0.05) == -signal.SIGKILL


def test_killing_a_child_kills_what_it_started(reaper: Reaper, tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", "sleep 60 & echo started $! ; wait"]
    child = Child("child", argv, os.environ, tmp_path / "log", reaper)
    wait_for_text(child, "started")
    grandchild = int(child.tail().split()[1])
    child.kill()
    assert child.wait(WAIT_S) == -signal.SIGKILL
    wait_until_gone([grandchild])


def test_closing_the_reaper_kills_the_children(tmp_path: Path) -> None:
    reaper = Reaper()
    child = start(reaper, tmp_path, "import time; time.sleep(60)")
    reaper.close()
    assert child.wait(WAIT_S) == -signal.SIGKILL


def test_the_reaper_spares_a_process_that_was_removed(tmp_path: Path) -> None:
    reaper = Reaper()
    with subprocess.Popen(["sleep", "60"]) as spared, subprocess.Popen(["sleep", "60"]) as listed:
        reaper.add(spared.pid)
        reaper.add(listed.pid)
        reaper.remove(spared.pid)
        reaper.close()
        assert listed.wait(WAIT_S) == -signal.SIGKILL  # leads no group: killed alone
        assert spared.poll() is None
        spared.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_reaper_outlives_polite_signals(number: signal.Signals, tmp_path: Path) -> None:
    reaper = Reaper()
    child = start(reaper, tmp_path, "import time; time.sleep(60)")
    for _ in range(30_000):
        reaper.remove(0)  # more than the pipe holds: when all is written, the reaper is up
    os.kill(reaper._helper.pid, number)
    reaper.close()
    assert child.wait(WAIT_S) == -signal.SIGKILL


def test_a_child_that_ended_is_unlisted_once(tmp_path: Path) -> None:
    told: list[str] = []

    class Listener(Reaper):
        def add(self, pid: int) -> None:
            told.append(f"+{pid}")
            super().add(pid)

        def remove(self, pid: int) -> None:
            told.append(f"-{pid}")
            super().remove(pid)

    reaper = Listener()
    child = start(reaper, tmp_path, "")
    child.wait(WAIT_S)
    child.poll()
    child.stop(grace_s=0)
    reaper.close()
    assert told == [f"+{child.pid}", f"-{child.pid}"]


def test_no_child_starts_without_a_reaper(tmp_path: Path) -> None:
    reaper = Reaper()
    reaper.close()
    with pytest.raises(ToolError, match="reaper"):
        start(reaper, tmp_path, "print('I ran')")
    assert (tmp_path / "log").read_text() == ""


@pytest.mark.parametrize("end", ["kill", "terminate", "interrupt", "raise", "exit"])
def test_no_child_outlives_its_owner(end: str, tmp_path: Path) -> None:
    with start_owner(end, tmp_path) as owner:
        pids = printed_pids(owner)
        if end in SIGNALS:
            owner.send_signal(SIGNALS[end])
        owner.wait(WAIT_S)
        wait_until_gone(pids)


def test_no_child_outlives_its_owner_though_a_forked_copy_of_the_owner_does(
    tmp_path: Path,
) -> None:
    with start_owner("fork", tmp_path) as owner:
        *pids, copy = printed_pids(owner)
        owner.kill()
        try:
            wait_until_gone(pids)
            assert is_alive(copy)
        finally:
            os.kill(copy, signal.SIGKILL)


def start_owner(end: str, folder: Path) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-c", OWNER, str(folder / "log"), end]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def printed_pids(owner: "subprocess.Popen[bytes]") -> list[int]:
    assert owner.stdout is not None
    return [int(word) for word in owner.stdout.readline().split()]


def test_a_process_that_cannot_be_started_is_told_with_a_remedy(
    reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    monkeypatch.setattr(subprocess, "Popen", failing(subprocess.Popen, 1, error))
    with pytest.raises(StudyguideError, match=r"The process child cannot be started .*ulimit -u"):
        start(reaper, tmp_path, "pass")


def test_the_log_of_a_child_may_be_removed(reaper: Reaper, tmp_path: Path) -> None:
    child = start(reaper, tmp_path, "print('x')")
    child.wait()
    child.log.unlink()
    assert child.tail() == ""
