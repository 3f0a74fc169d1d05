"""The cluster of a trial: what strikes need to see and to do."""

import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from studyguide.approaches import APPROACHES
from studyguide.cluster import Cluster, LocalCluster
from studyguide.errors import StudyguideError
from studyguide.machinery.redis_server import RedisServer, wheel_server
from studyguide.plan import Plan
from studyguide.record.timeline import Event, Recorder
from studyguide.settings import Settings
from studyguide.streams import GROUPS
from studyguide_course.chaos.proxy import Proxy
from studyguide_course.chaos.replica import Replica
from studyguide_course.chaos.subject import GRIDS, TILES, job

if TYPE_CHECKING:
    from studyguide_course.chaos.trial import Trial

VISIBILITY_S = 0.8
BOUND_S = 40.0  # every run has to end within it, on a machine that does other things too
SETTLE_S = 10.0  # for what is still in flight when the last image is saved


class NotHere(Exception):
    """What a row needs is not to be had on this machine."""


class Site(LocalCluster):
    """A cluster with what strikes need to see and to do."""

    def __init__(self, trial: "Trial", settings: Settings, folder: Path) -> None:
        self.events: list[Event] = []
        plan = Plan(trial.approach, settings, folder, "chaos", trial.faults, (_resume,))
        super().__init__(plan, Recorder(self.events.append))
        self.row, self.rng = trial.row, trial.rng
        self.most_redelivered = trial.row.most_redelivered
        self.struck = False
        self.proxies: dict[str, Proxy] = {}  # by process
        self.network: dict[str, float] = {}  # how all proxies are
        self.replica: Replica | None = None
        self.forgotten = 0  # results that were acknowledged and lost by a failover
        self.client: Any = None
        self.strike = trial.row.strike(self)
        self._program = trial.program
        self._deadline = time.monotonic() + BOUND_S

    def start_redis(self, persistent: bool) -> None:
        """Start the server of this trial, whatever the environment names."""
        folder, program = self.plan.folder / "redis", self._program
        if self.row.own_clock:
            program = with_own_clock(self.plan.folder)
        self.redis = RedisServer.start(folder, persistent, self._reaper, program)
        self.redis_url = self.redis.url
        self.client = redis.Redis.from_url(self.redis.url, protocol=2)
        if self.row.proxied:
            self.network = {"latency_s": self.rng.uniform(0, 0.003)}
        if self.row.replicated:
            self.replica = Replica(self.redis, self.plan.folder / "replica", self._reaper, program)

    def address(self, name: str) -> str:
        """Where a process finds Redis: at a proxy of its own, if the row has them."""
        if not self.row.proxied:
            return self.redis_url
        if name not in self.proxies:
            self.proxies[name] = Proxy(self.server.port, **self.network)
        return re.sub(r":\d+/0$", f":{self.proxies[name].port}/0", self.redis_url)

    def change_network(self, **options: float) -> None:
        """Change `latency_s`, `jitter_s` or `loss` of all proxies, those to come included."""
        self.network |= options
        for proxy in self.proxies.values():
            for name, value in options.items():
                setattr(proxy, name, value)

    @property
    def lost_connections(self) -> int:
        """How many connections the network lost."""
        return sum(proxy.lost for proxy in self.proxies.values())

    def fail_over(self) -> None:
        """Kill the server, have its replica take over, and count what is lost by that."""
        assert self.replica
        before = self.acknowledged()
        self.server.kill()
        self.record_death("redis")
        self.redis = self.replica.promote()
        self.client = redis.Redis.from_url(self.redis.url, protocol=2)
        self.forgotten = len(before - self.acknowledged())
        for proxy in self.proxies.values():
            proxy.target = self.redis.port
            proxy.reset()

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
        if self.replica:
            self.replica.close()
        for proxy in self.proxies.values():
            proxy.close()

    @property
    def server(self) -> RedisServer:
        """The server of this trial."""
        assert self.redis
        return self.redis

    # -- what is in Redis

    def key(self, name: str, image: str = "") -> str:
        """A key of this run, or of one image's job."""
        of_image = f":{job(image, self.plan.run_id).key}" if image else ""
        return f"{self.plan.prefix}{name}{of_image}"

    def pending(self, stream: str, names: Collection[str] = ()) -> int:
        """How many entries of a stream are leased, by these processes if any are named."""
        # NOGROUP: nobody has made the group yet; or the server is away, struck by another.
        with suppress(redis.ResponseError, redis.ConnectionError):
            leased = self.client.xpending(self.key(stream), GROUPS[stream])["consumers"]
            counts = ((it["name"].decode().split("/")[0], int(it["pending"])) for it in leased)
            return sum(count for name, count in counts if name in names or not names)
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

    def acknowledged(self) -> set[tuple[str, bytes]]:
        """Results that were acknowledged: those of workers or, in e, those of the assembler."""
        hashes = [self.key("res", image) for image in GRIDS]
        found = {(key, tile) for key in hashes for tile in self.client.hkeys(key)}
        key = self.key("received")
        return found | {(key, tile) for tile in self.client.smembers(key)}

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
    environment = f"LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={folder / 'clock'}"
    environment += " FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
    wrapper = folder / "redis-server"
    wrapper.write_text(f'#!/bin/sh\nexec env {environment} {program} "$@"\n')
    wrapper.chmod(0o700)
    return wrapper
