"""The two queues: a Redis list that forgets what it hands out, and a Redis stream that does not.

`ListQueue` (e) delivers at most once: a tile that was popped is known to its worker alone.
`StreamQueue` (f, g) delivers at least once: a tile is leased to a worker, which renews the lease
with its heartbeat; whoever goes silent for a visibility timeout loses it to another. Every change
of state is one atomic call into protocol.lua. Commands are those of Redis 6.2 and of Valkey.
"""

import json
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from studyguide.errors import Cancelled, MessageError, QueueError, UsageError
from studyguide.tiles import Tile
from studyguide.work import ImageJob, find_tile, parse_job

log = logging.getLogger(__name__)

T = TypeVar("T")
Entry = tuple[str, str, int, dict[bytes, bytes]]  # id, who held it before, deliveries, fields

SOCKET_TIMEOUT_S = 4.0  # longer than any call blocks: an answer that takes longer never comes
GROUPS = {"tasks": "workers", "ready": "assemblers"}  # the consumer group of each stream
# Signs of errors that pass by themselves: the disk is full, or the memory is; a script takes long.
PASSING = ("MISCONF", "maxmemory", "is busy running")
# Signs that a stream or its group is gone: the server lost its data, before or during a read.
LOST = ("NOGROUP", "UNBLOCKED")
LONGEST_PAUSE_S = 1.5  # between two tries while Redis is away
AUDIT_TILES = 10_000  # tiles that one call looks at: others wait for some milliseconds
BLOCK_S = 0.2  # how long a read waits for work before it looks whether it should stop


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

        Raises QueueError if Redis stays away for longer than our patience, or refuses us; Cancelled
        if we were told to stop meanwhile.
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


def reopen(link: Link, prefix: str, intact: Collection[str]) -> None:
    """Forget how all images ended but those in `intact`: a resumed run ends them anew."""

    def forget(client: Any) -> None:
        for image, job in client.hgetall(f"{prefix}jobs").items():
            if json.loads(image) not in intact:
                client.delete(f"{prefix}state:{job.decode()}")

    link(forget)


@dataclass
class Queue:
    """What both queues share: how each image ended, in the keys `state:<job>`."""

    link: Link
    prefix: str = "{sg}:"

    def set_state(self, job: ImageJob, state: str) -> None:
        """Say how the image ended: saved, partial or failed."""
        self.link(lambda client: client.set(f"{self.prefix}state:{job.key}", state))

    def state(self, job: ImageJob) -> str:
        """How the image ended; empty while it has not."""
        (found,) = self.states([job])
        return found

    def states(self, jobs: Sequence[ImageJob]) -> list[str]:
        """How each of these images ended, in one call however many they are."""
        keys = [f"{self.prefix}state:{job.key}" for job in jobs]
        found = self.link(lambda client: client.mget(keys)) if keys else []
        return [(state or b"").decode() for state in found]


# --- e: at most once -----------------------------------------------------------------------------


