"""Both queues on a real server: every command of the protocol, and what a link lives through."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from support import free_port, noise_job, wait_until

from studyguide import streams
from studyguide.errors import Cancelled, QueueError, UsageError
from studyguide.lists import ListQueue
from studyguide.machinery.link import Link, clear, safe_url
from studyguide.machinery.redis_server import RedisServer
from studyguide.streams import GROUPS, Lease, StreamQueue
from studyguide.work import ImageJob

Connect = Callable[..., Link]

JOB = noise_job()
OTHER = noise_job(kernel_size=7)
P = "{sg}:"
RESULT = b"0" * 64


@pytest.fixture
def queue(shared_server: RedisServer, client: redis.Redis, connect: Connect) -> StreamQueue:
    return StreamQueue(connect(shared_server.url, patience_s=10))


def take(queue: StreamQueue, consumer: str = "w") -> Lease:
    (lease,) = queue.read(consumer)
    return lease


def take_one(queue: StreamQueue, consumer: str = "w", tile: int = 0) -> Lease:
    queue.enqueue(JOB, [JOB.tiles[tile]])
    return take(queue, consumer)


def do_all(queue: StreamQueue, consumer: str = "w") -> None:
    queue.enqueue(JOB, JOB.tiles)
    for _ in JOB.tiles:
        queue.commit(take(queue, consumer), RESULT)


def is_drained(client: redis.Redis, stream: str = "tasks") -> bool:
    """Whether nothing is left in a stream, its pending list and the delayed set."""
    pending = client.xpending(P + stream, GROUPS[stream])["pending"]
    return (client.xlen(P + stream), pending, client.zcard(P + "delayed")) == (0, 0, 0)


def idle_ms(client: redis.Redis, entry: str) -> int:
    (lease,) = client.xpending_range(P + "tasks", "workers", entry, entry, 1)
    return int(lease["time_since_delivered"])


def server_ms(client: redis.Redis) -> float:
    seconds, micros = client.time()
    return seconds * 1000 + micros / 1000


# enqueue, read, commit


def test_a_tile_is_queued_once_however_often_it_is_enqueued(
    queue: StreamQueue, client: redis.Redis
) -> None:
    assert queue.enqueue(JOB, JOB.tiles[:8]) == 8
    assert queue.enqueue(JOB, JOB.tiles) == 4
    assert queue.enqueue(JOB, JOB.tiles) == 0
    assert queue.backlog() == len(JOB.tiles) == client.scard(f"{P}enq:{JOB.key}")


def test_jobs_that_differ_do_not_hide_each_others_tiles(queue: StreamQueue) -> None:
    assert queue.enqueue(JOB, JOB.tiles) == queue.enqueue(OTHER, OTHER.tiles) == 12


def test_each_tile_is_delivered_to_one_consumer(queue: StreamQueue) -> None:
    queue.enqueue(JOB, JOB.tiles[:4])
    leases = [*queue.read("one", count=3), *queue.read("two", count=3)]
    assert [lease.tile for lease in leases] == JOB.tiles[:4]
    assert {(lease.attempt, lease.deliveries, lease.owner) for lease in leases} == {(1, 1, "")}
    assert queue.read("three") == []


def test_the_first_commit_of_a_tile_wins(queue: StreamQueue, client: redis.Redis) -> None:
    lease = take_one(queue)
    assert queue.commit(lease, b"first")
    assert not queue.commit(lease, b"second")
    assert queue.results(JOB) == {0: b"first"}
    assert client.smembers(f"{P}done:{JOB.key}") == {"0"}


def test_a_commit_leaves_neither_stream_entry_nor_pending_lease(
    queue: StreamQueue, client: redis.Redis
) -> None:
    lease = take_one(queue)
    assert not is_drained(client)
    queue.commit(lease, RESULT)
    assert is_drained(client)


def test_a_job_is_announced_when_its_last_tile_is_committed(
    queue: StreamQueue, client: redis.Redis
) -> None:
    queue.enqueue(JOB, JOB.tiles)
    for _ in JOB.tiles[1:]:
        queue.commit(take(queue), RESULT)
    assert queue.read_ready("a") == []
    queue.commit(take(queue), RESULT)
    (announcement,) = queue.read_ready("a")
    assert announcement.job == JOB
    assert queue.state(JOB) == ""
    queue.finish(announcement, "saved")
    assert queue.state(JOB) == "saved"
    assert is_drained(client, "ready")


def test_a_job_that_has_ended_is_not_announced_again(
    queue: StreamQueue, client: redis.Redis
) -> None:
    queue.enqueue(JOB, JOB.tiles)
    last = [take(queue) for _ in JOB.tiles][-1]
    for _ in range(2):
        for tile in JOB.tiles:
            queue.commit(Lease(last.entry, JOB, tile), RESULT)
        for announcement in queue.read_ready("a"):
            queue.finish(announcement, "saved")
    assert is_drained(client, "ready")


# give back


def test_a_tile_that_is_given_back_is_delivered_as_if_for_the_first_time(
    queue: StreamQueue, client: redis.Redis
) -> None:
    queue.give_back("w", [take_one(queue)])
    again = take(queue, "other")
    assert (again.tile, again.attempt, again.trial) == (JOB.tiles[0], 1, 1)
    queue.commit(again, RESULT)
    assert is_drained(client)


def test_a_tile_that_was_lost_to_another_is_not_given_back(queue: StreamQueue) -> None:
    lease = take_one(queue)
    assert queue.reclaim("other", 0)
    queue.give_back("w", [lease])
    assert (queue.backlog(), queue.read("third")) == (1, [])


# fail, promote


def test_a_failed_tile_waits_in_the_delayed_set_until_it_is_due(
    queue: StreamQueue, client: redis.Redis
) -> None:
    lease, before = take_one(queue), server_ms(client)
    assert queue.fail(lease, "no luck", delay_s=600, max_attempts=3) == "retry"
    ((_, due),) = client.zrange(P + "delayed", 0, -1, withscores=True)
    assert before + 599_000 < due < server_ms(client) + 601_000
    assert queue.promote() == 0
    assert (queue.backlog(), queue.read("w")) == (0, [])


def test_a_retry_that_is_due_is_promoted_with_its_attempt_counted(
    queue: StreamQueue, client: redis.Redis
) -> None:
    queue.fail(take_one(queue, tile=5), "no luck", delay_s=0.02, max_attempts=3)
    assert wait_until(queue.promote) == 1
    lease = take(queue)
    assert (lease.job, lease.tile, lease.attempt, lease.trial) == (JOB, JOB.tiles[5], 2, 2)
    queue.commit(lease, RESULT)
    assert is_drained(client)


def test_after_its_last_attempt_a_tile_is_a_dead_letter(
    queue: StreamQueue, client: redis.Redis
) -> None:
    lease = take_one(queue)
    for _ in range(2):
        assert queue.fail(lease, "no luck", 0, max_attempts=3) == "retry"
        assert queue.promote() == 1
        lease = take(queue)
    assert lease.attempt == 3
    assert queue.fail(lease, "no luck at all", 0, max_attempts=3) == "dead"
    ((_, letter),) = client.xrange(P + "dlq")
    assert letter == {"spec": JOB.to_json(), "tile": "0", "error": "no luck at all"}
    assert client.hgetall(f"{P}dead:{JOB.key}") == {"0": "no luck at all"}
    assert is_drained(client)


def test_dead_tiles_complete_a_job_too(queue: StreamQueue) -> None:
    queue.enqueue(JOB, JOB.tiles)
    for _ in JOB.tiles:
        queue.fail(take(queue), "no luck", 0, max_attempts=1)
    assert queue.dead(JOB) == {tile.index for tile in JOB.tiles}
    (announcement,) = queue.read_ready("a")
    assert announcement.job == JOB


def test_an_announcement_is_reclaimed_from_an_assembler_that_is_silent(queue: StreamQueue) -> None:
    do_all(queue)
    (announcement,) = queue.read_ready("a")
    assert queue.reclaim_ready("b", 60) == []
    assert queue.reclaim_ready("b", 0) == [announcement]


def test_a_failure_that_is_told_twice_counts_once(queue: StreamQueue, client: redis.Redis) -> None:
    lease = take_one(queue)
    for _ in range(2):
        queue.fail(lease, "no luck", 600, max_attempts=2)
    assert client.zcard(P + "delayed") == 1
    for _ in range(2):
        queue.fail(lease, "no luck", 0, max_attempts=1)
    assert client.xlen(P + "dlq") == 1


def test_a_tile_that_somebody_else_finished_cannot_fail(
    queue: StreamQueue, client: redis.Redis
) -> None:
    lease = take_one(queue)
    queue.commit(lease, RESULT)
    assert queue.fail(lease, "too late", 0, max_attempts=1) == "done"
    assert (client.xlen(P + "dlq"), client.exists(f"{P}dead:{JOB.key}")) == (0, 0)
    assert is_drained(client)


def test_a_late_result_brings_a_dead_tile_back(queue: StreamQueue, client: redis.Redis) -> None:
    lease = take_one(queue)
    queue.fail(lease, "no luck", 0, max_attempts=1)
    assert queue.commit(lease, RESULT)
    assert not client.exists(f"{P}dead:{JOB.key}")


# beat, reclaim, reap


def test_a_beat_renews_the_leases_of_its_consumer_and_no_others(
    queue: StreamQueue, client: redis.Redis
) -> None:
    queue.enqueue(JOB, JOB.tiles[:2])
    mine, other = take(queue, "mine"), take(queue, "other")
    wait_until(lambda: idle_ms(client, mine.entry) > 200)

    def renewed() -> bool:
        queue.beat("tasks", "mine", 60, [mine.entry, other.entry])
        return idle_ms(client, mine.entry) < 200

    wait_until(renewed)
    assert idle_ms(client, other.entry) > 200
    owners = client.xpending_range(P + "tasks", "workers", "-", "+", 9)
    assert [(lease["consumer"], lease["times_delivered"]) for lease in owners] == [
        ("mine", 1),
        ("other", 1),
    ]


def test_a_heartbeat_expires_unless_it_is_renewed_or_withdrawn(
    queue: StreamQueue, client: redis.Redis
) -> None:
    queue.beat("tasks", "w", 60, [])
    assert 0 < client.pttl(P + "hb:w") <= 60_000
    queue.stop_beating("w")
    assert not client.exists(P + "hb:w")


def test_a_lease_is_reclaimed_only_after_its_time_with_owner_and_deliveries(
    queue: StreamQueue,
) -> None:
    first = take_one(queue, "first", tile=3)
    assert queue.reclaim("second", idle_s=600) == []
    (second,) = wait_until(lambda: queue.reclaim("second", idle_s=0.05))
    assert (second.entry, second.job, second.tile) == (first.entry, JOB, JOB.tiles[3])
    assert (second.owner, second.deliveries, second.trial) == ("first", 2, 2)
    (third,) = wait_until(lambda: queue.reclaim("third", idle_s=0.05))
    assert (third.owner, third.deliveries, third.trial) == ("second", 3, 3)


def test_an_entry_deleted_but_not_acknowledged_leaves_the_pending_list_when_reclaimed(
    queue: StreamQueue, client: redis.Redis
) -> None:
    client.xdel(P + "tasks", take_one(queue).entry)
    assert queue.reclaim("other", idle_s=0) == []
    assert is_drained(client)


def test_reaping_forgets_consumers_that_neither_hold_a_lease_nor_beat(
    queue: StreamQueue, client: redis.Redis
) -> None:
    queue.enqueue(JOB, JOB.tiles[:3])
    gone, beats, holds = take(queue, "gone"), take(queue, "beats"), take(queue, "holds")
    for lease in (gone, beats):
        queue.commit(lease, RESULT)
    queue.beat("tasks", "beats", 60, [])
    time.sleep(0.01)  # the idle time of a consumer must not pass for its number of leases
    queue.reap()
    left = {info["name"] for info in client.xinfo_consumers(P + "tasks", "workers")}
    assert left == {"beats", "holds"}
    assert idle_ms(client, holds.entry) >= 0


# audit, reject, discard


def test_an_audit_finds_nothing_missing_while_tiles_are_in_flight(queue: StreamQueue) -> None:
    lease = take_one(queue)
    assert queue.audit(JOB) == []
    queue.fail(lease, "no luck", 600, max_attempts=3)
    assert queue.audit(JOB) == []


def test_an_audit_finds_what_a_flush_took_and_it_can_be_enqueued_again(
    queue: StreamQueue, client: redis.Redis
) -> None:
    do_all(queue)
    client.flushall()
    assert queue.audit(JOB) == JOB.tiles
    assert queue.enqueue(JOB, JOB.tiles) == len(JOB.tiles)
    assert take(queue).tile == JOB.tiles[0]


def test_an_audit_leaves_finished_and_dead_tiles_alone(
    queue: StreamQueue, client: redis.Redis
) -> None:
    queue.commit(take_one(queue, tile=0), RESULT)
    queue.fail(take_one(queue, tile=1), "no luck", 0, max_attempts=1)
    take_one(queue, tile=2)
    client.delete(P + "tasks")
    assert queue.audit(JOB) == JOB.tiles[2:]
    assert queue.enqueue(JOB, JOB.tiles) == len(JOB.tiles) - 2


def test_an_audit_announces_a_complete_job_whose_announcement_was_lost(
    queue: StreamQueue, client: redis.Redis
) -> None:
    do_all(queue)
    assert queue.audit(JOB) == []
    assert client.xlen(P + "ready") == 1  # one announcement is enough
    client.delete(P + "ready")
    assert queue.audit(JOB) == []
    (announcement,) = queue.read_ready("a")
    assert announcement.job == JOB


def test_an_audit_looks_at_no_tile_of_a_job_that_is_complete(
    queue: StreamQueue, client: redis.Redis
) -> None:
    """It is asked twice a second until the image is saved, and the image may have many tiles."""
    counts = {}
    for job in (JOB, ImageJob.of("twice.png", np.zeros((96, 200), np.uint8), 16, JOB.blur)):
        queue.enqueue(job, job.tiles)
        for lease in queue.read("w", count=len(job.tiles)):
            queue.commit(lease, RESULT)
        client.config_resetstat()
        assert (queue.is_idle(), queue.audit(job)) == (True, [])
        stats = client.info("commandstats")
        counts[len(job.tiles)] = sum(stat["calls"] for stat in stats.values())
    few, many = counts
    assert many > 2 * few
    assert counts[few] == counts[many]


def test_an_audit_looks_at_many_tiles_in_several_calls(
    queue: StreamQueue, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "AUDIT_TILES", 5)
    queue.commit(take_one(queue, tile=6), RESULT)
    client.config_resetstat()
    assert queue.audit(JOB) == [tile for tile in JOB.tiles if tile.index != 6]
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3


def test_how_many_images_ended_is_asked_in_one_call(
    queue: StreamQueue, client: redis.Redis
) -> None:
    queue.set_state(OTHER, "saved")
    client.config_resetstat()
    assert queue.states([JOB, OTHER] * 50) == ["", "saved"] * 50
    assert client.info("commandstats")["cmdstat_mget"]["calls"] == 1
    assert queue.states([]) == []


@pytest.mark.parametrize("attempt", [1, 3])
def test_no_tile_of_an_image_that_has_ended_is_tried_again(
    attempt: int, queue: StreamQueue, client: redis.Redis
) -> None:
    """The pixels of its windows are gone, so that it would be tried for ever."""
    lease = replace(take_one(queue), attempt=attempt)
    queue.set_state(JOB, "failed")
    assert queue.fail(lease, "its pixels are gone", 0, max_attempts=3) == "done"
    assert is_drained(client)
    assert not client.exists(P + "delayed", P + "dlq", P + "dead:" + JOB.key)


def test_an_assembler_that_comes_late_rejects_no_result_of_an_image_that_was_saved(
    queue: StreamQueue, client: redis.Redis
) -> None:
    do_all(queue)
    (announcement,) = queue.read_ready("a")
    queue.finish(announcement, "saved")
    queue.reject(JOB, JOB.tiles[0], RESULT)
    assert is_drained(client)
    assert len(queue.results(JOB)) == len(JOB.tiles)


def test_what_a_torn_commit_left_undone_is_done_by_a_failure_and_at_the_end(
    queue: StreamQueue, client: redis.Redis
) -> None:
    results, done = f"{P}res:{JOB.key}", f"{P}done:{JOB.key}"
    for tile in JOB.tiles[:-1]:
        client.hset(results, str(tile.index), RESULT)
    last = take_one(queue, tile=len(JOB.tiles) - 1)
    client.hset(results, str(last.tile.index), RESULT)
    assert queue.fail(last, "no luck", 0, max_attempts=1) == "done"
    assert client.smembers(done) == {str(last.tile.index)}
    (announcement,) = queue.read_ready("a")
    queue.finish(announcement, "saved")
    assert client.smembers(done) == {str(tile.index) for tile in JOB.tiles}


def test_a_rejected_result_is_done_again(queue: StreamQueue, client: redis.Redis) -> None:
    do_all(queue)
    (announcement,) = queue.read_ready("a")
    queue.reject(JOB, JOB.tiles[4], RESULT)
    queue.withdraw(announcement)
    assert is_drained(client, "ready")
    assert 4 not in queue.results(JOB)
    lease = take(queue)
    assert lease.tile == JOB.tiles[4]
    assert queue.commit(lease, b"better")
    assert queue.results(JOB)[4] == b"better"
    assert queue.read_ready("a")


def test_a_result_that_was_replaced_meanwhile_is_not_rejected(queue: StreamQueue) -> None:
    do_all(queue)
    queue.reject(JOB, JOB.tiles[4], b"the result before")
    assert (queue.results(JOB)[4], queue.backlog()) == (RESULT, 0)


GOOD = {"spec": JOB.to_json(), "tile": "0", "attempt": "1"}
UNREADABLE = {
    "a field is missing": {"spec": JOB.to_json(), "tile": "0"},
    "the tile is not a number": {**GOOD, "tile": "x"},
    "there is no such tile": {**GOOD, "tile": "12"},
    "the tile is negative": {**GOOD, "tile": "-1"},
    "the spec is no JSON": {**GOOD, "spec": "{"},
    "the spec is of another version": {**GOOD, "spec": '{"image": "a.png"}'},
    "the spec is no text": {**GOOD, "spec": b"\xff\xfe"},
    "the image is a path": {**GOOD, "spec": JOB.to_json().replace("grain.png", "../grain.png")},
}


@pytest.mark.parametrize("fields", UNREADABLE.values(), ids=UNREADABLE)
def test_an_entry_that_nobody_can_read_becomes_a_dead_letter(
    fields: dict[Any, Any], queue: StreamQueue, client: redis.Redis
) -> None:
    entry = client.xadd(P + "tasks", fields)
    assert queue.read("w") == []
    ((_, letter),) = client.xrange(P + "dlq")
    assert letter["entry"] == entry
    assert letter["error"]
    assert is_drained(client)


def test_an_unreadable_entry_does_not_hide_the_readable_ones(queue: StreamQueue) -> None:
    queue.link(lambda client: client.xadd(P + "tasks", {"what": "?"}))
    queue.enqueue(JOB, JOB.tiles[:1])
    (lease,) = queue.read("w", count=2)
    assert lease.tile == JOB.tiles[0]


def test_unreadable_entries_are_discarded_when_they_are_reclaimed_or_announced(
    queue: StreamQueue, client: redis.Redis
) -> None:
    client.xadd(P + "tasks", {"what": "?"})
    client.xreadgroup("workers", "died", {P + "tasks": ">"})
    assert queue.reclaim("w", idle_s=0) == []
    client.xadd(P + "ready", {"spec": "?"})
    assert queue.read_ready("a") == []
    assert client.xlen(P + "dlq") == 2
    assert is_drained(client)
    assert is_drained(client, "ready")


AFTER_A_FLUSH: dict[str, Callable[[StreamQueue], object]] = {
    "enqueue": lambda queue: queue.enqueue(JOB, JOB.tiles),
    "read": lambda queue: queue.read("w"),
    "commit": lambda queue: queue.commit(Lease("1-1", JOB, JOB.tiles[0]), RESULT),
    "fail": lambda queue: queue.fail(Lease("1-1", JOB, JOB.tiles[0]), "no luck", 1, 1),
    "give_back": lambda queue: queue.give_back("w", [Lease("1-1", JOB, JOB.tiles[0])]),
    "promote": lambda queue: queue.promote(),
    "beat": lambda queue: queue.beat("tasks", "w", 60, ["1-1"]),
    "reclaim": lambda queue: queue.reclaim("w", 0),
    "reap": lambda queue: queue.reap(),
    "read_ready": lambda queue: queue.read_ready("a"),
}


@pytest.mark.parametrize("command", AFTER_A_FLUSH.values(), ids=AFTER_A_FLUSH)
@pytest.mark.parametrize("left", ["nothing", "a stream without its group"])
def test_every_command_survives_the_loss_of_all_keys(
    command: Callable[[StreamQueue], object], left: str, queue: StreamQueue, client: redis.Redis
) -> None:
    client.flushall()
    if left != "nothing":
        client.xadd(P + "tasks", GOOD)
        client.xadd(P + "ready", {"spec": JOB.to_json()})
    command(queue)
    queue.enqueue(JOB, JOB.tiles)
    assert queue.read("w")  # what was added before the group was made again is delivered


@pytest.mark.parametrize("read", ["read", "read_ready"])
def test_a_read_that_waits_survives_the_loss_of_its_stream(
    read: str,
    queue: StreamQueue,
    client: redis.Redis,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "BLOCK_S", 2.0)
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.extend(getattr(queue, read)("w")))
    reader.start()
    wait_until(lambda: client.info("clients")["blocked_clients"])
    client.flushall()
    writer = StreamQueue(connect(queue.link.url, patience_s=10))
    writer.enqueue(JOB, JOB.tiles[:1])
    if read == "read_ready":
        writer.fail(take(writer), "no luck", 0, max_attempts=1)
        client.xadd(P + "ready", {"spec": JOB.to_json()})
    reader.join()
    assert [item.job for item in found] == [JOB]


def test_two_prefixes_on_one_server_are_two_queues(
    shared_server: RedisServer, queue: StreamQueue, client: redis.Redis, connect: Connect
) -> None:
    other = StreamQueue(connect(shared_server.url), "{other}:")
    other.enqueue(JOB, JOB.tiles)
    assert queue.backlog() == 0
    clear(shared_server.url, "{other}:")
    assert client.keys("{other}:*") == []
    assert client.keys(P + "*") != []


# ListQueue


@pytest.fixture
def lists(shared_server: RedisServer, client: redis.Redis, connect: Connect) -> ListQueue:
    return ListQueue(connect(shared_server.url, patience_s=10))


def test_a_list_gives_messages_in_order_and_then_none(lists: ListQueue) -> None:
    for message in (b"first", b"second"):
        lists.put("tasks", message)
    assert lists.length("tasks") == 2
    assert [lists.take("tasks") for _ in range(3)] == [b"first", b"second", None]


def test_what_was_popped_from_a_list_is_nowhere_else(lists: ListQueue, client: redis.Redis) -> None:
    lists.put("tasks", b"pixels")
    lists.take("tasks")
    assert client.dbsize() == 0


def test_the_assembler_of_a_list_notes_what_it_has(lists: ListQueue) -> None:
    assert lists.missing(JOB) == JOB.tiles
    for tile in JOB.tiles[:5]:
        lists.note_received(JOB, tile)
        lists.note_received(JOB, tile)
    assert lists.count_received() == 5
    assert (lists.missing(JOB), lists.missing(OTHER)) == (JOB.tiles[5:], OTHER.tiles)
    lists.forget_received()
    assert lists.missing(JOB) == JOB.tiles


def test_a_list_knows_how_a_job_ended(lists: ListQueue) -> None:
    assert lists.state(JOB) == ""
    lists.set_state(JOB, "failed")
    assert (lists.state(JOB), lists.state(OTHER)) == ("failed", "")


# Link


class Counted:
    """An operation that counts how often it is tried."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, client: redis.Redis) -> object:
        self.times += 1
        return client.ping()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server to break."""
    with RedisServer.start(tmp_path / "redis", persistent=False) as server:
        yield server


def test_a_server_that_is_not_there_is_told_once_our_patience_ends() -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    begun, ping = time.monotonic(), Counted()
    with pytest.raises(QueueError, match=r"did not answer for 0\.4 s") as caught:
        Link(url, patience_s=0.4)(ping)
    assert time.monotonic() - begun >= 0.4
    assert ping.times > 1
    assert "secret" not in str(caught.value)
    assert safe_url(url) in str(caught.value)
    assert caught.value.remedy


def test_a_wrong_password_is_told_at_once(shared_server: RedisServer) -> None:
    url, ping = f"redis://:secret@127.0.0.1:{shared_server.port}/0", Counted()
    with pytest.raises(QueueError, match="refuses our password") as caught:
        Link(url, patience_s=600)(ping)
    assert ping.times == 1
    assert "secret" not in str(caught.value)


def test_an_address_that_is_none_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nonsense") as caught:
        Link("nonsense://:secret@host/0")
    assert "secret" not in str(caught.value)


def test_an_error_that_will_not_pass_is_told_at_once(
    shared_server: RedisServer, client: redis.Redis, connect: Connect
) -> None:
    client.set("text", "value")
    with pytest.raises(QueueError, match="WRONGTYPE"):
        connect(shared_server.url, patience_s=600)(lambda client: client.lpop("text"))


@pytest.mark.parametrize("what", ["a script", "a module command"])
def test_a_server_that_is_busy_is_waited_for(what: str, connect: Connect) -> None:
    answers = [redis.ResponseError(f"BUSY Redis is busy running {what}."), None]

    def ask(_: redis.Redis) -> str:
        if error := answers.pop(0):
            raise error
        return "done"

    assert connect("redis://localhost", patience_s=10)(ask) == "done"


def test_a_server_without_memory_is_waited_for(own_server: RedisServer, connect: Connect) -> None:
    queue = StreamQueue(connect(own_server.url, patience_s=0.3))
    queue.link(lambda client: client.config_set("maxmemory", 1))
    with pytest.raises(QueueError, match="maxmemory"):
        queue.enqueue(JOB, JOB.tiles)
    queue.link.patience_s = 60
    freed = threading.Timer(0.2, queue.link, [lambda client: client.config_set("maxmemory", 0)])
    freed.start()
    assert queue.enqueue(JOB, JOB.tiles) == len(JOB.tiles)
    freed.join()


def test_an_operation_outlives_the_servers_absence(
    own_server: RedisServer, connect: Connect
) -> None:
    link = connect(own_server.url, patience_s=60)
    healthy = link.healthy_since
    own_server.kill()
    restart = threading.Timer(0.2, own_server.restart)
    restart.start()
    assert link(Counted())
    assert link.healthy_since > healthy
    restart.join()


def test_the_groups_are_made_again_on_a_server_that_lost_its_data(
    own_server: RedisServer, connect: Connect
) -> None:
    queue = StreamQueue(connect(own_server.url, patience_s=60))
    own_server.kill()
    own_server.restart()
    assert queue.read("w") == []
    queue.enqueue(JOB, JOB.tiles)
    assert take(queue).job == JOB


def test_waiting_for_a_server_ends_when_we_are_told_to_stop() -> None:
    stop = threading.Event()
    link = Link(f"redis://127.0.0.1:{free_port()}/0", patience_s=600, stop=stop)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Cancelled):
        link(Counted())


def test_a_late_answer_counts_as_ill_health(own_server: RedisServer, connect: Connect) -> None:
    link = connect(own_server.url, patience_s=60, slack_s=0.1)
    link(Counted())
    healthy = link.healthy_since
    own_server.pause()
    threading.Timer(0.3, own_server.resume).start()
    ping = Counted()
    assert link(ping)
    assert ping.times == 1
    assert link.healthy_since > healthy


def test_a_server_that_stands_still_for_too_long_is_asked_again(
    own_server: RedisServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studyguide.machinery.link.SOCKET_TIMEOUT_S", 0.1)
    link = connect(own_server.url, patience_s=60)
    link(Counted())
    healthy = link.healthy_since
    own_server.pause()
    threading.Timer(0.3, own_server.resume).start()
    ping = Counted()
    assert link(ping)
    assert ping.times > 1
    assert link.healthy_since > healthy


def test_prompt_answers_and_empty_queues_leave_our_health_as_it_is(queue: StreamQueue) -> None:
    def stays_healthy() -> bool:
        healthy = queue.link.healthy_since
        assert (queue.read("w"), queue.read_ready("a")) == ([], [])
        return queue.link.healthy_since == healthy

    wait_until(stays_healthy)  # on a busy machine an answer may be late once


def test_the_servers_clock_is_read(queue: StreamQueue, client: redis.Redis) -> None:
    before = server_ms(client)
    assert before <= queue.link.server_time() * 1000 <= server_ms(client) + 1
