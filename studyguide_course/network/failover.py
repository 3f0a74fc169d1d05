"""The one process that nobody doubled: a Redis with a replica, and what a failover loses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studyguide.machinery.link import connect
from studyguide.machinery.redis_server import RedisServer
from studyguide_course.chaos.proxy import Proxy
from studyguide_course.chaos.replica import Replica

PATIENCE_S = 20.0  # for a copy, on a machine that does other things too
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
    with RedisServer.start(folder / "primary", persistent=False) as server:
        follower = Replica(server, folder / "replica")
        try:
            with (
                connect(server.url, socket_timeout=2 * PATIENCE_S) as primary,
                connect(follower.server.url) as replica,
            ):
                yield server, follower.link, primary, replica
        finally:
            follower.close()