@dataclass
class ListQueue(Queue):
    """Redis lists `tasks` and `results`; what is popped exists in its worker's memory only.

    The set `received` lets the coordinator see how far a run is. Whoever takes messages under a
    name counts in `turn:<name>` how often it asked; that key is gone when nobody has renewed it for
    `ttl_s`. It tells the coordinator who is alive and may have a message in hand, and nothing else:
    a list has no acknowledgement.
    """

    name: str = ""  # under which messages are taken
    ttl_s: float = 3.0

    def put(self, name: str, message: bytes) -> None:
        """Append a message to the list `tasks` or `results`."""
        self.link(lambda client: client.lpush(self.prefix + name, message))

    def take(self, name: str) -> bytes | None:
        """Pop the oldest message, or None after `BLOCK_S`; from here on it is ours alone."""

        def ask(client: Any) -> Any:
            pipe = client.pipeline(transaction=False)
            if self.name:
                pipe.incr(f"{self.prefix}turn:{self.name}")
                self._renew(pipe, self.name, self.ttl_s)
            pipe.brpop([self.prefix + name], BLOCK_S)
            return pipe.execute()[-1]

        popped = self.link(ask, BLOCK_S)
        return popped[1] if popped else None

    def beat(self, _list: str, name: str, ttl_s: float, _entries: Sequence[str]) -> None:
        """Say that whoever takes messages under this name is alive."""

        def say(client: Any) -> None:
            pipe = client.pipeline(transaction=False)
            pipe.set(f"{self.prefix}turn:{name}", 0, nx=True)  # a server that died forgot it
            self._renew(pipe, name, ttl_s)
            pipe.execute()

        self.link(say)

    def _renew(self, pipe: Any, name: str, ttl_s: float) -> None:
        pipe.pexpire(f"{self.prefix}turn:{name}", int(ttl_s * 1000))
        pipe.sadd(f"{self.prefix}names", name)

    def stop_beating(self, name: str) -> None:
        """Say that this name is leaving."""
        self.link(lambda client: client.delete(f"{self.prefix}turn:{name}"))

    def turns(self) -> dict[str, int]:
        """How often everybody who is alive has asked for a message.

        A server that lost its data since the last call has forgotten them: it was not healthy.
        """

        def ask(client: Any) -> Any:
            if client.set(f"{self.prefix}known", 1, nx=True):
                self.link.healthy_since = time.monotonic()
            names = sorted(client.smembers(f"{self.prefix}names"))
            keys = [f"{self.prefix}turn:".encode() + name for name in names]
            return zip(names, client.mget(keys) if keys else [], strict=True)

        return {name.decode(): int(turn) for name, turn in self.link(ask) if turn is not None}

    def length(self, name: str) -> int:
        """Messages that wait in a list."""
        return int(self.link(lambda client: client.llen(self.prefix + name)))

    def note_received(self, job: ImageJob, *tiles: Tile) -> None:
        """The assembler has these tiles."""
        members = _members(job, tiles)
        self.link(lambda client: client.sadd(f"{self.prefix}received", *members))

    def forget_received(self) -> None:
        """A new assembler has nothing: what the one before it held in memory is gone."""
        self.link(lambda client: client.delete(f"{self.prefix}received"))

    def count_received(self) -> int:
        """How many tiles the assembler has, of all jobs."""
        return int(self.link(lambda client: client.scard(f"{self.prefix}received")))

    def missing(self, job: ImageJob) -> list[Tile]:
        """Tiles of a job that the assembler does not have."""
        members = _members(job, job.tiles)
        found = self.link(lambda client: client.smismember(f"{self.prefix}received", members))
        return [tile for tile, there in zip(job.tiles, found, strict=True) if not there]


def _members(job: ImageJob, tiles: Iterable[Tile]) -> list[str]:
    return [f"{job.key}:{tile.index}" for tile in tiles]


# --- f and g: at least once ----------------------------------------------------------------------


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

    def commit(self, lease: Lease, result: bytes) -> bool:
        """Record a tile's result and let go of it; False if another result came first."""
        job = lease.job
        args = (lease.entry, job.key, job.to_json(), lease.tile.index, result, len(job.tiles))
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

    def reject(self, job: ImageJob, tile: Tile, result: bytes) -> None:
        """A result is corrupt: do its tile again."""
        self._call("reject", job.key, job.to_json(), tile.index, result)

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


def _lease(entry: str, owner: str, deliveries: int, fields: dict[bytes, bytes]) -> Lease:
    job = parse_job(fields[b"spec"])
    tile = find_tile(job, int(fields[b"tile"]))
    return Lease(entry, job, tile, int(fields[b"attempt"]), deliveries, owner)


def _announcement(entry: str, _: str, __: int, fields: dict[bytes, bytes]) -> Announcement:
    return Announcement(entry, parse_job(fields[b"spec"]))
