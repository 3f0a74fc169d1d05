"""A Redis to judge an answer on, and clients that die or lose a race at a chosen moment."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry

from studyguide.machinery.redis_server import RedisServer
from studyguide.machinery.run_folder import TemporaryFolder

REQUESTS = 8  # more than an answer needs: each of its first so many is interrupted once
Before = Callable[[int], None]  # called before a request, with its number from 0


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` of an answer survives it."""


class Endless(BaseException):
    """An answer sends request after request: it waits for what will not come."""


def gives_up(request: int) -> None:
    """End an answer that polls, about five seconds into a lock that nobody gives back."""
    if request >= 50:
        raise Endless


def dies_at(number: int) -> Before:
    """Die before this request; what cleaning up would still send does not get through."""

    def before(request: int) -> None:
        if request == number:
            raise Killed
        if request > number:
            raise redis.ConnectionError

    return before


def meanwhile(number: int, other: Callable[[], object]) -> Before:
    """Somebody else acts just before this request."""

    def before(request: int) -> None:
        if request == number:
            other()

    return before


@contextmanager
def scratch_server() -> Iterator[RedisServer]:
    """An empty Redis on loopback that is gone afterwards."""
    with (
        TemporaryFolder("exercise") as folder,
        RedisServer.start(Path(folder), persistent=False) as server,
    ):
        yield server


@contextmanager
def connected(url: str, before: Before | None = None) -> Iterator[redis.Redis]:
    """A client that gives strings; what its answer leaves behind is closed.

    A request is a command, or all of a MULTI up to its EXEC: it goes out as one.
    """
    numbers, watches = count(), False

    class Watched(Connection):
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            if watches and before:
                before(next(numbers))
            super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

    options: dict[str, Any] = {"decode_responses": True, "protocol": 2, "socket_timeout": 2.0}
    options |= {"retry": Retry(NoBackoff(), 0), "connection_class": Watched}
    pool = redis.ConnectionPool.from_url(url, **options)
    client = redis.Redis(connection_pool=pool)
    try:
        client.ping()  # what a connection says when it is made does not count
        watches = True
        yield client
    finally:
        watches = False
        pool.disconnect()
