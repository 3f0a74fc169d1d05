"""The queue protocol, proved: searched exhaustively in a model, and at random on a real server.

The model (protocol_model.py) runs protocol.lua itself on a server of a page of Python; the machine
below does every call on a real server and on that one, and compares answer and state: so the model
cannot drift from what is shipped. Both check the same invariants. protocol_mutants.py leaves every
write of the protocol out in turn: the proofs must notice.
"""

import copy
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from lupa.lua51 import LuaError
from protocol_model import (
    BAD,
    ENTRY_AT,
    GOOD,
    GROUPS,
    TILES,
    Held,
    Model,
    Server,
    Violation,
    World,
    freeze,
)
from protocol_mutants import EQUIVALENT, SELDOM, Name, branches, is_seldom, mutants
from small_redis import WRITES, Script, SmallRedis, Stream, torn

from studyguide.machinery.link import Link
from studyguide.machinery.redis_server import RedisServer
from studyguide.settings import Blur
from studyguide.streams import Announcement, Lease, StreamQueue
from studyguide.work import ImageJob

PROTOCOL = files("studyguide").joinpath("protocol.lua").read_text()
# What the model checks: kinds of the two tiles, faults, where it starts, an old server's XCLAIM.
CHECKS: list[tuple[Any, ...]] = [
    (("good", "good"), 1, "corrupt"),
    (("erratic", "good"), 1, "both"),
    (("erratic", "good"), 1, "unheard"),
    (("good", "good"), 1, "garbage"),
    (("good", "good"), 1, "late"),
    (("good", "good"), 1, "stale"),
    (("erratic", "poison"), 1, "", True),
    (("erratic", "flaky"), 1),
]


LONGEST = [pytest.param(check, marks=pytest.mark.slow) for check in CHECKS[-2:]]


@pytest.mark.parametrize("check", [*CHECKS[:-2], *LONGEST], ids=str)
def test_in_every_order_of_steps_with_a_fault_nothing_is_lost(check: tuple[Any, ...]) -> None:
    assert Model(PROTOCOL, *check).explore() > 100


class Careless(Model):
    """Its assembler saves whatever is there."""

    def look(self, server: Server, entry: int) -> Held:
        return Held(entry, "finish", ("saved",))


@pytest.mark.parametrize("start", ["late", "stale"])
def test_the_model_notices_an_image_that_is_saved_without_its_tiles(start: str) -> None:
    """All keys vanish between an announcement and the look; tiles that were lost excuse nothing."""
    with pytest.raises(Violation, match="a tile is lost"):
        Careless(PROTOCOL, ("good", "good"), 1, start).explore()


MUTANTS = dict(mutants(PROTOCOL))


def model_sees(text: str) -> str:
    """What the model has against a protocol; empty if nothing."""
    for check in CHECKS:
        try:
            Model(text, *check).explore()
        except (Violation, LuaError, KeyError) as problem:  # or the script itself fails
            return str(problem).partition("\n")[0]
    return ""


@pytest.mark.verify
@pytest.mark.parametrize("name", sorted(MUTANTS.keys() - EQUIVALENT), ids=" ".join)
def test_the_model_notices_each_write_that_is_left_out_or_swapped(name: Name) -> None:
    assert model_sees(MUTANTS[name])


BRANCHES = dict(branches(PROTOCOL))


@pytest.mark.verify
@pytest.mark.parametrize("name", sorted(BRANCHES), ids=" ".join)
def test_the_model_notices_each_branch_that_is_taken_wrongly(name: Name) -> None:
    problem = model_sees(BRANCHES[name])
    assert problem
    assert "error loading" not in problem


def test_every_write_of_the_protocol_has_a_mutant() -> None:
    assert set(MUTANTS) >= set(EQUIVALENT)
    left_out = [line for what, _, line in MUTANTS if what == "left out" and "redis.call" in line]
    writes = re.findall(rf"redis\.call\('({'|'.join(WRITES)})'", PROTOCOL)
    assert len(left_out) == len(writes) > 20


