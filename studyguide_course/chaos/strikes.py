"""The rows of the fault matrix: what strikes a run, and what must be seen of it.

A strike is a generator that the cluster resumes at each step. It waits for progress, never for a
clock: only how long something stays frozen is time. It ends once it has hit.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import redis

from studyguide.approaches import APPROACHES
from studyguide.cluster import Cluster, LocalCluster
from studyguide.errors import StudyguideError
from studyguide.machinery.faults import Fault
from studyguide.machinery.redis_server import RedisServer, wheel_server
from studyguide.plan import Plan
from studyguide.record.timeline import Event, Recorder
from studyguide.settings import Settings
from studyguide.streams import GROUPS
from studyguide_course.chaos.proxy import Proxy
from studyguide_course.chaos.subject import TILES, job

VISIBILITY_S = 0.8
BOUND_S = 40.0  # every run has to end within it, on a machine that does other things too
SETTLE_S = 10.0  # for what is still in flight when the last image is saved
SLOW = Fault("slow", *TILES[-1])  # keeps the run from being over before it was struck


class NotHere(Exception):
    """What a row needs is not to be had on this machine."""


@dataclass(frozen=True)
class Attack:
    """What will happen to a run; `rng` is at the seed."""

    approach: str
    row: "Row"
    rng: Random
    faults: tuple[Fault, ...]
    server: Path | None = None  # the program; what is found on this machine when not given


class Site(LocalCluster):
    """A cluster with what strikes need to see and to do."""

    def __init__(self, attack: Attack, settings: Settings, folder: Path) -> None:
        self.events: list[Event] = []
        plan = Plan(attack.approach, settings, folder, "chaos", attack.faults, (_resume,))
        super().__init__(plan, Recorder(self.events.append))
        self.rng = attack.rng
        self.most_redelivered = attack.row.most_redelivered
        self.struck = False
        self.proxy: Proxy | None = None
        self.client: Any = None
        self.strike = attack.row.strike(self)
        self._attack = attack
        self._deadline = time.monotonic() + BOUND_S

    def start_redis(self, persistent: bool) -> None:
        """Start the server of this trial, whatever the environment names."""
        folder, program = self.plan.folder / "redis", self._attack.server
        if self._attack.row.own_clock:
            program = with_own_clock(self.plan.folder)
        self.redis = RedisServer.start(folder, persistent, self._reaper, program)
        self.redis_url = self.redis.url
        self.client = redis.Redis.from_url(self.redis.url, protocol=2)
        if self._attack.row.proxied:
            self.proxy = Proxy(self.redis.port, latency_s=self.rng.uniform(0, 0.003))
            self.redis_url = self.redis.url.replace(f":{self.redis.port}", f":{self.proxy.port}")

    def step(self) -> None:
        """Do all that is due; no run may go on for ever."""
        if time.monotonic() > self._deadline:
            raise StudyguideError(f"The run was not over after {BOUND_S:g} s")
        super().step()

    def settle(self) -> dict[str, int]:
        """Go on until the strike is over and the queues are empty; return what is left in them."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            self.step()
            left = self.left() if APPROACHES[self.plan.approach].resumable else {}
            if (self.struck and not any(left.values())) or time.monotonic() > deadline:
                return left
            time.sleep(0.02)

    def close(self) -> None:
        """Leave nothing behind."""
        super().close()
        if self.proxy:
            self.proxy.close()

    @property
    def server(self) -> RedisServer:
        """The server of this trial."""
        assert self.redis
        return self.redis

    # -- what is in Redis

    def key(self, name: str, image: str = "") -> str:
        """A key of this run, or of one image's job."""
        return f"{self.plan.prefix}{name}" + (
            f":{job(image, self.plan.run_id).key}" if image else ""
        )

    def pending(self, stream: str) -> int:
        """How many entries of a stream are leased."""
        # NOGROUP: nobody has made the group yet; or the server is away, struck by another.
        with suppress(redis.ResponseError, redis.ConnectionError):
            return int(self.client.xpending(self.key(stream), GROUPS[stream])["pending"])
        return 0

    def waiting(self, stream: str) -> int:
        """How many entries a stream has, leased ones included; none while the server is away."""
        with suppress(redis.ConnectionError):
            return int(self.client.xlen(self.key(stream)))
        return 0

    def left(self) -> dict[str, int]:
        """How much is in each queue."""
        waiting = {stream: self.waiting(stream) for stream in GROUPS}
        leased = {f"{stream} pending": self.pending(stream) for stream in GROUPS}
        return waiting | leased | {"delayed": self.client.zcard(self.key("delayed"))}

    # -- what strikes wait for

    def seen(self, stage: str) -> list[tuple[str, int, str]]:
        """Image, tile and process of each event of a stage so far."""
        return [(e.image, e.tile, e.process) for e in self.events if e.stage == stage]

    def progress(self) -> Iterator[None]:
        """Wait until some tiles are blurred; the seed says how many."""
        after = self.rng.randint(0, len(TILES) // 2)
        yield from until(lambda: self.blurred >= after)

    def windows(self, least: float, most: float) -> Iterator[None]:
        """Let some visibility timeouts pass."""
        end = time.monotonic() + self.rng.uniform(least, most) * VISIBILITY_S
        yield from until(lambda: time.monotonic() > end)

    def freeze_busy_assembler(self) -> bool:
        """Freeze the assembler with an image in hand, which is over in milliseconds.

        So it is kept frozen until there is one for it to take, then let go for moments only.
        """
        child = self.processes["assembler-0"].child
        child.pause()
        while self.waiting("ready"):
            if self.pending("ready"):
                return True
            child.resume()
            time.sleep(0.001)
            child.pause()
        return False


def _resume(cluster: Cluster) -> None:
    assert isinstance(cluster, Site)
    cluster.struck = cluster.struck or next(cluster.strike, cluster) is cluster


def until(condition: Callable[[], Any]) -> Iterator[None]:
    """Wait, a step of the cluster at a time."""
    while not condition():
        yield


# --- the strikes: each ends once it has hit ------------------------------------------------------


def nothing(site: Site) -> Iterator[None]:
    """Faults planted on tiles strike by themselves."""
    yield from ()


def kill_worker(site: Site) -> Iterator[None]:
    """SIGKILL of a worker in the middle of a tile."""
    yield from site.progress()
    yield from until(site.kill_busy_worker)


def kill_coordinator(site: Site) -> Iterator[None]:
    """SIGKILL of the coordinator."""
    yield from site.progress()
    site.kill("coordinator-0")


def kill_assembler(site: Site) -> Iterator[None]:
    """SIGKILL of the assembler with an image in hand."""
    busy = site.freeze_busy_assembler
    yield from until(
        busy if APPROACHES[site.plan.approach].resumable else lambda: site.seen("assemble")
    )
    site.kill("assembler-0")


def kill_redis(site: Site) -> Iterator[None]:
    """SIGKILL of the server."""
    yield from site.progress()
    site.server.kill()


def kill_any(site: Site) -> Iterator[None]:
    """Two of the four."""
    kills = (kill_worker, kill_coordinator, kill_redis, kill_assembler)
    for n in sorted(site.rng.sample(range(len(kills)), 2)):
        yield from kills[n](site)


def zombie(site: Site) -> Iterator[None]:
    """A frozen worker comes back after another has done its tile."""
    yield from site.progress()
    while not (name := site.freeze_busy_worker()):
        yield
    held = {(e.image, e.tile) for (owner, _), e in site.held.items() if owner == name}
    yield from site.windows(1.5, 4)
    yield from until(lambda: any(seen[:2] in held for seen in site.seen("transfer")))
    site.processes[name].child.resume()
    yield from until(lambda: site.seen("duplicate"))


def pause_redis(site: Site) -> Iterator[None]:
    """A frozen server; only what was in flight may be redelivered, once."""
    yield from site.progress()
    yield from until(lambda: site.pending("tasks"))
    site.most_redelivered = site.pending("tasks")
    site.server.pause()
    yield from site.windows(1, 2)
    site.server.resume()


def cut_tail(site: Site) -> Iterator[None]:
    """SIGKILL of the server, and the end of its append-only file is gone."""
    yield from site.progress()
    site.server.kill()
    file = max((site.plan.folder / "redis").rglob("*.aof"), key=lambda path: path.stat().st_size)
    os.truncate(file, int(file.stat().st_size * (1 - site.rng.uniform(0.02, 0.4))))


def flush(site: Site) -> Iterator[None]:
    """FLUSHALL in the middle of the job, when there is a result to be lost."""
    yield from site.progress()
    yield from until(lambda: site.client.hlen(site.key("res", SLOW.image)))
    site.client.flushall()


def deliver_twice(site: Site) -> Iterator[None]:
    """Entries of the stream are there once more."""
    yield from site.progress()
    while not (entries := site.client.xrange(site.key("tasks"))):
        yield
    for _, fields in site.rng.sample(entries, site.rng.randint(1, len(entries))):
        site.client.xadd(site.key("tasks"), fields)


def corrupt(site: Site) -> Iterator[None]:
    """One byte of a committed result is another; its image waits for a slow tile."""
    while not (results := site.client.hgetall(site.key("res", SLOW.image))):
        yield
    tile = site.rng.choice(sorted(results))
    name, key = f"{tile.decode()}-{results[tile].decode()}", site.key("out", SLOW.image)
    for path in (site.plan.folder / "pixels").rglob(f"{name}*"):
        path.write_bytes(_flipped(path.read_bytes()))
    if pixels := site.client.hget(key, name):
        site.client.hset(key, name, _flipped(pixels))


def _flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


def out_of_order(site: Site) -> Iterator[None]:
    """The first tile of each image comes last."""
    yield from until(lambda: disorder(site.events))


def fill_disk(site: Site) -> Iterator[None]:
    """No room for pixels and the append-only file until the server has noticed."""
    yield from until(lambda: len(site.seen("enqueue")) == len(TILES))
    ballast = site.plan.folder / "disk" / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    yield from until(lambda: site.client.info("persistence")["aof_last_write_status"] == "err")
    yield from site.windows(0.5, 1.5)
    ballast.unlink()


def drain(site: Site) -> Iterator[None]:
    """SIGTERM while a tile is in hand: it is finished."""
    yield from site.progress()
    while not (name := site.freeze_busy_worker()):
        yield
    child = site.processes[name].child
    child.terminate()
    child.resume()
    yield from until(lambda: child.poll() is not None)
    if child.poll() != 0:
        raise StudyguideError(f"{name} ended with exit code {child.poll()} when it was drained")


def scale(site: Site) -> Iterator[None]:
    """One worker, then four, then one."""
    yield from until(lambda: site.blurred >= 1)
    site.scale("worker", 4)
    least = site.rng.randint(2, 3)
    yield from until(lambda: len({process for *_, process in site.seen("transfer")}) >= least)
    site.scale("worker", 1)


def second_coordinator(site: Site) -> Iterator[None]:
    """Two coordinators queue each tile once."""
    site.start("coordinator", 2)
    yield from until(lambda: len({process for *_, process in site.seen("enqueue")}) == 2)


def reset_connections(site: Site) -> Iterator[None]:
    """A slow network, on which all connections are reset again and again."""
    assert site.proxy
    for _ in range(site.rng.randint(1, 4)):
        yield from until(site.proxy.reset)
        before = len(site.events)
        while len(site.events) == before:
            yield


def jump_clock(site: Site) -> Iterator[None]:
    """A worker dies, then the server's clock is set on by an hour, or back a little."""
    yield from kill_worker(site)
    (site.plan.folder / "clock").write_text(f"{site.rng.choice((3600, -2)):+d}")


def with_own_clock(folder: Path) -> Path:
    """A program that runs a server by the clock that the file `clock` sets.

    It is the server of the wheel: Debian's allocator asks for the time before libfaketime is up.
    """
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    program = wheel_server()
    if not library or not program:
        raise NotHere("no libfaketime (apt install faketime) or no server of the wheel")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clock").write_text("+0")
    setting: dict[str, object] = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": folder / "clock",
    }
    setting |= {"FAKETIME_NO_CACHE": 1, "FAKETIME_DONT_FAKE_MONOTONIC": 1}
    environment = " ".join(f"{name}={value}" for name, value in setting.items())
    wrapper = folder / "redis-server"
    wrapper.write_text(f'#!/bin/sh\nexec env {environment} {program} "$@"\n')
    wrapper.chmod(0o700)
    return wrapper


