"""A connection to Redis that outlives the server's absence, and addresses that hide passwords."""

import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from studyguide.errors import Cancelled, QueueError, UsageError

SOCKET_TIMEOUT_S = 4.0  # longer than any call blocks: an answer that takes longer never comes
# Signs of errors that pass by themselves: the disk is full, or the memory is; a script takes long.
PASSING = ("MISCONF", "maxmemory", "is busy running")
# Signs that a stream or its group is gone: the server lost its data, before or during a read.
LOST = ("NOGROUP", "UNBLOCKED")
LONGEST_PAUSE_S = 1.5  # between two tries while Redis is away


def safe_url(url: str) -> str:
    """Return `url` with `***` for whatever may be a part of a password, even in a malformed URL."""
    found = re.match(r"(\w+://)?(.*)", url, re.DOTALL)
    assert found is not None, "the pattern fits every text"
    scheme, rest = found.groups("")
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    user = user if re.fullmatch(r"[^/?#]*", user) else "***"
    place = re.sub(r"(?i)([?&])(?!db=)([^=&]*)=[^&]*", r"\1\2=***", place)
    if not at:  # without a host, what follows the colon is no port
        place = re.sub(r"^(:|[^:/?#\[]+:(?!\d*([/?]|$)|/)).*", r"\1***", place, flags=re.DOTALL)
    return f"{scheme}{user}{colon and ':***'}{at}{place}"


def connect(url: str, **options: Any) -> redis.Redis:
    """Make a client, which connects when it is first used.

    Raises UsageError if the URL is malformed; it never quotes the parser, whose message may hold a
    part of the password.
    """
    try:
        parts = urlsplit(url)
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError  # a password that is not escaped was taken for something else
        client = redis.Redis.from_url(url, **options)
        client.connection_pool.make_connection()  # here it refuses an option that it does not know
        return client
    except (ValueError, TypeError, redis.RedisError):
        remedy = (
            "Use redis://:PASSWORD@HOST:PORT/0, for example redis://localhost:6379/0; write "
            "%23 %25 %2F %3A %3F %40 for # % / : ? @ in the password; options are those of redis-py"
        )
        raise UsageError(f"The Redis URL is {safe_url(url)!r}", remedy) from None


def quoted(error: Exception, url: str) -> str:
    """What a server or redis-py says, without the password: some servers repeat a whole command."""
    secret = str(redis.ConnectionPool.from_url(url).connection_kwargs.get("password") or "")
    return str(error).replace(secret, "***") if secret else str(error)


@dataclass(eq=False)
class Link:
    """A connection to Redis that outlives the server's absence.

    Raises UsageError if the URL is malformed.
    """

    url: str = field(repr=False)  # as redis-py takes it; it may hold a password
    patience_s: float = 30.0  # for so long an operation is tried again before `QueueError`
    stop: threading.Event = field(default_factory=threading.Event)  # ends it with `Cancelled`
    slack_s: float = 0.5  # an answer that is later tells that the server was not healthy
    waiting: Callable[[], object] = lambda: None  # called before each further try

    def __post_init__(self) -> None:
        self.healthy_since = time.monotonic()  # since when every answer came, and in time
        self.repair: Callable[[redis.Redis], None] | None = None  # makes lost groups again
        # Retries are ours alone: redis-py's default would make one call last for a minute.
        retry = Retry(NoBackoff(), 0)
        self._client = connect(self.url, socket_timeout=SOCKET_TIMEOUT_S, retry=retry, protocol=2)

    def __call__(self, operation: Callable[[Any], Any], usual_s: float = 0.0) -> Any:
        """Do an idempotent operation; wait and do it again while Redis cannot be reached.

        Raises QueueError if Redis stays away for longer than `patience_s`, or refuses us; Cancelled
        if `stop` is set while waiting.
        """
        deadline, pause = time.monotonic() + self.patience_s, 0.05
        while True:
            begun = time.monotonic()
            try:
                answer = operation(self._client)
                if time.monotonic() - begun > usual_s + self.slack_s:
                    self.healthy_since = time.monotonic()
                return answer
            except redis.RedisError as error:
                self.healthy_since = time.monotonic()
                self._judge(error, time.monotonic() > deadline)
            self.waiting()
            if self.stop.wait(pause * random.uniform(0.5, 1.5)):
                raise Cancelled
            pause = min(2 * pause, LONGEST_PAUSE_S / 1.5)

    def _judge(self, error: redis.RedisError, too_late: bool) -> None:
        """Return if trying again may help; raise if not."""
        if isinstance(error, redis.AuthenticationError):
            raise self._error("refuses our password", error) from error
        if isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
            if too_late:
                raise self._error(f"did not answer for {self.patience_s:g} s", error) from error
        elif self.repair and _has(error, LOST):
            with suppress(redis.RedisError):
                self.repair(self._client)
        elif too_late or not _has(error, PASSING):
            raise self._error("answered with an error", error) from error

    def _error(self, what: str, error: Exception) -> QueueError:
        return QueueError(
            f"Redis at {safe_url(self.url)} {what} ({quoted(error, self.url)})",
            "Check its address, its password, the rights of its user and that it runs",
        )

    def server_time(self) -> float:
        """The server's clock in seconds since the epoch, corrected for half the round trip."""

        def ask(client: Any) -> tuple[float, float]:
            start = time.perf_counter()
            seconds, micros = client.time()
            half = (time.perf_counter() - start) / 2
            return half, seconds + micros / 1e6 + half

        _, now = min(self(ask) for _ in range(3))
        return float(now)


def _has(error: redis.RedisError, signs: tuple[str, ...]) -> bool:
    """Look for signs anywhere: redis-py strips some error codes, old servers wrap others."""
    return any(sign in str(error) for sign in signs)


def clear(url: str, prefix: str) -> None:
    """Delete all keys of a run from a server that is not ours; nothing if it cannot be reached."""
    _each_key(url, prefix, lambda client, key: client.unlink(key))


def expire(url: str, prefix: str, after_s: int | None) -> None:
    """Have all keys of a run deleted after so many seconds; None takes that back.

    Nothing happens if the server cannot be reached. Heartbeats keep their own short lives.
    """

    def change(client: redis.Redis, key: Any) -> object:
        if client.ttl(key) in range(3600):
            return None
        return client.expire(key, after_s) if after_s else client.persist(key)

    _each_key(url, prefix, change)


def _each_key(url: str, prefix: str, change: Callable[[redis.Redis, Any], object]) -> None:
    with suppress(redis.RedisError), connect(url, socket_timeout=SOCKET_TIMEOUT_S) as client:
        for key in client.scan_iter(match=prefix + "*", count=1000):
            change(client, key)
