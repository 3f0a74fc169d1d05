"""f and g: a Redis stream, which leases what it hands out.

A tile is delivered at least once: it is leased to a worker, which renews the lease with its
heartbeat; whoever goes silent for a visibility timeout loses it to another. Every change of the
state of a tile is one atomic call into protocol.lua. Commands are those of Redis 6.2 and of Valkey.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

import redis

from studyguide.errors import MessageError
from studyguide.states import Queue
from studyguide.tiles import Tile
from studyguide.work import ImageJob, find_tile, parse_job

log = logging.getLogger(__name__)
T = TypeVar("T")
Entry = tuple[str, str, int, dict[bytes, bytes]]  # id, who held it before, deliveries, fields
GROUPS = {"tasks": "workers", "ready": "assemblers"}  # the consumer group of each stream
AUDIT_TILES = 10_000  # tiles that one call looks at: others wait for some milliseconds
READ_BATCH = 8  # tiles that a worker takes in one call at most,
READ_AHEAD_S = 0.01  # and no more than it does in this time, or others would stand idle
BLOCK_S = 0.2  # seconds that a read waits for work; after them `stop` is looked at


@dataclass(frozen=True)
class Lease:
    """A tile that was delivered to us, and is ours as long as we renew it.

    `deliveries` counts how often it was handed out, `owner` is who held it before.
    """

    entry: str
    job: ImageJob
    tile: Tile
    attempt: int = 1
    deliveries: int = 1
    owner: str = ""

    @property
    def trial(self) -> int:
        """How often the tile was tried, this time, failures and reclaims included."""
        return self.attempt + self.deliveries - 1


@dataclass(frozen=True)
class Announcement:
    """A job whose tiles are all done or dead, delivered to an assembler."""

    entry: str
    job: ImageJob


@dataclass
class StreamQueue(Queue):
    """The protocol of f and g over one connection; every call may safely be made twice."""

    def __post_init__(self) -> None:
        source = files("studyguide").joinpath("protocol.lua").read_text()
        self._script = redis.Redis().register_script(source)
        self.link.repair = self._make_groups
        self.link(self._make_groups)

    def _make_groups(self, client: Any) -> None:
        """Groups start at 0, not at $: what was added before them must be delivered too."""
        for stream, group in GROUPS.items():
            try:
                client.xgroup_create(self.prefix + stream, group, "0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    def _call(self, command: str, *args: Any) -> Any:
        """One command of protocol.lua."""
        return self.link(lambda client: self._script([self.prefix], [command, *args], client))

    # -- the coordinator's side

    def claim(self, job: ImageJob) -> bool:
        """Note the job of an image in the hash `jobs`; False if the image has had another job.

        An image that is changed between two starts of a coordinator has; the first is given up.
        """
        image = json.dumps(job.image)  # which may hold bytes that are no UTF-8

        def note(client: Any) -> bool:
            client.hsetnx(f"{self.prefix}jobs", image, job.key)
            first = (client.hget(f"{self.prefix}jobs", image) or job.key.encode()).decode()
            if first != job.key:
                client.set(f"{self.prefix}state:{first}", "failed", nx=True)
            return bool(first == job.key)

        return bool(self.link(note))

    def enqueue(self, job: ImageJob, tiles: Sequence[Tile]) -> int:
        """Queue tiles that were not queued before; return how many were new."""
        return int(self._call("enqueue", job.key, job.to_json(), *(tile.index for tile in tiles)))

    def backlog(self) -> int:
        """Tiles that wait or are being worked on."""
        return int(self.link(lambda client: client.xlen(f"{self.prefix}tasks")))

    def is_idle(self) -> bool:
        """Whether no tile is in the stream or waits for its retry."""

        def ask(client: Any) -> bool:
            pipe = client.pipeline(transaction=False)
            pipe.xlen(f"{self.prefix}tasks").zcard(f"{self.prefix}delayed")
            return not any(pipe.execute())

        return bool(self.link(ask))

    def audit(self, job: ImageJob) -> list[Tile]:
        """Tiles that are neither in flight nor over, to be queued again."""
        first, total, found = 0, len(job.tiles), list[Tile]()
        while first < total:
            what = (job.key, job.to_json(), total, first, AUDIT_TILES)
            first, *missing = map(int, self._call("audit", *what))
            found += (job.tiles[index] for index in missing)
        return found

    def reap(self) -> None:
        """Forget consumers that hold nothing and no longer beat."""
        for stream, group in GROUPS.items():
            self._call("reap", stream, group)

    # -- the worker's side

    def read(self, consumer: str, count: int = 1) -> list[Lease]:
        """Take new tiles; waits for `BLOCK_S` at most."""
        return self._parsed("tasks", self._read("tasks", consumer, count), _lease)

    def reclaim(self, consumer: str, idle_s: float, count: int = 1) -> list[Lease]:
        """Take over tiles whose lease was not renewed for `idle_s`."""
        return self._parsed("tasks", self._reclaim("tasks", consumer, idle_s, count), _lease)

    def commit(self, lease: Lease, digest: bytes) -> bool:
        """Record the digest of a tile's pixels and let go of it; False if another came first."""
        job = lease.job
        args = (lease.entry, job.key, job.to_json(), lease.tile.index, digest, len(job.tiles))
        return bool(self._call("commit", *args))

    def fail(self, lease: Lease, error: str, delay_s: float, max_attempts: int) -> str:
        """Schedule a retry or, after the last attempt, a dead letter.

        Returns
        -------
        {"retry", "dead", "done"}
            `done` if another worker finished the tile meanwhile.
        """
        job, delay_ms = lease.job, int(delay_s * 1000)
        where = (lease.entry, job.key, job.to_json(), lease.tile.index)
        what = (lease.attempt, max_attempts, delay_ms, error, len(job.tiles))
        return str(self._call("fail", *where, *what).decode())

    def give_back(self, consumer: str, leases: Iterable[Lease]) -> None:
        """Let go of tiles that were not begun, for others to take at once."""
        for lease in leases:
            what = (lease.job.to_json(), lease.tile.index, lease.attempt)
            self._call("give_back", consumer, lease.entry, *what)

    def promote(self) -> int:
        """Put retries that came due into the stream; return how many."""
        return int(self._call("promote", 100))

    def beat(self, stream: str, consumer: str, ttl_s: float, entries: Sequence[str]) -> None:
        """Say that a consumer is alive and renew its leases."""
        self._call("beat", stream, GROUPS[stream], consumer, int(ttl_s * 1000), *entries)

    def stop_beating(self, consumer: str) -> None:
        """Say that a consumer is leaving."""
        self.link(lambda client: client.delete(f"{self.prefix}hb:{consumer}"))

    # -- the assembler's side

    def read_ready(self, consumer: str) -> list[Announcement]:
        """Take jobs that are complete; waits for `BLOCK_S` at most."""
        return self._parsed("ready", self._read("ready", consumer, 1), _announcement)

    def reclaim_ready(self, consumer: str, idle_s: float) -> list[Announcement]:
        """Take over jobs from an assembler that went silent."""
        return self._parsed("ready", self._reclaim("ready", consumer, idle_s, 1), _announcement)

    def results(self, job: ImageJob) -> dict[int, bytes]:
        """Tile index -> result, for all tiles that are done."""
        found = self.link(lambda client: client.hgetall(f"{self.prefix}res:{job.key}"))
        return {int(index): result for index, result in found.items()}

    def dead(self, job: ImageJob) -> set[int]:
        """Indices of the tiles that are dead letters."""
        found = self.link(lambda client: client.hkeys(f"{self.prefix}dead:{job.key}"))
        return {int(index) for index in found}

    def reject(self, job: ImageJob, tile: Tile, digest: bytes) -> None:
        """The pixels of this digest are damaged: do their tile again."""
        self._call("reject", job.key, job.to_json(), tile.index, digest)

    def withdraw(self, announcement: Announcement) -> None:
        """Let go of a job that turned out not to be complete."""
        self._call("withdraw", announcement.entry)

    def finish(self, announcement: Announcement, state: str) -> None:
        """The image ended so: saved, partial or failed."""
        self._call("finish", announcement.entry, announcement.job.key, state)

    # -- reading entries

    def _read(self, stream: str, consumer: str, count: int) -> Iterator[Entry]:
        streams, wait_ms = {self.prefix + stream: ">"}, int(BLOCK_S * 1000)
        found = self.link(
            lambda client: client.xreadgroup(GROUPS[stream], consumer, streams, count, wait_ms),
            BLOCK_S,
        )
        for _, entries in found or []:
            yield from ((entry.decode(), "", 1, fields) for entry, fields in entries)

    def _reclaim(self, stream: str, consumer: str, idle_s: float, count: int) -> Iterator[Entry]:
        found = self._call("reclaim", stream, GROUPS[stream], consumer, int(idle_s * 1000), count)
        for entry, owner, deliveries, flat in found:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            yield entry.decode(), owner.decode(), int(deliveries), fields

    def _parsed(self, stream: str, found: Iterable[Entry], parse: Callable[..., T]) -> list[T]:
        """An entry that nobody can read becomes a dead letter instead of coming back for ever."""
        parsed = []
        for entry in found:
            try:
                parsed.append(parse(*entry))
            except (MessageError, KeyError, ValueError) as error:
                log.warning("discarded entry %s of %s: %s", entry[0], stream, error)
                self._call("discard", stream, GROUPS[stream], entry[0], str(error))
        return parsed