# --- the same on a real server -------------------------------------------------------------------

P = "{sg}:"
JOB = ImageJob.of("two.png", np.zeros((16, 32), np.uint8), 16, Blur.of(5))
MAX_ATTEMPTS = 2
MAX_FAULTS = 5  # of an example, to leave time for work in between
NTH = st.integers(0, 3)  # which of those that can
# Writes after which a script stops: mostly it does not.
TEAR = st.sampled_from([None, None, None, 0, 1, 2, 3, 4])
LONG_S = 1000.0  # no lease is idle for so long by itself
WORKERS, ASSEMBLERS = ("w0", "w1", "w2"), ("a0", "a1")


class Torn(Exception):
    """The script stopped after some of its writes; nobody got an answer."""


class Twin(StreamQueue):
    """A queue on a real server that does every call on the small one too, and compares."""

    def __init__(self, link: Link, text: str) -> None:
        super().__init__(link, P)
        self.text = text
        self.small = SmallRedis()
        self.ids: dict[tuple[str, str], str] = {}  # stream, the real server's id -> the small one's
        self.tear: int | None = None  # writes after which the next script stops
        self.watch: Callable[[str, tuple[Any, ...], Any], None] = lambda *_: None

    def _call(self, command: str, *args: Any) -> Any:
        text = self.text if self.tear is None else torn(self.text, self.tear)
        self.tear = None
        ready = command in ("withdraw", "finish")
        stream = args[0] if args[0] in GROUPS else "ready" if ready else "tasks"
        here = [self._plain(arg, stream) for arg in args]
        before = copy.deepcopy(self.small)
        try:
            answer = self.link(lambda client: client.eval(text, 1, P, command, *args))
        except Exception as error:
            if "torn" not in str(error):
                raise
            with pytest.raises(Exception, match="torn"):
                Script(text).run(self.small, P, command, *here)
            self.compare()
            raise Torn from None
        ours = Script(text).run(self.small, P, command, *here)
        self.compare()
        plain = self._plain(answer, stream)
        assert plain == _plain(ours), f"{command} answers otherwise"
        self.watch(command, tuple(here), (before, plain))
        return answer

    def _read(self, stream: str, consumer: str, count: int) -> Any:
        found = list(super()._read(stream, consumer, count))
        ours = self.small.xreadgroup(P + stream, consumer)
        self.compare()
        assert [self.ids[stream, entry] for entry, *_ in found] == ([str(ours[0])] if ours else [])
        return iter(found)

    def _plain(self, value: Any, stream: str = "tasks") -> Any:
        """An argument or answer as text, in the small server's ids."""
        if isinstance(value, list):
            return [self._plain(item, stream) for item in value]
        text = _text(value)
        return self.ids.get((stream, text), text)

    def compare(self) -> None:
        """Both servers hold the same; entries that are new are matched in their order."""
        for stream in (*GROUPS, "dlq"):
            key = P + stream
            theirs = self.link(lambda client, key=key: client.xrange(key))
            ours = sorted(self.small.get(key, Stream()).entries.items())
            for (entry, _), (number, _) in zip(theirs, ours, strict=True):
                self.ids[stream, _text(entry)] = str(number)
            plain = [list(map(self._plain, sum(fields.items(), ()))) for _, fields in theirs]
            assert plain == [list(fields) for _, fields in ours]
        for stream, group in GROUPS.items():
            key, least = P + stream, int(LONG_S * 1000)
            pending = self.small.get(key, Stream()).pending
            leases = self.link(
                lambda client, key=key, group=group: client.xpending_range(key, group, "-", "+", 99)
            )
            plain = {
                self.ids[stream, _text(lease["message_id"])]: (
                    _text(lease["consumer"]),
                    lease["time_since_delivered"] >= least,
                    lease["times_delivered"],
                )
                for lease in leases
            }
            assert plain == {
                str(entry): (consumer, idle >= least, deliveries)
                for entry, (consumer, idle, deliveries) in pending.items()
            }
        for key, value in self.values().items():
            ours = self.small.keys.get(P + key)
            assert value == (set(ours) if ours and key == "delayed" else ours), key

    def values(self) -> dict[str, Any]:
        """What the other keys hold."""
        job = JOB.key

        def ask(client: Any) -> Any:
            pipe = client.pipeline(transaction=False)
            for name in ("res", "dead"):
                pipe.hgetall(f"{P}{name}:{job}")
            for name in ("enq", "done"):
                pipe.smembers(f"{P}{name}:{job}")
            pipe.zrange(f"{P}delayed", 0, -1)
            pipe.get(f"{P}state:{job}")
            return pipe.execute()

        res, dead, enq, done, delayed, state = self.link(ask)
        return {
            f"res:{job}": {_text(k): _text(v) for k, v in res.items()} or None,
            f"dead:{job}": {_text(k): _text(v) for k, v in dead.items()} or None,
            f"enq:{job}": {_text(item) for item in enq} or None,
            f"done:{job}": {_text(item) for item in done} or None,
            "delayed": {_text(item) for item in delayed} or None,
            f"state:{job}": None if state is None else _text(state),
        }

    def both(self, name: str, *args: Any) -> None:
        """A command of this test, outside the scripts."""
        self.link(lambda client: client.execute_command(name, *args))
        self.small.call(name, *args)

    def hasten(self) -> None:
        """Let all retries come due."""
        for member in list(self.small.keys.get(f"{P}delayed", {})):
            self.both("ZADD", f"{P}delayed", 0, member)

    def expire(self, stream: str, entry: str) -> None:
        """Make a lease as old as if its owner had been silent for long."""
        key, ms = P + stream, int(LONG_S * 2000)
        ours, number = self.small.keys[key], int(self.ids[stream, entry])
        owner, _, deliveries = ours.pending[number]
        self.link(
            lambda client: client.xclaim(
                key, GROUPS[stream], owner, 0, [entry], idle=ms, justid=True
            )
        )
        if number in ours.entries:
            ours.pending[number] = (owner, ms, deliveries)
        else:  # the server forgets the lease of an entry that is gone
            del ours.pending[number]

    def leases(self, stream: str) -> list[str]:
        """Real ids of all pending entries."""
        back = {ours: entry for (of, entry), ours in self.ids.items() if of == stream}
        return [back[str(entry)] for entry in sorted(self.small.get(P + stream, Stream()).pending)]

    def flush(self) -> None:
        """All keys vanish."""
        time.sleep(0.002)  # ids are made of milliseconds: none is given out again
        self.link(lambda client: client.flushall())
        self.link(self._make_groups)
        self.small.keys.clear()

    def forget(self, stream: str) -> None:
        """One stream vanishes with its group."""
        time.sleep(0.002)
        self.link(lambda client: client.delete(P + stream))
        self.link(self._make_groups)
        self.small.keys.pop(P + stream, None)

    def save(self) -> Any:
        """What a server that dies now would come back with."""
        dumped = self.link(lambda c: {key: c.dump(key) for key in c.keys(P + "*")})
        return dumped, copy.deepcopy(self.small.keys)

    def load(self, saved: Any) -> None:
        """The server comes back with what it had then."""
        dumped, keys = saved
        time.sleep(0.002)
        self.link(lambda client: client.flushall())
        for key, body in dumped.items():
            self.link(lambda client, key=key, body=body: client.restore(key, 0, body))
        self.small.keys = copy.deepcopy(keys)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value)