# --- the matrix ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One row of the matrix: what strikes, and what must be seen of it.

    `bites` names counts that are at least one if the fault bit. `commits` says how many first
    commits the events may tell: exactly one for each tile, or at most so many where an answer can
    get lost, or at least so many where Redis loses what it had: what it `forgets` of an image that
    is saved need not come back.
    """

    strike: Callable[[Site], Iterator[None]] = nothing
    bites: tuple[str, ...] = ()
    plant: tuple[str, ...] = ()  # kinds of faults, each on a tile that the seed chooses
    commits: str = "="
    forgets: bool = False
    most_redelivered: int | None = None
    slow: tuple[Fault, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    proxied: bool = False
    small_disk: bool = False
    own_clock: bool = False


def slow(*tiles: tuple[str, int]) -> tuple[Fault, ...]:
    """Faults that make each of these tiles take a second longer."""
    return tuple(Fault("slow", *tile) for tile in tiles)


KILLS = {
    "kill-worker": Row(kill_worker, ("deaths", "redelivered"), commits="<"),
    "kill-assembler": Row(kill_assembler, ("deaths",)),
    "kill-coordinator": Row(kill_coordinator, ("deaths",), options={"queue_size": 3}),
    "kill-redis": Row(kill_redis, ("deaths",), commits="<"),
    "kill-any": Row(kill_any, ("deaths",), commits="<"),
}
ROWS = {
    "none": Row(most_redelivered=0),
    **KILLS,
    "zombie": Row(zombie, ("redelivered", "duplicates")),
    "redis-paused": Row(pause_redis, commits="<"),
    "aof-cut": Row(cut_tail, ("deaths",), commits=">", forgets=True),
    "flushall": Row(flush, ("redelivered",), commits=">", forgets=True),
    "delivered-twice": Row(deliver_twice, ("redelivered", "duplicates")),
    "flaky-tile": Row(bites=("retries", "redelivered"), plant=("flaky",)),
    "raising-tile": Row(bites=("retries", "dead_letters"), plant=("raise",)),
    "poison-tile": Row(bites=("deaths", "dead_letters"), plant=("poison",), commits="<"),
    "corrupt-result": Row(corrupt, ("redelivered",), commits=">"),
    "out-of-order": Row(out_of_order, ("disorder",), slow=slow(("first.png", 0), ("last.png", 0))),
    "disk-full": Row(fill_disk, commits="<", small_disk=True),
    "clock-jump": Row(
        jump_clock, ("deaths", "redelivered", "retries"), ("flaky",), commits="<", own_clock=True
    ),
    "drain": Row(drain, ("deaths",), most_redelivered=0),
    "scale": Row(
        scale, slow=slow(*TILES), most_redelivered=0, options={"workers": 1, "instances": 1}
    ),
    "two-coordinators": Row(second_coordinator, most_redelivered=0),
    "tcp-reset": Row(reset_connections, commits="<", proxied=True),
}


def disorder(events: list[Event]) -> int:
    """How often a result came after one of a later tile of its image."""
    latest: dict[str, int] = {}
    count = 0
    for event in events:
        if event.stage == "transfer":
            count += event.tile < latest.get(event.image, 0)
            latest[event.image] = max(event.tile, latest.get(event.image, 0))
    return count
