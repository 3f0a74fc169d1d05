"""Roles that are forked from a template: what they are, and that none outlives its owner."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import wait_until
from test_processes import is_alive, wait_until_gone

from studyguide.machinery.processes import Child, Reaper
from studyguide.machinery.warm import Template
from studyguide.settings import Blur

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="roles are forked on Linux only")

# Waits for a Redis that is not there.
WAITS = ["worker", "--approach", "e", "--redis", "redis://127.0.0.1:1", "--patience", "60"]


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    template = Template()
    yield template
    template.close()


@pytest.fixture
def reaper() -> Iterator[Reaper]:
    reaper = Reaper()
    yield reaper
    reaper.close()


def start(template: Template, reaper: Reaper, folder: Path, *argv: str) -> Child:
    return Child("role", argv, {"A": "set"}, folder / "log", reaper, template.fork)


def status(pid: int) -> list[str]:
    """State, parent, group and session of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]


def test_the_template_has_one_thread_also_after_it_compiled(template: Template) -> None:
    template.warm_up(Blur.of(method="separable"))
    assert len(list(Path(f"/proc/{template._process.pid}/task").iterdir())) == 1


@pytest.mark.parametrize(("argv", "code", "said"), [(["--version"], 0, "0."), (["no"], 2, "no")])
def test_a_role_ends_with_its_exit_code_and_its_output_is_in_its_log(
    template: Template, reaper: Reaper, tmp_path: Path, argv: list[str], code: int, said: str
) -> None:
    child = start(template, reaper, tmp_path, *argv)
    assert child.wait(60) == code
    assert said in child.tail()


def test_a_role_leads_a_session_of_its_own_and_is_called_by_its_command(
    template: Template, reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    child = start(template, reaper, tmp_path, *WAITS)
    _, parent, group, session = status(child.pid)
    assert [int(parent), int(group), int(session)] == [template._process.pid, child.pid, child.pid]
    wait_until(lambda: Path(f"/proc/{child.pid}/cmdline").read_bytes().startswith(b"studyguide w"))
    wait_until(lambda: Path(f"/proc/{child.pid}/cwd").readlink() == tmp_path)
    assert {path.readlink().name for path in Path(f"/proc/{child.pid}/fd").glob("[012]")} == {
        "null",
        "log",
    }
    child.kill()
    assert child.wait(60) == -signal.SIGKILL


def test_a_role_that_ended_and_was_not_asked_for_yet_can_be_signalled_safely(
    template: Template, reaper: Reaper, tmp_path: Path
) -> None:
    child = start(template, reaper, tmp_path, "--version")
    wait_until(lambda: status(child.pid)[0] == "Z")  # its id is not free for another process
    child.terminate()
    assert child.wait(60) == 0


def test_a_frozen_role_goes_on_and_drains(
    template: Template, reaper: Reaper, tmp_path: Path
) -> None:
    child = start(template, reaper, tmp_path, *WAITS)
    child.pause()
    wait_until(lambda: status(child.pid)[0] == "T")
    assert child.poll() is None
    assert child.stop(60.0) in (0, -signal.SIGTERM)


def test_the_death_of_the_template_is_the_death_of_its_roles(
    reaper: Reaper, tmp_path: Path
) -> None:
    template = Template()
    child = start(template, reaper, tmp_path, *WAITS)
    os.kill(template._process.pid, signal.SIGKILL)
    assert child.wait(60) == -signal.SIGKILL
    wait_until_gone([child.pid])
    template.close()


def test_a_template_that_died_is_replaced(reaper: Reaper, tmp_path: Path) -> None:
    first = Template.current()
    assert Template.current() is first
    first._process.kill()
    first._process.wait()
    second = Template.current()
    assert second is not first
    assert start(second, reaper, tmp_path, "--version").wait(60) == 0
    Template.end()
    wait_until_gone([first._process.pid, second._process.pid])


OWNER = """
import os, sys, time
from pathlib import Path
from studyguide.machinery.processes import Child, Reaper
from studyguide.machinery.warm import Template
template = Template.current()
child = Child("role", sys.argv[2:], {}, Path(sys.argv[1]), Reaper(), template.fork)
print(template._process.pid, child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_however_the_owner_ends_no_role_outlives_it(tmp_path: Path, end: signal.Signals) -> None:
    argv = [sys.executable, "-c", OWNER, str(tmp_path / "log"), *WAITS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert all(map(is_alive, pids))
        owner.send_signal(end)
        owner.wait(60)
    assert len(pids) == 2
    wait_until_gone(pids)
