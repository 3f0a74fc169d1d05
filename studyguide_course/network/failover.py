"""The one process that nobody doubled: a Redis with a replica, and what a failover loses."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

from studyguide.errors import QueueError
from studyguide.machinery.redis_server import RedisServer
from studyguide_course.chaos.proxy import Proxy

PATIENCE_S = 20.0  # for the first copy, on a machine that does other things too
COPY_S = 2.0  # how long a careful writer waits for the replica


@dataclass(frozen=True)
class Failover:
    """What a failover did to `tried` writes, each known by its number."""

    tried: int
    acknowledged: frozenset[int]  # the writer counts on them
    kept: frozenset[int]  # on the replica, after it was promoted

    @property
    def lost(self) -> int:
        """How many acknowledged writes the new primary does not have."""
        return len(self.acknowledged - self.kept)


def fail_over(folder: Path, writes: int, cut_after: int, wait: bool = False) -> Failover:
    """Write to a primary until it dies, promote its replica, and count.

    After `cut_after` of `writes`, nothing gets through to the replica any more. A writer that calls
    `WAIT` counts a write as acknowledged once the replica has it, and stops at the first that it
    gets no such word of. Raises QueueError if the replica never comes up.
    """
    with pair(folder) as (server, proxy, primary, replica):
        acknowledged = set[int]()
        for number in range(writes):
            if number == cut_after:
                _copied(primary, PATIENCE_S)
                proxy.cut()
            primary.set(f"result:{number}", "done")  # raises unless Redis acknowledges it
            if wait and not _copied(primary, COPY_S):
                break
            acknowledged.add(number)
        server.kill()
        replica.replicaof("NO", "ONE")
        kept = {number for number in range(writes) if replica.exists(f"result:{number}")}
    return Failover(writes, frozenset(acknowledged), frozenset(kept))


def _copied(primary: Any, patience_s: float) -> bool:
    """Whether the replica has all writes of this client so far, or gets them in time."""
    return bool(primary.wait(1, int(1000 * patience_s)))


@contextmanager
def pair(folder: Path) -> Iterator[tuple[RedisServer, Proxy, Any, Any]]:
    """Have a primary, the proxy to its replica, and a client of each of the two."""
    with (
        RedisServer.start(folder / "primary", persistent=False) as one,
        RedisServer.start(folder / "replica", persistent=False) as other,
        redis.Redis.from_url(one.url, protocol=2, socket_timeout=2 * PATIENCE_S) as primary,
        redis.Redis.from_url(other.url, protocol=2) as replica,
    ):
        proxy = Proxy(one.port, latency_s=0.0)
        try:
            primary.config_set("repl-diskless-sync-delay", 0)
            replica.config_set("masterauth", urlsplit(one.url).password)
            replica.replicaof("127.0.0.1", proxy.port)
            deadline = time.monotonic() + PATIENCE_S
            while replica.info("replication")["master_link_status"] != "up":
                if time.monotonic() > deadline:
                    raise QueueError("The replica does not reach its primary", "Try again")
                time.sleep(0.02)
            yield one, proxy, primary, replica
        finally:
            proxy.close()
