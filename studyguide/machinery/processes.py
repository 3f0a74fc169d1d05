"""Child processes that never outlive us, however we end.

A parent that is killed with SIGKILL cannot clean up, and macOS has nothing like Linux' parent-death
signal. So each owner of children starts one tiny helper, the `Reaper`, and holds a pipe to it. The
kernel closes that pipe when the owner ends in any way; the helper then kills what is still listed.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from studyguide.errors import MORE_THREADS, StudyguideError, ToolError, explained

_HELPER = """
import os, signal, sys
for polite in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(polite, signal.SIG_IGN)  # only the end of the owner ends us
pids = set()
for line in sys.stdin.buffer:
    (pids.add if line[:1] == b"+" else pids.discard)(int(line[1:]))
for pid in pids:
    for kill in (os.killpg, os.kill):  # its whole group if it leads one, else the process
        try:
            kill(pid, signal.SIGKILL)
            break
        except OSError:
            pass
"""

# A child runs only after the reaper knows it: if we are killed in between, `read` sees the end of
# the file and the shell just leaves. `exec` keeps the process id.
_GATE = 'read -r go && exec "$@" </dev/null'


class Reaper:
    """Kills the listed children once the process that made it has ended."""

    def __init__(self) -> None:
        with explained(StudyguideError, "The reaper cannot be started", MORE_THREADS):
            self._helper = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _HELPER],
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
            )
        assert self._helper.stdin is not None
        self._pipe = self._helper.stdin
        # A forked copy of us would hold the pipe open after our death.
        os.register_at_fork(after_in_child=self._pipe.close)

    def add(self, pid: int) -> None:
        """List a child; ToolError if the helper is gone, so that the child would be unguarded."""
        try:
            self._pipe.write(b"+%d\n" % pid)
        except (OSError, ValueError) as error:  # ValueError: closed by us
            remedy = "No child can be started without it: start the program again"
            raise ToolError(["reaper"], self._helper.wait(), str(error), remedy) from error

    def remove(self, pid: int) -> None:
        """Forget a child that has ended: its id may be given to a stranger."""
        with suppress(OSError, ValueError):
            self._pipe.write(b"-%d\n" % pid)

    def close(self) -> None:
        """Kill all children still listed and wait for the helper to end."""
        self._pipe.close()
        self._helper.wait()


class Running(Protocol):
    """A process that was started: what `Child` needs of `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired after `timeout` seconds."""


Start = Callable[[Sequence[str], Mapping[str, str], Path], Running]


def _start_behind_gate(
    name: str, argv: Sequence[str], env: Mapping[str, str], log: Path, reaper: Reaper
) -> Running:
    started = explained(StudyguideError, f"The process {name} cannot be started", MORE_THREADS)
    with log.open("ab") as output, started:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _GATE, name, *argv],
            env=env,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        with process.stdin as gate:
            reaper.add(process.pid)
            gate.write(b"\n")
    except BaseException:
        process.wait()  # the gate closed without a word
        raise
    return process


class Child:
    """A child process, in a session of its own: Ctrl-C in the terminal reaches only us.

    It runs `argv` with exactly the environment `env`; its output is appended to `log`. A program
    that does not exist shows as exit code 127 and a line in the log. With `start` that function
    starts it, for example by a fork of a warm template.

    Raises ToolError if the reaper is gone.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        reaper: Reaper,
        start: Start | None = None,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        if start:
            self._process = start(argv, env, log)
            reaper.add(self._process.pid)
        else:
            self._process = _start_behind_gate(name, argv, env, log, reaper)
        self.name, self.pid, self.log = name, self._process.pid, log
        self._reaper, self._listed = reaper, True
        self._lock = threading.Lock()  # the supervisor and the main thread may both poll

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        with self._lock:
            code = self._process.poll()
            if code is not None and self._listed:
                self._listed = False
                self._reaper.remove(self.pid)
            return code

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end; return the exit code, or None if it still runs after `timeout_s`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.poll()

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); what it started itself is its own affair, as in a container."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def ask_to_end(self) -> None:
        """Ask it to end even if it is frozen, in which state it cannot hear SIGTERM."""
        self.resume()
        self.terminate()

    def kill(self) -> None:
        """End it and its process group now (SIGKILL)."""
        self._signal_group(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it and its process group (SIGSTOP)."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause` (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    def stop(self, grace_s: float) -> int | None:
        """Ask it to end, kill it after `grace_s` seconds, and return its exit code."""
        self.ask_to_end()
        if self.wait(grace_s) is None:
            self.kill()
        return self.wait()

    def tail(self, lines: int = 10) -> str:
        """Return the last lines of its log, for messages."""
        with suppress(OSError), self.log.open("rb") as file:  # whatever cleans up may remove it
            file.seek(max(0, self.log.stat().st_size - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        return ""

    def _signal_group(self, number: signal.Signals) -> None:
        if self.poll() is None:
            # It may end at this moment; macOS then answers EPERM for a group of zombies.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
