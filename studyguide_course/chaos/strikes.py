"""The rows of the fault matrix: what strikes a run, and what must be seen of it.

A strike is a generator that the cluster resumes at each step. It waits for progress, never for a
clock: only how long something stays frozen is time. It ends once it has hit.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from studyguide.approaches import APPROACHES
from studyguide.errors import StudyguideError
from studyguide.machinery.faults import Fault
from studyguide.record.timeline import Event
from studyguide_course.chaos.site import Site, until
from studyguide_course.chaos.subject import GRIDS, TILES

SLOW = Fault("slow", *TILES[-1])  # keeps the run from being over before it was struck


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
    resumable = APPROACHES[site.plan.approach].resumable
    yield from until(site.freeze_busy_assembler if resumable else lambda: site.seen("assemble"))
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
    for path in (site.plan.folder / "pixels").glob(f"*-{name}.raw"):
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
    for _ in range(site.rng.randint(1, 4)):  # some have connected anew by then
        yield from until(lambda: sum([proxy.reset() for proxy in site.proxies.values()]))


def slow_network(site: Site) -> Iterator[None]:
    """Answers come late and out of step, and some connections are lost, until all is saved."""
    late = {name: site.rng.uniform(0.005, 0.03) for name in ("latency_s", "jitter_s")}
    least = loss = site.rng.uniform(0.002, 0.01)
    site.change_network(**late)
    while not site.lost_connections:  # the more likely, the longer none is lost
        site.change_network(loss=loss)
        loss += 0.0005
        yield
    site.change_network(loss=least)
    yield from until(lambda: len(site.seen("save")) == len(GRIDS))
    site.change_network(loss=0.0)
    # With each, all that its process held may have gone to others.
    site.most_redelivered = site.lost_connections * site.settings.workers


def partition(site: Site) -> Iterator[None]:
    """A worker with a tile in hand is cut off from Redis, at times all others too for a while.

    It stays alive and blurs on: its lease goes to another, and its commit comes late. In e nobody
    gets its tile: at times the partition lasts until the coordinator gives the tile up.
    """
    yield from site.progress()
    while not (name := site.freeze_busy_worker()):
        yield
    held = {(e.image, e.tile) for (owner, _), e in site.held.items() if owner == name}
    cut, long = list(site.proxies) if site.rng.random() < 0.3 else [name], site.rng.random() < 0.5
    for it in cut:
        site.proxies[it].cut()
    site.processes[name].child.resume()
    site.most_redelivered = 0
    for _ in site.windows(1.5, 4):
        site.most_redelivered = max(site.most_redelivered, site.pending("tasks", cut))
        yield
    for it in {*cut} - {name}:
        site.proxies[it].heal()
    if APPROACHES[site.plan.approach].resumable:
        # Its own commit of another tile may have come through just before.
        again = {(*tile, other) for tile in held for other in site.processes if other != name}
        yield from until(lambda: again & {*site.seen("transfer")})
        site.proxies[name].heal()
        yield from until(lambda: site.seen("duplicate"))
    elif long:
        yield from until(lambda: site.seen("lost"))
    site.proxies[name].heal()


def fail_over(site: Site) -> Iterator[None]:
    """SIGKILL of the primary when its replica lacks some acknowledged results."""
    yield from site.progress()
    assert site.replica
    site.replica.link.cut()
    results, most = len(site.acknowledged()), site.rng.randint(1, 3)
    yield from until(lambda: len(site.acknowledged()) >= results + most)
    site.fail_over()


def jump_clock(site: Site) -> Iterator[None]:
    """A worker dies, then the server's clock is set on by an hour, or back a little."""
    yield from kill_worker(site)
    (site.plan.folder / "clock").write_text(f"{site.rng.choice((3600, -2)):+d}")


# --- the matrix ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One row of the matrix: what strikes, and what must be seen of it.

    `bites` names counts that are at least one if the fault bit, `spares` those that stay zero.
    `commits` says how many first commits the events may have: exactly one for each tile, or at most
    so many where an answer can get lost, or at least so many where Redis loses what it had: what it
    `forgets` of an image that is saved need not come back. Processes of a `proxied` row reach Redis
    through a proxy each; the server of a `replicated` one has a replica.
    """

    strike: Callable[[Site], Iterator[None]] = nothing
    bites: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
    plant: tuple[str, ...] = ()  # kinds of faults, each on a tile that the seed chooses
    commits: str = "="
    forgets: bool = False
    most_redelivered: int | None = None
    slow: tuple[Fault, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    proxied: bool = False
    replicated: bool = False
    small_disk: bool = False
    own_clock: bool = False


def slow(*tiles: tuple[str, int]) -> tuple[Fault, ...]:
    """Faults that make each of these tiles take a second longer."""
    return tuple(Fault("slow", *tile) for tile in tiles)


UNHARMED = ("deaths", "retries", "dead_letters")  # a bad network causes none of them
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
        jump_clock,
        ("deaths", "redelivered", "retries"),
        plant=("flaky",),
        commits="<",
        own_clock=True,
    ),
    "drain": Row(drain, ("deaths",), most_redelivered=0),
    "scale": Row(
        scale, slow=slow(*TILES), most_redelivered=0, options={"workers": 1, "instances": 1}
    ),
    "two-coordinators": Row(second_coordinator, most_redelivered=0),
    "tcp-reset": Row(reset_connections, commits="<", proxied=True),
    "slow-network": Row(slow_network, ("resets",), UNHARMED, commits="<", proxied=True),
    "partition": Row(partition, ("redelivered", "duplicates"), UNHARMED, commits="<", proxied=True),
    "failover": Row(
        fail_over,
        ("deaths", "forgotten"),
        commits=">",
        forgets=True,
        proxied=True,
        replicated=True,
    ),
}
WITH_LISTS = (*KILLS, "partition", "failover")  # rows that strike e, too


def disorder(events: list[Event]) -> int:
    """How often a result came after one of a later tile of its image."""
    latest: dict[str, int] = {}
    count = 0
    for event in events:
        if event.stage == "transfer":
            count += event.tile < latest.get(event.image, 0)
            latest[event.image] = max(event.tile, latest.get(event.image, 0))
    return count