@dataclass
class Deliveries:
    """The leases that one worker is handed, one after the other.

    It takes several tiles in a call while they are short, and gives back those that it did not come
    to in time.
    """

    queue: StreamQueue
    consumer: str
    visibility_s: float
    _next_chores: float = 0.0

    def until(
        self, stop: threading.Event, clock: Callable[[], float]
    ) -> Iterator[tuple[Lease, float]]:
        """Yield leases, each with the time since when it was waited for, until `stop`."""
        count = 1
        while not stop.is_set():
            asked = clock()
            leases = deque(self._overdue() or self.queue.read(self.consumer, count))
            taken, begun = len(leases), time.monotonic()
            # A lease that was begun is renewed; the others would lapse behind a slow tile.
            while leases and not stop.is_set() and time.monotonic() - begun < self.visibility_s / 2:
                yield leases.popleft(), asked
                asked = clock()
            self.queue.give_back(self.consumer, leases)
            count = read_ahead(taken - len(leases), time.monotonic() - begun)

    def _overdue(self) -> list[Lease]:
        """Retries that came due and tiles that others let lapse; looks ten times a second at most.

        After a pause of Redis every lease looks lapsed. So only a worker whose own connection was
        healthy for a whole visibility timeout, in which the owners could renew, takes any over.
        """
        now = time.monotonic()
        if now < self._next_chores:
            return []
        self._next_chores = now + min(0.1, self.visibility_s / 4)
        self.queue.promote()
        if now - self.queue.link.healthy_since < self.visibility_s:
            return []
        return self.queue.reclaim(self.consumer, self.visibility_s)


def read_ahead(tiles: int, seconds: float) -> int:
    """How many tiles to take in the next call, where the last so many took so long."""
    return max(1, min(READ_BATCH, int(READ_AHEAD_S * tiles / max(seconds, 1e-9))))


def _lease(entry: str, owner: str, deliveries: int, fields: dict[bytes, bytes]) -> Lease:
    job = parse_job(fields[b"spec"])
    tile = find_tile(job, int(fields[b"tile"]))
    return Lease(entry, job, tile, int(fields[b"attempt"]), deliveries, owner)


def _announcement(entry: str, _: str, __: int, fields: dict[bytes, bytes]) -> Announcement:
    return Announcement(entry, parse_job(fields[b"spec"]))
