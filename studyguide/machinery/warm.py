"""Warm starts: roles are forked from a template process that has imported and compiled everything.

A role costs about one CPU second before its first tile: numba, the kernels, redis, numpy. The
template pays it once. A fork shares its memory until one of the two writes to a page (copy on
write), and starts in milliseconds. The template runs no thread, since a lock that another thread
holds at the moment of a fork stays locked in the child for ever.

The template reports the exit codes of its children, because only a parent can collect them. It
ends when its owner does, in any way, and the kernel then kills its children (parent-death signal,
Linux only).
"""

import atexit
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Self

from studyguide.errors import ToolError
from studyguide.machinery.processes import Reaper
from studyguide.settings import Blur

PR_SET_PDEATHSIG = 1
PRELOAD = ("studyguide.roles", "studyguide.__main__")  # what `studyguide worker` imports, and more
CRASHED = 70  # EX_SOFTWARE of sysexits.h; 1 would mean that an image failed
MAX_REQUEST = 1 << 18  # bytes; an environment and a command line fit several times
# Threads of a math library would run in the template; nothing here needs them.
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Template:
    """A template process, and the exit codes of what was forked from it.

    Raises ToolError if it cannot be started, or ends.
    """

    _current: Self | None = None
    _making = threading.Lock()

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reaper, self._socket = Reaper(), ours
        self._lock, self._codes, self._children = threading.Lock(), dict[int, int](), set[int]()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "studyguide.machinery.warm"],
                stdin=its.fileno(),
                env={**os.environ, **ONE_THREAD},
                cwd="/",
                start_new_session=True,
            )
        self._reaper.add(self._process.pid)
        os.register_at_fork(after_in_child=ours.close)

    @classmethod
    def current(cls) -> Self:
        """The template of this process; made when first asked for, and again if it has ended."""
        with cls._making:
            if cls._current is None or cls._current._process.poll() is not None:
                cls._current = cls()
                atexit.register(cls._current.close)
            return cls._current

    @classmethod
    def end(cls) -> None:
        """End the template of this process, if it has one."""
        with cls._making:
            if cls._current:
                cls._current.close()
            cls._current = None

    def warm_up(self, blur: Blur) -> None:
        """Compile the kernels of this blur now, and wait until that is done."""
        with self._lock:
            self._ask({"blur": asdict(blur)})

    def fork(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> "Forked":
        """Run `studyguide` with these arguments in a fork, in a session of its own.

        Parameters
        ----------
        env : mapping of str to str
            Its whole environment.
        log : path
            Its output is appended to this file.
        """
        request = {"argv": list(argv), "env": dict(env), "log": str(log), "cwd": str(Path.cwd())}
        with self._lock:
            pid = self._ask(request)
            self._children.add(pid)
        return Forked(self, pid)

    def _ask(self, request: dict[str, Any]) -> int:
        """Send a request; return the pid of the child, or 0."""
        with suppress(OSError):
            self._socket.send(json.dumps(request).encode())
            while (answer := self._receive()) is not None:
                if "pid" in answer:
                    return int(answer["pid"])
        raise ToolError(["template"], self._process.wait(), "the template of warm starts ended")

    def _receive(self) -> dict[str, Any] | None:
        """One message; what it says of ended children is kept. None if the template has ended."""
        body = self._socket.recv(MAX_REQUEST)
        if not body:
            self._codes |= dict.fromkeys(self._children - self._codes.keys(), -signal.SIGKILL)
            return None
        message: dict[str, Any] = json.loads(body)
        if "ended" in message:
            self._codes[message["ended"]] = message["code"]
            with suppress(OSError):
                self._socket.send(json.dumps({"reap": message["ended"]}).encode())
        return message

    def code(self, pid: int) -> int | None:
        """The exit code of a child, negative for a signal; None while it runs."""
        with self._lock:
            while pid not in self._codes and select.select([self._socket], [], [], 0)[0]:
                self._receive()
            return self._codes.get(pid)

    def close(self) -> None:
        """End the template; its children die with it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._reaper.close()


class Forked:
    """A child of the template, with the part of `subprocess.Popen` that `Child` needs."""

    def __init__(self, template: Template, pid: int) -> None:
        self.pid = pid
        self._template = template

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._template.code(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; subprocess.TimeoutExpired if it still runs after `timeout` seconds."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a role", timeout or 0.0)
            time.sleep(0.002)
        return code


# --- in the template -----------------------------------------------------------------------------


def _serve(owner: socket.socket) -> dict[str, Any] | None:
    """Fork on request until the owner is gone. Returns in each child, with its request."""
    wakes, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: set[int] = set()
    while True:
        ready, _, _ = select.select([owner.fileno(), wakes], [], [])
        if wakes in ready:
            os.read(wakes, 4096)
            _report_ended(owner, children)
        if owner.fileno() not in ready:
            continue
        body = owner.recv(MAX_REQUEST)
        if not body:
            return None
        request: dict[str, Any] = json.loads(body)
        if "reap" in request:
            os.waitpid(request["reap"], 0)
        elif "blur" in request:
            _warm_up(Blur(**request["blur"]))
            owner.send(b'{"pid": 0}')
        elif pid := _fork():
            children.add(pid)
            owner.send(json.dumps({"pid": pid}).encode())
        else:
            owner.detach()  # file descriptor 0, which the role replaces
            for fd in (wakes, woken):
                os.close(fd)
            return request


def _report_ended(owner: socket.socket, children: set[int]) -> None:
    """Report who has ended. Its pid stays taken until the owner has heard of it."""
    for pid in list(children):
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended:
            children.remove(pid)
            by_itself = ended.si_code == os.CLD_EXITED
            code = ended.si_status if by_itself else -ended.si_status
            with suppress(BrokenPipeError):
                owner.send(json.dumps({"ended": pid, "code": code}).encode())


def _fork() -> int:
    """Fork a child that dies with us; return its pid once it leads a session of its own, else 0."""
    template, (reader, writer) = os.getpid(), os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        return pid
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != template:  # it ended just before
        os._exit(1)
    os.setsid()
    os.close(reader)
    os.close(writer)  # the read above ends
    return 0


def _run(request: dict[str, Any]) -> int:
    """Take on the name, environment and files of a role, and run it."""
    command = import_module("studyguide.__main__")
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for new, old in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(new, old)
    os.close(log)
    os.close(nothing)
    set_title = import_module("setproctitle").setproctitle  # Linux only, as all of this
    set_title(" ".join(["studyguide", *request["argv"]]))  # before environ, whose place it takes
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    command.STARTED = time.time()  # type: ignore[attr-defined]
    return int(command.main(request["argv"]))


def _warm_up(blur: Blur) -> None:
    import_module("studyguide.blur").warm_up(blur)


def main() -> int:
    """Serve the owner on standard input; in a fork, run its role."""
    for module in PRELOAD:
        import_module(module)
    _warm_up(Blur.of())
    request = _serve(socket.socket(fileno=0))
    if request:
        _run_and_exit(request)
    return 0


def _run_and_exit(request: dict[str, Any]) -> NoReturn:
    """Run a role and exit with its code, but skip the teardown of modules.

    It would write to nearly every page that is shared with the template, and so copy it.
    """
    code = CRASHED
    try:
        code = _run(request)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else CRASHED
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