@cache
def model_of(text: str, kinds: tuple[str, str]) -> Model:
    """One for all examples: it remembers the states from which all came to an end."""
    return Model(text, kinds, faults=0)


class Protocol(RuleBasedStateMachine):
    """Three workers, two assemblers and a coordinator, and all that may happen to them."""

    server: RedisServer
    text = PROTOCOL

    def __init__(self) -> None:
        super().__init__()
        self.link = Link(self.server.url, patience_s=10)
        self.link(lambda client: client.flushall())
        self.queue = Twin(self.link, self.text)
        self.queue.watch = self.check_call
        self.held: dict[str, Lease] = {}
        self.announced: dict[str, Announcement] = {}
        self.saved: list[Any] = []
        self.lost = False
        self.faults = self.step = 0

    @initialize(kinds=st.sampled_from([("flaky", "poison"), ("erratic", "flaky")]), tear=TEAR)
    def begin(self, kinds: tuple[str, str], tear: int | None) -> None:
        self.model = model_of(self.text, kinds)
        self.kinds = self.model.kinds
        self.put_image()
        self.attempt(lambda: self.queue.enqueue(JOB, JOB.tiles), tear)

    def put_image(self) -> None:
        self.queue.both("HSET", f"{P}src:{JOB.key}", 0, "pixels")

    def teardown(self) -> None:
        try:
            if hasattr(self, "model"):
                self.settle()
        finally:
            self.link(redis.Redis.close)

    # -- what must hold

    def world(self, small: SmallRedis) -> World:
        """The small server as the model names things."""
        renamed = SmallRedis()
        for key, value in small.keys.items():
            renamed.keys[key.replace(P, "p:", 1).replace(JOB.key, "j")] = value
        return World(freeze(renamed), lost=self.lost)

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "model"):
            world = self.world(self.queue.small)
            self.model.before = self.faults
            self.model.check_state(world)
            self.model.settle(world)  # if all actors died now, others would come to an end
            self.step += 1

    def check_call(self, command: str, args: tuple[Any, ...], what: Any) -> None:
        """The model's view of a call that succeeded."""
        small, answer = what
        if command == "give_back":  # of what another worker took meanwhile nothing is asked
            owner, *_ = small.keys[P + "tasks"].pending.get(int(args[1]), ("", 0, 0))
            args = ("somebody" if owner == args[0] else "another", *args[1:])
        numbers = (ENTRY_AT.get(command), {"fail": 5, "give_back": 5}.get(command))
        typed = [int(arg) if n in numbers else arg for n, arg in enumerate(args, 1)]
        after = self.world(self.queue.small).server
        plain = {"enqueue": int, "commit": int, "promote": int}.get(command, lambda a: a)(answer)
        if command == "promote":
            assume(self.due(small))
        self.model.check_call(self.world(small), after, (command, *typed), plain)

    def due(self, small: SmallRedis) -> bool:
        return not any(small.keys.get(f"{P}delayed", {}).values())

    def attempt(self, action: Callable[[], Any], tear: int | None = None) -> bool:
        """Whether a call succeeded; one that is torn leaves its caller as it was."""
        self.queue.tear = tear if self.faults < MAX_FAULTS else None
        try:
            action()
        except Torn:
            self.faults += 1
            return False
        finally:
            self.queue.tear = None
        return True

    # -- the coordinator

    def ended(self) -> bool:
        return f"{P}state:{JOB.key}" in self.queue.small.keys

    def enqueued(self) -> int:
        return len(self.queue.small.keys.get(f"{P}enq:{JOB.key}", ()))

    @precondition(lambda self: not self.ended() and self.rarely(self.enqueued() < len(TILES)))
    @rule(which=st.sampled_from([(0,), (1,), (0, 1)]), tear=TEAR)
    def enqueue(self, which: tuple[int, ...], tear: int | None) -> None:
        self.put_image()
        self.attempt(lambda: self.queue.enqueue(JOB, [JOB.tiles[n] for n in which]), tear)

    @precondition(lambda self: f"{P}delayed" in self.queue.small.keys)
    @rule(tear=TEAR)
    def promote(self, tear: int | None) -> None:
        self.queue.hasten()
        self.attempt(self.queue.promote, tear)

    @precondition(lambda self: not self.ended() and self.rarely(not self.in_flight()))
    @rule(again=st.booleans(), tear=TEAR)
    def audit(self, again: bool, tear: int | None) -> None:
        missing: list[Any] = []
        if self.attempt(lambda: missing.extend(self.queue.audit(JOB)), tear) and missing and again:
            self.put_image()
            self.attempt(lambda: self.queue.enqueue(JOB, missing))

    @rule()
    def reap(self) -> None:
        before = {stream: self.queue.leases(stream) for stream in GROUPS}
        self.queue.reap()
        assert before == {stream: self.queue.leases(stream) for stream in GROUPS}
        for stream in GROUPS:
            found = self.queue.small.get(P + stream, Stream())
            busy = {owner for owner, *_ in found.pending.values()}
            beating = {name for name in WORKERS if f"{P}hb:{name}" in self.queue.small.keys}
            assert found.consumers <= busy | beating, "a consumer that is gone is not forgotten"

    def rarely(self, often: bool) -> bool:
        """True when `often` is, and at each seventh step: what seldom changes a thing."""
        return often or self.step % 7 == 0

    def in_flight(self) -> bool:
        stream = self.queue.small.get(P + "tasks", Stream())
        return bool(stream.entries) or f"{P}delayed" in self.queue.small.keys

    # -- workers

    def fresh(self, stream: str) -> bool:
        """Whether an entry waits to be delivered."""
        found = self.queue.small.get(P + stream, Stream())
        return any(entry > found.last for entry in found.entries)

    def overdue(self, stream: str) -> bool:
        found = self.queue.small.get(P + stream, Stream())
        return any(idle >= LONG_S * 1000 for _, idle, _ in found.pending.values())

    def idle_worker(self, nth: int) -> str:
        free = [worker for worker in WORKERS if worker not in self.held]
        return free[nth % len(free)]

    def busy_worker(self, nth: int) -> str:
        return sorted(self.held)[nth % len(self.held)]

    @precondition(lambda self: len(self.held) < len(WORKERS) and self.fresh("tasks"))
    @rule(nth=NTH)
    def read(self, nth: int) -> None:
        worker = self.idle_worker(nth)
        self.take(worker, lambda: self.queue.read(worker))

    @precondition(lambda self: len(self.held) < len(WORKERS) and self.overdue("tasks"))
    @rule(nth=NTH, tear=TEAR)
    def reclaim(self, nth: int, tear: int | None) -> None:
        worker = self.idle_worker(nth)
        self.take(worker, lambda: self.queue.reclaim(worker, LONG_S), tear)
        for entry, (_, idle, _) in self.queue.small.get(P + "tasks", Stream()).pending.items():
            there = entry in self.queue.small.get(P + "tasks", Stream()).entries
            assert there or idle < LONG_S * 1000 or tear is not None, "a lease of nothing stays"

    def take(self, worker: str, call: Callable[[], list[Lease]], tear: int | None = None) -> None:
        found: list[Lease] = []
        if self.attempt(lambda: found.extend(call()), tear) and found:
            (self.held[worker],) = found

    @precondition(lambda self: self.held)
    @rule(nth=NTH, result=st.sampled_from([GOOD, GOOD, GOOD, BAD]), tear=TEAR)
    def commit(self, nth: int, result: str, tear: int | None = None) -> None:
        worker = self.busy_worker(nth)
        lease = self.held[worker]
        if self.kinds[str(lease.tile.index)] == "poison":
            self.fail(nth, 0, tear)
            return
        self.faults += result == BAD
        self.queue.both("HSET", f"{P}out:{JOB.key}", lease.tile.index, "pixels")
        if self.attempt(lambda: self.queue.commit(lease, result.encode()), tear):
            del self.held[worker]

    @precondition(lambda self: self.held)
    @rule(nth=NTH, delay_s=st.sampled_from([0, 600]), tear=TEAR)
    def fail(self, nth: int, delay_s: float, tear: int | None = None) -> None:
        worker = self.busy_worker(nth)
        lease = self.held[worker]
        if self.kinds[str(lease.tile.index)] == "flaky" and lease.attempt > 1:
            self.commit(nth, GOOD, tear)
        elif self.attempt(lambda: self.queue.fail(lease, "error", delay_s, MAX_ATTEMPTS), tear):
            del self.held[worker]

    @precondition(lambda self: self.held)
    @rule(nth=NTH, tear=TEAR)
    def give_back(self, nth: int, tear: int | None) -> None:
        worker = self.busy_worker(nth)
        if self.attempt(lambda: self.queue.give_back(worker, [self.held[worker]]), tear):
            del self.held[worker]

    @precondition(lambda self: self.held)
    @rule(nth=NTH, late=st.booleans())
    def beat(self, nth: int, late: bool) -> None:
        worker = self.busy_worker(nth)
        entry = self.held[worker].entry
        if late and entry in self.queue.leases("tasks"):
            self.queue.expire("tasks", entry)
        if self.attempt(lambda: self.queue.beat("tasks", worker, 600, [entry])):
            assert P + f"hb:{worker}" in self.queue.small.keys
            pending = self.queue.small.get(P + "tasks", Stream()).pending
            owner, idle, _ = pending.get(int(self.queue.ids["tasks", entry]), ("", 0, 0))
            assert owner != worker or idle == 0

    # -- assemblers

    @precondition(
        lambda self: (
            len(self.announced) < len(ASSEMBLERS) and (self.fresh("ready") or self.overdue("ready"))
        )
    )
    @rule()
    def read_ready(self) -> None:
        name = next(name for name in ASSEMBLERS if name not in self.announced)
        found: list[Announcement] = []
        if self.fresh("ready"):
            found = self.queue.read_ready(name)
        else:
            self.attempt(lambda: found.extend(self.queue.reclaim_ready(name, LONG_S)))
        if found:
            (self.announced[name],) = found

    @precondition(lambda self: self.announced)
    @rule(nth=NTH, tear=TEAR)
    def assemble(self, nth: int, tear: int | None = None) -> None:
        """As StreamAssembler._finish does."""
        name = sorted(self.announced)[nth % len(self.announced)]
        if self.attempt(lambda: self.finish(self.announced[name]), tear):
            del self.announced[name]

    def finish(self, announcement: Announcement) -> None:
        state, results = self.queue.state(JOB), self.queue.results(JOB)
        if not state:
            bad = {n: result for n, result in results.items() if result != GOOD.encode()}
            for index, result in bad.items():
                self.queue.reject(JOB, JOB.tiles[index], result)
            missing = set(range(len(TILES))) - set(results)
            if bad or missing - self.queue.dead(JOB):
                self.queue.withdraw(announcement)
                return
            state = "partial" if missing else "saved"
        self.queue.finish(announcement, state)

    # -- what may happen to them

    @precondition(lambda self: self.held or self.announced)
    @rule(nth=NTH)
    def die(self, nth: int) -> None:
        name = sorted([*self.held, *self.announced])[nth % len([*self.held, *self.announced])]
        self.held.pop(name, None)
        self.announced.pop(name, None)

    @precondition(lambda self: self.faults < MAX_FAULTS and any(map(self.queue.leases, GROUPS)))
    @rule(nth=NTH, other=NTH)
    def expire(self, nth: int, other: int) -> None:
        """A lease lapses, and often another worker takes it over while its owner still lives."""
        leases = [(stream, entry) for stream in GROUPS for entry in self.queue.leases(stream)]
        stream, entry = leases[nth % len(leases)]
        self.queue.expire(stream, entry)
        self.queue.compare()
        self.faults += 1
        if stream == "tasks" and len(self.held) < len(WORKERS) and self.overdue("tasks") and other:
            self.reclaim(other, None)

    @precondition(lambda self: self.faults < MAX_FAULTS and self.is_busy())
    @rule(stream=st.sampled_from(sorted(GROUPS)))
    def lose_a_stream(self, stream: str) -> None:
        """It vanishes, and nothing else does."""
        self.queue.forget(stream)
        self.lost, self.faults = True, self.faults + 1

    @precondition(lambda self: self.faults < MAX_FAULTS)
    @rule()
    def plant_garbage(self) -> None:
        self.queue.both("XADD", f"{P}tasks", "*", "spec", "garbage")
        self.queue.compare()
        self.faults += 1

    @precondition(lambda self: self.faults < MAX_FAULTS and self.is_busy())
    @rule()
    def flush(self) -> None:
        self.queue.flush()
        self.lost, self.faults = True, self.faults + 1

    @precondition(lambda self: len(self.saved) < 2 and self.is_busy())
    @rule()
    def note_what_is_on_disk(self) -> None:
        self.saved.append(self.queue.save())

    @precondition(lambda self: self.saved and self.faults < MAX_FAULTS)
    @rule()
    def come_back_with_what_was_on_disk(self) -> None:
        self.queue.load(self.saved.pop())
        self.lost, self.faults = True, self.faults + 1

    @precondition(lambda self: self.faults < MAX_FAULTS and self.is_busy())
    @rule()
    def restart_the_server(self) -> None:
        self.server.kill()
        self.server.restart()
        self.queue.compare()
        self.faults += 1

    # -- the end

    def settle(self) -> None:
        """Without further faults all comes to an end."""
        self.queue.tear = None
        for _ in range(60):
            if self.queue.state(JOB) and not self.is_busy():
                break
            self.settle_once()
        else:
            raise Violation("no end")
        self.queue.reap()
        self.model.check_end(self.world(self.queue.small))

    def is_busy(self) -> bool:
        streams = [self.queue.small.get(P + name, Stream()) for name in GROUPS]
        delayed = f"{P}delayed" in self.queue.small.keys
        return delayed or any(stream.entries or stream.pending for stream in streams)

    def settle_once(self) -> None:
        while self.held:
            self.commit(0, GOOD)
        while self.announced:
            self.assemble(0)
        for stream in GROUPS:
            for entry in self.queue.leases(stream):
                self.queue.expire(stream, entry)
        if f"{P}delayed" in self.queue.small.keys:
            self.promote(None)
        if not self.ended():
            self.audit(again=True, tear=None)
        if self.fresh("tasks"):
            self.read(0)
        if self.overdue("tasks") and len(self.held) < len(WORKERS):
            self.reclaim(0, None)
        if self.fresh("ready") or self.overdue("ready"):
            self.read_ready()


def machine(server: RedisServer, text: str = PROTOCOL) -> type[Protocol]:
    return type("Protocol", (Protocol,), {"server": server, "text": text})


QUICK = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer.start(tmp_path_factory.mktemp("proof"), persistent=True) as server:
        yield server


@pytest.mark.slow
def test_whatever_happens_on_a_real_server_nothing_is_lost(server: RedisServer) -> None:
    run_state_machine_as_test(machine(server), settings=QUICK)


OFTEN = [name for name in sorted(MUTANTS.keys() - EQUIVALENT) if not is_seldom(name)]


@pytest.mark.verify
@pytest.mark.parametrize("name", OFTEN, ids=" ".join)
def test_the_machine_notices_most_writes_that_are_left_out_or_swapped(
    name: Name, server: RedisServer
) -> None:
    """With one of them it may fail in another way each time, which Hypothesis calls flaky."""
    with pytest.raises((AssertionError, Flaky)):
        run_state_machine_as_test(machine(server, MUTANTS[name]), settings=QUICK)


def test_few_mutants_are_left_to_the_model_alone() -> None:
    assert len(MUTANTS) - len(EQUIVALENT) - len(OFTEN) == len(SELDOM)
