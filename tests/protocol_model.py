"""Two workers, two tiles, a coordinator and an assembler: every order of their steps, checked.

Breadth-first search over all states that the actors can reach through the scripts of protocol.lua,
which runs itself, on the server of small_redis.py. Up to `faults` times anything may happen: a
script stops after any of its writes, an answer or an acknowledged write is lost, an actor crashes,
a living worker loses its lease, a result is corrupt, an entry is garbage, all keys vanish.

In every state `check_state` must hold, after every whole call `check_call`, and from every state
the actors must come to an end with nothing lost (`settle`) once no more faults happen.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from small_redis import Script, SmallRedis, Stream

P, JOB, SPEC, GARBAGE = "p:", "j", "spec", "garbage"
GOOD, BAD = "good", "bad"  # results; BAD is corrupt
TILES = ("0", "1")
MAX_ATTEMPTS = 2
GROUPS = {"tasks": "workers", "ready": "assemblers"}
# Attempts at which a tile of each kind fails, and whether it may also succeed at them.
KINDS = {
    "good": ((), True),
    "flaky": ((1,), True),
    "poison": ((1, 2), False),
    "erratic": ((1, 2), True),
}

Fields = tuple[str, ...]
Entries = tuple[tuple[int, Fields], ...]


class Violation(AssertionError):
    """An invariant does not hold; the message has the steps that led there."""


@dataclass(frozen=True)
class Server:
    """All that Redis holds. Who owns a lease is left out: the workers are alike."""

    tasks: Entries = ()
    tasks_last: int = 0
    tasks_pending: frozenset[int] = frozenset()
    ready: Entries = ()
    ready_last: int = 0
    ready_pending: frozenset[int] = frozenset()
    dlq: tuple[Fields, ...] = ()
    keys: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def values(self) -> dict[str, Any]:
        return dict(self.keys)

    def names(self, key: str) -> set[str]:
        """Members of a set, fields of a hash."""
        return {item[0] if isinstance(item, tuple) else item for item in self.values.get(key, ())}

    @property
    def in_flight(self) -> list[tuple[str, int]]:
        """(tile, attempt) of each entry and each delayed retry."""
        queued = [(fields[3], int(fields[5])) for _, fields in self.tasks if fields[1] != GARBAGE]
        delayed = [member.split("|")[:2] for member in self.names("delayed")]
        return queued + [(tile, int(attempt)) for tile, attempt in delayed]

    @property
    def complete(self) -> bool:
        """Every tile has ended."""
        return self.names("res:j") | self.names("dead:j") == set(TILES)


@dataclass(frozen=True)
class Held:
    """What an actor has in hand: the entry, and what it will do next."""

    entry: int
    step: str
    data: tuple[Any, ...] = ()


@dataclass(frozen=True)
class World:
    """A state: the server, what the two workers and the assembler hold, faults left."""

    server: Server
    workers: tuple[Held | None, Held | None] = (None, None)
    assembler: Held | None = None
    faults: int = 0
    lost: bool = False  # acknowledged writes vanished: what they said may have to be done again
    blind: bool = False  # all vanished after the assembler looked: it ends what is no longer there

    def normal(self) -> "World":
        """The same with entries numbered 1, 2, ... and the workers in order."""
        server, hands = self.server, [*self.workers, self.assembler]
        ids = {entry for entry, _ in (*server.tasks, *server.ready)}
        ids |= server.tasks_pending | server.ready_pending
        ids |= {hand.entry for hand in hands if hand}
        new = {entry: n + 1 for n, entry in enumerate(sorted(ids))}

        def last(entries: Entries, until: int) -> int:
            return max((new[entry] for entry, _ in entries if entry <= until), default=0)

        server = replace(
            server,
            tasks=tuple((new[entry], fields) for entry, fields in server.tasks),
            tasks_last=last(server.tasks, server.tasks_last),
            tasks_pending=frozenset(new[entry] for entry in server.tasks_pending),
            ready=tuple((new[entry], fields) for entry, fields in server.ready),
            ready_last=last(server.ready, server.ready_last),
            ready_pending=frozenset(new[entry] for entry in server.ready_pending),
        )
        blind = self.blind and (self.assembler is not None or "state:j" in server.values)
        one, two, assembler = (hand and replace(hand, entry=new[hand.entry]) for hand in hands)
        if repr(one) > repr(two):
            one, two = two, one
        hands = {"workers": (one, two), "assembler": assembler}
        return replace(self, server=server, blind=blind, **hands)


def freeze(small: SmallRedis) -> Server:
    tasks, ready = (small.get(P + stream, Stream()) for stream in GROUPS)
    dlq = small.get(P + "dlq", Stream())
    keys = []
    for key, value in sorted(small.keys.items()):
        if isinstance(value, dict):
            plain = [(name, "" if key == P + "delayed" else text) for name, text in value.items()]
            keys.append((key.removeprefix(P), tuple(sorted(plain))))
        elif not isinstance(value, Stream):
            whole = tuple(sorted(value)) if isinstance(value, set) else value
            keys.append((key.removeprefix(P), whole))
    return Server(
        tuple(tasks.entries.items()),
        tasks.last,
        frozenset(tasks.pending),
        tuple(ready.entries.items()),
        ready.last,
        frozenset(ready.pending),
        tuple(sorted(fields[:4] for fields in dlq.entries.values())),
        tuple(keys),
    )


def thaw(server: Server, next_id: int, before_7: bool) -> SmallRedis:
    small = SmallRedis(before_7)
    small.next_id = next_id
    for name, entries, last, pending in (
        ("tasks", server.tasks, server.tasks_last, server.tasks_pending),
        ("ready", server.ready, server.ready_last, server.ready_pending),
        ("dlq", tuple(enumerate(server.dlq, -len(server.dlq))), 0, frozenset()),
    ):
        leases = dict.fromkeys(pending, ("somebody", 0, 1))
        small.keys[P + name] = Stream(dict(entries), last, set(), leases)
    for key, value in server.keys:
        if key == "delayed":
            small.keys[P + key] = {name: 0.0 for name, _ in value}
        elif isinstance(value, str):
            small.keys[P + key] = value
        else:
            pairs = key.startswith(("res", "src", "out", "dead"))
            small.keys[P + key] = dict(value) if pairs else set(value)
    return small


# Where the id of the entry stands that a command lets go of.
ENTRY_AT = {"commit": 1, "fail": 1, "give_back": 2, "withdraw": 1, "finish": 1, "discard": 3}

Step = tuple[str, World]  # its name, and where it leads

# Where the search may begin: nowhere, or after the beginnings of these steps.
STARTS = {
    "": (),
    "stale": ("enqueue", "read", "all keys vanish"),
    "late": ("enqueue", "read", "commit 1 j spec 0 good 2 (torn after 1, the", "the stream"),
    "garbage": ("an entry is garbage", "read"),
    # Tile 0 is dead and finished, tile 1 is nowhere: a torn script, and the stream is gone.
    "both": (
        *("enqueue", "read", "fail", "promote", "read", "worker dies", "read tasks 2"),
        *("reclaim tasks 2", "fail 2", "commit 2 j spec 0 good 2 (torn after 1, the"),
        "the stream",
    ),
    # Tile 1 is finished, tile 0 is dead, and nobody has announced it.
    "unheard": (
        *("enqueue", "read", "fail", "read", "commit 1 j spec 1", "promote", "read"),
        *("fail 1 j spec 0 2 2 0 error 2 (torn after 2, the", "the stream"),
    ),
    "corrupt": ("enqueue", "read", "commit of a corrupt", "read", "commit 1 j spec 1"),
}


class Model:
    """All steps of all actors under one text of the protocol."""

    def __init__(
        self,
        text: str,
        kinds: tuple[str, str],
        faults: int,
        start: str = "",
        before_7: bool = False,
    ) -> None:
        self.script = Script(text)
        self.start = STARTS[start]
        self.before = sum("corrupt" in name or "vanish" in name for name in self.start)
        self.kinds = dict(zip(TILES, kinds, strict=True))
        self.faults = faults
        self.before_7 = before_7
        self.calls: dict[Any, tuple[Any, list[Server]]] = {}
        self.came: dict[World, tuple[World | None, str]] = {}  # how each state was reached
        self.settled: set[World] = set()
        self.chores: set[Any] = set()  # streams for which beat and reap were checked

    # -- calls

    def call(self, world: World, *args: Any, idle: tuple[str, int] | None = None) -> Any:
        """(answer, the server before the call and after each of its writes)."""
        hands = [hand.entry for hand in (*world.workers, world.assembler) if hand]
        server = world.server
        used = {entry for entry, _ in (*server.tasks, *server.ready)}
        next_id = max(used | server.tasks_pending | server.ready_pending | {0, *hands}) + 1
        known = (server, next_id, args, idle)
        if known not in self.calls:
            small = thaw(server, next_id, self.before_7)
            if idle:
                owner, _, deliveries = small.keys[P + idle[0]].pending[idle[1]]
                small.keys[P + idle[0]].pending[idle[1]] = (owner, 10, deliveries)
            stages = [server]
            small.after_write = lambda: stages.append(freeze(small))
            answer = self.script.run(small, P, *args)
            self.calls[known] = answer, stages
        return self.calls[known]

    def scripted(self, world: World, then: World, *args: Any) -> Iterator[Step]:
        """A call that succeeds, and the ways in which it is torn or its answer is lost."""
        answer, stages = self.call(world, *args)
        name = " ".join(map(str, args))
        self.check_call(world, stages[-1], args, answer)
        yield name, replace(then, server=stages[-1])
        if world.faults and len(stages) > 1:
            less = world.faults - 1
            alone = replace(then, assembler=None) if then.assembler else then
            for n, stage in enumerate(stages[1:], 1):
                yield f"{name} (torn after {n})", replace(world, server=stage, faults=less)
                died = replace(alone, server=stage, faults=less)
                yield f"{name} (torn after {n}, the caller dies)", died
            yield f"{name} (acknowledged, then lost)", replace(then, faults=less, lost=True)

    # -- actors

    def steps(self, world: World) -> Iterator[Step]:
        """All that may happen next."""
        yield from self.coordinator(world)
        for n in (0, 1):
            yield from self.worker(world, n)
        yield from self.assembler(world)
        if world.faults:
            less = replace(world, faults=world.faults - 1)
            yield from self.accidents(less)

    def coordinator(self, world: World) -> Iterator[Step]:
        if world.server.names("delayed"):
            yield from self.scripted(world, world, "promote", 10)
        if "state:j" not in world.server.values:
            yield from self.enqueue(world)
            for first, _ in enumerate(TILES):
                what = (JOB, SPEC, len(TILES), first, first + 1)  # the last call asks for too many
                yield from self.scripted(world, world, "audit", *what)

    def enqueue(self, world: World) -> Iterator[Step]:
        """A coordinator may start again at any time: it puts pixels, then tiles."""
        world = self.keeping(world, "src:j")
        yield from self.scripted(world, world, "enqueue", JOB, SPEC, *TILES)

    def keeping(self, world: World, key: str) -> World:
        """Pixels are put into Redis, one by one and outside of the scripts."""
        keys = {**dict(world.server.keys), key: (("0", "pixels"),)}
        return replace(world, server=replace(world.server, keys=tuple(sorted(keys.items()))))

    def worker(self, world: World, n: int) -> Iterator[Step]:
        hand = world.workers[n]
        if hand is None:
            yield from self.take(world, "tasks", n)
            return
        if world.faults:
            yield "worker dies", with_worker(replace(world, faults=world.faults - 1), n, None)
        then = with_worker(world, n, None)
        if hand.step == "discard":
            args = ("discard", "tasks", "workers", hand.entry, "unreadable")
            yield from self.scripted(world, then, *args)
            return
        tile, attempt = hand.data
        fails_at, succeeds = KINDS[self.kinds[tile]]
        if succeeds:
            args = ("commit", hand.entry, JOB, SPEC, tile)
            before, after = self.keeping(world, "out:j"), self.keeping(then, "out:j")
            yield from self.scripted(before, after, *args, GOOD, len(TILES))
            if world.faults:
                less = replace(then, faults=world.faults - 1)
                _, stages = self.call(before, *args, BAD, len(TILES))
                yield f"commit of a corrupt result of {tile}", replace(less, server=stages[-1])
        if attempt in fails_at:
            args = ("fail", hand.entry, JOB, SPEC, tile, attempt, MAX_ATTEMPTS, 0, "error")
            yield from self.scripted(world, then, *args, len(TILES))
        other = world.workers[1 - n]
        for owner in ("somebody", *["another"] * bool(other and other.entry == hand.entry)):
            args = ("give_back", owner, hand.entry, SPEC, tile, attempt)
            yield from self.scripted(world, then, *args)

    def take(self, world: World, stream: str, n: int) -> Iterator[Step]:
        """Read a new entry, or take over one that seems to be nobody's."""
        entries, last, pending = stream_of(world.server, stream)
        new = [entry for entry, _ in entries if entry > last]
        if new:
            fields = dict(entries)[new[0]]
            read = {f"{stream}_last": new[0], f"{stream}_pending": pending | {new[0]}}
            then = self.holding(world, stream, n, new[0], fields)
            server = replace(world.server, **read)
            yield f"read {stream} {new[0]}", replace(then, server=server)
        hands = world.workers if stream == "tasks" else (world.assembler,)
        held = {hand.entry for hand in hands if hand}
        for entry in sorted(pending):
            if entry not in held or world.faults:
                left = world.faults - (entry in held)
                yield from self.reclaim(replace(world, faults=left), stream, n, entry)

    def reclaim(self, world: World, stream: str, n: int, entry: int) -> Iterator[Step]:
        args = ("reclaim", stream, GROUPS[stream], f"w{n}", 5, 1)
        found, stages = self.call(world, *args, idle=(stream, entry))
        self.check_reclaim(world, stages[-1], stream, entry, found)
        then = replace(world, server=stages[-1])
        for taken, _, _, fields in found:
            then = self.holding(then, stream, n, int(taken), tuple(fields))
        yield f"reclaim {stream} {entry}", then

    def holding(self, world: World, stream: str, n: int, entry: int, fields: Fields) -> World:
        if stream == "ready":
            return replace(world, assembler=Held(entry, "look"))
        if fields[1] == GARBAGE:
            return with_worker(world, n, Held(entry, "discard"))
        return with_worker(world, n, Held(entry, "work", (fields[3], int(fields[5]))))

    def assembler(self, world: World) -> Iterator[Step]:
        """As StreamAssembler._finish: every step of it may be the last, or come much later."""
        hand, server = world.assembler, world.server
        if hand is None:
            yield from self.take(world, "ready", 0)
            return
        if world.faults:
            less = world.faults - 1
            yield "assembler dies", replace(world, assembler=None, faults=less)
        done = replace(world, assembler=None)
        if hand.step == "look":
            yield "look", replace(world, assembler=self.look(server, hand.entry))
        elif hand.step == "reject":
            (tile, result), *rest = hand.data
            step = "reject" if rest else "withdraw"
            then = replace(world, assembler=Held(hand.entry, step, tuple(rest)))
            yield from self.scripted(world, then, "reject", JOB, SPEC, tile, result)
        elif hand.step == "dead":
            missing = set(TILES) - set(hand.data)
            step = "withdraw" if missing - server.names("dead:j") else "finish"
            data = ("partial" if missing else "saved",) if step == "finish" else ()
            yield "dead?", replace(world, assembler=Held(hand.entry, step, data))
        elif hand.step == "withdraw":
            yield from self.scripted(world, done, "withdraw", hand.entry)
        else:
            yield from self.scripted(world, done, "finish", hand.entry, JOB, *hand.data)

    def look(self, server: Server, entry: int) -> Held:
        if "state:j" in server.values:
            return Held(entry, "finish", (server.values["state:j"],))
        results = dict(server.values.get("res:j", ()))
        bad = tuple((tile, result) for tile, result in results.items() if result != GOOD)
        return Held(entry, "reject", bad) if bad else Held(entry, "dead", tuple(results))

    def accidents(self, world: World) -> Iterator[Step]:
        blind = world.assembler is not None and world.assembler.step in ("dead", "finish")
        yield "all keys vanish", replace(world, server=Server(), lost=True, blind=blind)
        empty = replace(world.server, tasks=(), tasks_last=0, tasks_pending=frozenset())
        yield "the stream vanishes", replace(world, server=empty, lost=True)
        if not any(fields[1] == GARBAGE for _, fields in world.server.tasks):
            small = thaw(world.server, 1000, self.before_7)
            small.call("XADD", P + "tasks", "*", "spec", GARBAGE)
            yield "an entry is garbage", replace(world, server=freeze(small))

    # -- what must hold

    def check_state(self, world: World) -> None:
        server, used = world.server, self.faults - world.faults + self.before
        enqueued, done = server.names("enq:j"), server.names("done:j")
        over, dead = server.names("res:j"), server.names("dead:j")
        ended = "state:j" in server.values
        flying = [tile for tile, _ in server.in_flight]
        told = {fields[3] for fields in server.dlq if fields[0] == "spec"}
        delivered = {entry for entry, _ in server.tasks if entry <= server.tasks_last}
        require(enqueued <= {*flying, *over, *dead} or world.lost, "a tile is nowhere")
        require(done <= over, "the checkpoint has a tile without a result")
        require(dead <= told, "a dead tile has no dead letter")
        innocent = {tile for tile, kind in self.kinds.items() if kind in ("good", "flaky")}
        require(not (dead | told) & innocent, "an innocent tile is a dead letter")
        require(delivered <= server.tasks_pending, "an entry will never be delivered again")
        announced = {e for e, _ in server.ready if e <= server.ready_last}
        require(announced <= server.ready_pending, "an announcement is never delivered again")
        require(not enqueued or ended or "src:j" in server.values, "pixels went too early")
        kept = ended or not over or world.lost or "out:j" in server.values
        require(kept, "the pixels of results went too early")
        require(max(map(flying.count, TILES)) <= 1 + used, "a tile is in flight too often")
        require(len(server.ready) <= 2 + used, "a job is announced too often")
        held = flying or server.tasks_pending  # by a worker who will call again
        to_be_told = ended or server.ready or held or world.lost or not server.complete
        require(bool(to_be_told), "a job is complete and nobody will hear of it")

    def check_call(self, world: World, after: Server, args: Any, answer: Any) -> None:
        """A whole call does all that it is for."""
        before, command = world.server, args[0]
        results, later = (dict(s.values.get("res:j", ())) for s in (before, after))
        entry = ENTRY_AT.get(command)
        if entry and args[1] != "another":
            stream = "ready" if command in ("withdraw", "finish") else "tasks"
            entries, _, pending = stream_of(after, stream)
            let_go = args[entry] not in {*dict(entries), *pending}
            require(let_go, "an entry is not let go of")
        if len(after.ready) > len(before.ready):
            require(after.complete, "a job is announced that is not complete")
            require("state:j" not in before.values, "an image that has ended is announced")
        flying = [tile for tile, _ in after.in_flight]
        if command == "enqueue":
            asked = set(args[3:])
            new = asked - before.names("enq:j")
            require(answer == len(new) and asked <= after.names("enq:j"), "not enqueued")
            many = [flying.count(tile) for tile in new]
            require(all(count >= 1 for count in many), "a tile was not enqueued")
        elif command == "commit":
            tile = args[4]
            require(answer == (tile not in results), "a second result counts as the first")
            require(later == {tile: args[5], **results}, "a result was replaced")
            require(tile in after.names("done:j"), "the checkpoint misses a tile")
            require(tile not in after.names("dead:j"), "a finished tile is dead")
            require(not after.complete or self.known(after), "a complete job is not announced")
        elif command == "fail":
            tile, attempt = args[4:6]
            over = tile in results or "state:j" in before.values
            verdict = "done" if over else "retry" if attempt < MAX_ATTEMPTS else "dead"
            require(answer == verdict, f"the verdict is {answer}, not {verdict}")
            retry = verdict != "retry" or (tile, attempt + 1) in after.in_flight
            require(retry, "a failed tile is not retried")
            require(verdict != "dead" or tile in after.names("dead:j"), "a tile did not die")
            lags = tile in results and tile not in after.names("done:j")
            require(not lags, "the checkpoint lags")
            same = all(getattr(before, n) == getattr(after, n) for n in ("keys", "ready", "dlq"))
            require(same or tile in results or not over, "a tile of an ended image is tried again")
            again = tile in before.names("dead:j") and before.dlq != after.dlq
            require(not again, "a tile has two dead letters")
            told = verdict == "retry" or not after.complete or self.known(after)
            require(told, "a complete job is not announced")
        elif command == "give_back" and args[1] != "another":
            there = before.tasks_pending | {entry for entry, _ in before.tasks}
            back = args[2] not in there or (args[4], args[5]) in after.in_flight
            require(back, "a tile that was given back is not queued")
        elif command == "give_back":
            require(before == after, "a tile that another has is given back")
        elif command == "promote":
            require(answer == len(before.names("delayed")), "a retry that is due was left")
            require(not after.names("delayed"), "a retry stays in the delayed set")
            require(sorted(flying) == sorted(t for t, _ in before.in_flight), "a retry vanished")
        elif command == "audit":
            self.check_audit(before, args[3:], [*map(int, answer)])
        elif command == "reject" and "state:j" in before.values:
            require(before == after, "a tile of an image that has ended is done again")
        elif command == "reject" and results.get(args[3]) == args[4]:
            require(args[3] not in later, "a corrupt result is kept")
            require(args[3] in flying, "the tile of a corrupt result is not done again")
        elif command == "finish":
            require(after.values.get("state:j") == args[3], "the end of an image is not told")
            require(not {"src:j", "out:j"} & set(after.values), "pixels are left")
        elif command == "discard":
            require(("entry", str(args[3])) in {f[:2] for f in after.dlq}, "garbage is not told")

    def check_audit(self, server: Server, args: Any, answer: list[int]) -> None:
        total, first, count = map(int, args)
        over = server.names("res:j") | server.names("dead:j")
        until = min(total, first + count)
        if server.tasks or server.names("delayed") or over == set(TILES):
            first = until = total  # nothing is looked at
        missing = [n for n in range(first, until) if TILES[n] not in over]
        require(answer == [until, *missing], f"an audit answers {answer}, not {[until, *missing]}")

    def known(self, server: Server) -> bool:
        return "state:j" in server.values or bool(server.ready)

    def check_reclaim(
        self, world: World, after: Server, stream: str, entry: int, found: list[Any]
    ) -> None:
        there = entry in dict(stream_of(world.server, stream)[0])
        require(len(found) == there, "an overdue entry was not taken over")
        kept = entry in stream_of(after, stream)[2]
        require(kept == there, "the lease of an entry that is gone stays")
        require(all(item[2] == 2 for item in found), "a delivery is not counted")

    def check_chores(self, server: Server) -> None:
        """Beats renew the leases of their consumer and no others; reaping takes nobody's lease."""
        if (server.tasks, server.tasks_pending) in self.chores:
            return
        self.chores.add((server.tasks, server.tasks_pending))
        small = thaw(server, 1000, self.before_7)
        stream = small.keys[P + "tasks"]
        there = sorted(stream.pending.keys() & stream.entries.keys())
        names = {entry: f"w{n % 2}" for n, entry in enumerate(there)}
        stream.pending = {entry: (name, 10, 1) for entry, name in names.items()}
        stream.consumers = {"w0", "w1", "gone", "beating"}
        for name in ("w0", "beating"):
            entries = (*names, 999)  # one that is no longer there
            self.script.run(small, P, "beat", "tasks", "workers", name, 1000, *entries)
        idle = {entry: lease[1] for entry, lease in stream.pending.items()}
        require(idle == {e: 10 * (n != "w0") for e, n in names.items()}, "a beat went wrong")
        counts = {lease[2] for lease in stream.pending.values()}
        require(counts <= {1}, "a beat counts as a delivery")
        require("p:hb:beating" in small.keys, "a beat is not noted")
        self.script.run(small, P, "reap", "tasks", "workers")
        require(set(stream.pending) == set(names), "reaping took a lease")
        require(stream.consumers == {"w0", "beating", *names.values()}, "reaping went wrong")
        self.script.run(small, P, "reap", "nothing", "workers")  # a stream that is not there

    def check_late_rejects(self, world: World) -> None:
        """An assembler that comes late rejects what is gone, or what another has saved."""
        server = world.server
        ended, results = "state:j" in server.values, server.values.get("res:j", ())
        if (ended, results) in self.chores:
            return
        self.chores.add((ended, results))
        for tile, result in results:
            stale = result if ended else "stale"
            _, stages = self.call(world, "reject", JOB, SPEC, tile, stale)
            require(stages[-1] == server, "a late assembler rejects a result")

    def check_end(self, world: World) -> None:
        server = world.server
        over, dead = server.names("res:j"), server.names("dead:j")
        require(over | dead == set(TILES) or world.blind, "a tile is lost")
        require(not over & dead, "a tile is finished and dead")
        require(server.names("done:j") == over, "the checkpoint is not what was done")
        state = server.values.get("state:j")
        require(state in ("partial", "saved"), "no end")
        require(state == "partial" or not dead or world.lost, "wrong state")
        for tile, kind in self.kinds.items():
            require(kind != "poison" or tile in dead or world.blind, "poison did not die")
        empty = not (server.tasks or server.ready or server.names("delayed"))
        require(empty and not server.tasks_pending | server.ready_pending, "something is left")
        garbage = "garbage" not in " ".join(self.start) or world.lost
        require(garbage or "entry" in {f[0] for f in server.dlq}, "garbage is lost")
        require("src:j" not in server.values, "pixels are left")
        # A second result that comes after the end leaves pixels behind, until the run is cleared.

    # -- the search

    def explore(self) -> int:
        """How many states there are; Violation with its steps if one is wrong."""
        world = World(Server(), faults=9).normal()
        self.came[world] = (None, "")
        try:
            for beginning in self.start:
                before = world
                steps = [s for s in self.steps(world) if s[0].startswith(beginning)]
                require(bool(steps), "the start cannot be reached")
                name, world = steps[0]
                world = replace(world.normal(), faults=9)
                self.came[world] = (before, name)
            before, world = world, replace(world, faults=self.faults)
            self.came[world] = (before, "")
            waiting = deque([world])
            while waiting:
                world = waiting.popleft()
                self.check_state(world)
                self.check_chores(world.server)
                self.check_late_rejects(world)
                self.settle(world)
                for name, following in self.steps(world):
                    following = following.normal()
                    if following not in self.came:
                        self.came[following] = (world, name)
                        waiting.append(following)
        except Violation as violation:
            raise Violation(f"{violation}\n{self.trace(world)}") from None
        return len(self.came)

    def trace(self, world: World) -> str:
        names: list[str] = []
        at: World | None = world
        while at is not None:
            at, name = self.came.get(at, (None, ""))
            names.append(name)
        return "\n".join([*reversed(names), str(world)])

    def settle(self, world: World) -> None:
        """Without further faults all comes to an end."""
        path: list[str] = []
        seen: set[World] = set()
        world = replace(world, faults=0).normal()
        while world not in self.settled:
            if world in seen or len(path) > 200:
                raise Violation("no end\n" + "\n".join(path[-30:]))
            seen.add(world)
            found = self.next_good(world)
            if found is None:
                self.check_end(world)
                break
            path.append(found[0])
            world = found[1]
        self.settled |= seen

    def next_good(self, world: World) -> Step | None:
        """What a fair scheduler without faults lets happen next."""
        for steps in (
            (s for n in (0, 1) if world.workers[n] for s in self.worker(world, n)),
            self.assembler(world),
            self.worker(world, 0),
            self.coordinator(world),
        ):
            for name, following in steps:
                following = following.normal()
                if following != world:
                    return name, following
        return None


def require(ok: bool, problem: str) -> None:
    if not ok:
        raise Violation(problem)


def stream_of(server: Server, stream: str) -> tuple[Entries, int, frozenset[int]]:
    if stream == "tasks":
        return server.tasks, server.tasks_last, server.tasks_pending
    return server.ready, server.ready_last, server.ready_pending


def with_worker(world: World, n: int, hand: Held | None) -> World:
    one, two = world.workers
    return replace(world, workers=(hand, two) if n == 0 else (one, hand))
