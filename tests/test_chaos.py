"""The fault matrix, one seed of every row, and its checker on doctored outcomes."""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from support import free_port, wait_until

from studyguide.__main__ import main
from studyguide.errors import UsageError
from studyguide.machinery.link import connect
from studyguide.machinery.processes import Reaper
from studyguide.machinery.redis_server import RedisServer, find_server
from studyguide.record.timeline import Event
from studyguide.settings import START
from studyguide_course import chaos
from studyguide_course.chaos import Trial
from studyguide_course.chaos.proxy import ABORT, Proxy
from studyguide_course.chaos.replica import Replica
from studyguide_course.chaos.site import BOUND_S
from studyguide_course.chaos.strikes import ROWS, UNHARMED, WITH_LISTS, disorder
from studyguide_course.chaos.subject import GRIDS, TILES, expected
from studyguide_course.chaos.verdict import Outcome, page, problems

# the matrix: two servers in turn


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("fault", ROWS)
@pytest.mark.parametrize(("letter", "server"), [("f", "redis-server"), ("g", "wheel")])
def test_nothing_is_lost_whatever_strikes(letter: str, server: str, fault: str) -> None:
    try:
        trial = Trial(letter, fault, seed=1, server=server)
    except UsageError:
        trial = Trial(letter, fault, seed=1)  # the server that this machine has
    outcome = trial.run()
    assert outcome.problems == [], outcome.command
    if outcome.skipped:
        assert not os.environ.get("CI"), outcome.skipped
        pytest.skip(outcome.skipped)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "fault",
    [
        "kill-worker",
        "kill-redis",
        pytest.param("partition", marks=pytest.mark.slow),
        pytest.param("failover", marks=pytest.mark.slow),
    ],
)
def test_e_saves_each_image_right_or_tells_that_it_failed(fault: str) -> None:
    outcome = Trial("e", fault, seed=1).run()
    assert outcome.problems == [], outcome.command


# the checker


def good(letter: str = "f", fault: str = "zombie") -> Outcome:
    tiles = {image: list(range(down * across)) for image, (down, across) in GRIDS.items()}
    return Outcome(
        letter,
        fault,
        seed=1,
        payload="file",
        struck=True,
        seconds=3.0,
        date="2026-01-02",
        counts={"redelivered": 1, "duplicates": 1, "deaths": 1, "lost": 0, "commits": len(TILES)},
        saved={image: expected(image, frozenset()) for image in GRIDS},
        done=dict(tiles),
        results=dict(tiles),
        left={"tasks": 0, "delayed": 0},
    )


def test_a_run_that_left_all_as_it_should_be_is_passed() -> None:
    assert problems(good()) == problems(good("e", "kill-worker")) == []


DOCTORED: dict[str, tuple[Callable[[Outcome], object], str]] = {
    "no place": (lambda o: setattr(o, "struck", False), "no place to strike"),
    "no bite": (lambda o: o.counts.update(redelivered=0), "did not bite: no redelivered"),
    "an error": (lambda o: setattr(o, "error", "it broke"), "it broke"),
    "too slow": (lambda o: setattr(o, "seconds", BOUND_S + 1), "it took"),
    "not saved": (lambda o: o.saved.pop("last.png"), "last.png is not what"),
    "other pixels": (lambda o: o.saved.update({"first.png": "0" * 64}), "first.png is not what"),
    "reported as failed": (
        lambda o: o.failed.append("first.png"),
        "first.png is reported as failed",
    ),
    "not done": (lambda o: o.done.update({"first.png": [0, 1, 3]}), "done of first.png holds"),
    "no result": (lambda o: o.results.update({"last.png": []}), "res of last.png holds"),
    "an innocent is dead": (lambda o: o.dead.append(["last.png", 3]), "dead letters are"),
    "poison lives": (lambda o: o.planted.append(["last.png", 3]), "dead letters are"),
    "a dead letter twice": (
        lambda o: (o.planted.append(["last.png", 3]), o.dead.extend([["last.png", 3]] * 2)),
        "dead letters are",
    ),
    "a task is left": (lambda o: o.left.update(tasks=2), "2 left in tasks"),
    "a retry is left": (lambda o: o.left.update(delayed=1), "1 left in delayed"),
    "a storm": (lambda o: setattr(o, "most_redelivered", 0), "at most 0 were in flight"),
    "a commit too many": (lambda o: o.counts.update(commits=13), "13 first commits of 12"),
    "a commit too few": (lambda o: o.counts.update(commits=11), "11 first commits of 12"),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_the_checker_sees(name: str) -> None:
    doctor, told = DOCTORED[name]
    outcome = good()
    doctor(outcome)
    assert any(told in problem for problem in problems(outcome))


@pytest.mark.parametrize("name", UNHARMED)
@pytest.mark.parametrize("fault", ["partition", "slow-network"])
def test_the_checker_sees_that_a_bad_network_harmed_somebody(fault: str, name: str) -> None:
    outcome = good(fault=fault)
    outcome.counts.update(dict.fromkeys(UNHARMED, 0), resets=1)
    assert problems(outcome) == []
    outcome.counts[name] = 1
    assert problems(outcome) == [f"1 {name}, and none was due"]


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("partition", "redelivered"),
        ("partition", "duplicates"),
        ("slow-network", "resets"),
        ("failover", "forgotten"),
        ("failover", "deaths"),
    ],
)
def test_the_checker_sees_that_a_network_did_no_harm(fault: str, name: str) -> None:
    outcome = good(fault=fault)
    outcome.counts.update(dict.fromkeys(UNHARMED, 0), resets=1, forgotten=1)
    outcome.counts["deaths"] = int(fault == "failover")
    assert problems(outcome) == []
    outcome.counts[name] = 0
    assert problems(outcome) == [f"the fault did not bite: no {name}"]


def test_commits_may_go_untold_where_answers_get_lost_but_none_may_come_twice() -> None:
    outcome = good(fault="kill-worker")
    outcome.counts["commits"] = 11
    assert problems(outcome) == []
    outcome.counts["commits"] = 13
    assert problems(outcome) == ["13 first commits of 12 tiles"]


def test_tiles_may_be_done_again_where_redis_lost_them_but_each_must_be_done() -> None:
    outcome = good(fault="flushall")
    outcome.counts["commits"] = 20
    assert problems(outcome) == []
    outcome.counts["commits"] = 11
    assert problems(outcome) == ["11 first commits of 12 tiles"]


def test_what_redis_forgot_of_a_saved_image_need_not_come_back() -> None:
    outcome = good(fault="flushall")
    outcome.done["first.png"] = []
    assert problems(outcome) == []
    outcome.done["first.png"] = [0, 99]
    assert problems(outcome) == ["done of first.png holds [0, 99]"]
    outcome.done["first.png"] = []
    outcome.saved.pop("first.png")
    assert problems(outcome) == ["first.png is not what the sequential run gives"]


def test_an_image_with_a_dead_tile_must_keep_its_original_pixels_and_be_told() -> None:
    outcome = good(fault="raising-tile")
    outcome.counts.update(retries=2, dead_letters=1, commits=11)
    outcome.planted = outcome.dead = [["first.png", 2]]
    outcome.done["first.png"] = outcome.results["first.png"] = [0, 1, 3]
    whole = "first.png is not what the sequential run gives"
    assert problems(outcome) == [whole, "first.png is reported as failed, or should be"]
    outcome.saved["first.png"] = expected("first.png", frozenset({2}))
    outcome.failed = ["first.png"]
    assert problems(outcome) == []


@pytest.mark.parametrize("saved", ["nothing", "both", "wrong"])
def test_e_may_lose_tiles_but_not_in_silence(saved: str) -> None:
    outcome = good("e", "kill-worker")
    outcome.counts.update(redelivered=0, lost=1)
    outcome.saved.pop("first.png")
    outcome.failed = ["first.png"]
    assert problems(outcome) == []
    if saved == "nothing":
        outcome.failed = []
    else:
        outcome.saved["first.png"] = expected("first.png", frozenset()) if saved == "both" else ""
    assert problems(outcome)


def test_results_are_out_of_order_within_an_image_whatever_comes_in_between() -> None:
    order = [("a", 1), ("b", 1), ("a", 0), ("b", 2), ("a", 2)]
    events = [Event("transfer", n, n, "p", "l", *tile) for n, tile in enumerate(order)]
    assert disorder(events) == 1
    assert disorder([events[0], events[1], events[4]]) == 0


# the command


def outcomes(monkeypatch: pytest.MonkeyPatch, *bad: int) -> list[int]:
    """Have trials end well without a run, but those of these seeds; seeds that were tried."""
    tried: list[int] = []

    def run(trial: Trial) -> Outcome:
        tried.append(trial.seed)
        outcome = good(trial.approach, trial.fault)
        outcome.seed, outcome.program = trial.seed, trial.server
        outcome.problems = ["a tile was lost"] if trial.seed in bad else []
        return outcome

    monkeypatch.setattr(Trial, "run", run)
    monkeypatch.setattr(chaos, "warm_up", lambda _: None)
    return tried


def test_every_row_is_tried_with_f_and_g_and_kills_with_e_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = outcomes(monkeypatch)
    assert main(["chaos", "--seeds", "2"]) == 0
    assert len(tried) == 2 * (2 * len(ROWS) + len(WITH_LISTS))
    assert len(capsys.readouterr().out.splitlines()) == len(tried)


def test_a_failure_ends_with_1_and_prints_what_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes(monkeypatch, 4)
    line = ["chaos", "--approach", "g", "--fault", "zombie", "--first-seed", "3", "--seeds", "2"]
    assert main(line) == 1
    printed = capsys.readouterr()
    assert "seed   4" in printed.out
    assert "FAILED: a tile was lost" in printed.out
    assert "studyguide chaos --approach g --fault zombie --first-seed 4" in printed.err


def test_only_rows_that_fit_the_approach_are_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = outcomes(monkeypatch)
    assert main(["chaos", "--approach", "e", "--fault", "zombie"]) == 2
    assert "'zombie' does not fit approach e" in capsys.readouterr().err
    assert tried == []
    assert main(["chaos", "--approach", "e"]) == 0
    assert len(tried) == len(WITH_LISTS)


@pytest.mark.usefixtures("compiled")
def test_roles_can_start_fresh_and_what_repeats_a_run_says_so(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    line = ["chaos", "--approach", "f", "--fault", "none", "--ledger", str(ledger)]
    assert main([*line, "--start", "fresh"]) == 0
    (outcome,) = chaos.read_ledger(ledger)
    assert (
        outcome.command == "studyguide chaos --approach f --fault none --first-seed 0 --start fresh"
    )
    assert "--start" not in replace(outcome, start=START).command


def test_a_ledger_is_gone_on_with_and_makes_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tried, ledger, report = outcomes(monkeypatch, 1), tmp_path / "a" / "ledger", tmp_path / "page"
    line = ["chaos", "--approach", "f", "--fault", "zombie", "--json", "--ledger", str(ledger)]
    assert main([*line, "--seeds", "2"]) == 1
    assert main([*line, "--seeds", "3", "--report", str(report)]) == 1
    assert tried == [0, 1, 2]
    rows = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert ledger.read_text().splitlines() == [json.dumps(row) for row in rows]
    assert (
        "| zombie | f | 3 | 2 | 3 | 3 | 0 | 0 | 3.0 s | 3.0 s | 2026-01-02 |" in report.read_text()
    )
    failure = "- `studyguide chaos --approach f --fault zombie --first-seed 1` (): a tile was lost"
    assert failure in report.read_text()


def test_a_ledger_tells_the_servers_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried, ledger = outcomes(monkeypatch), tmp_path / "ledger"
    line = ["chaos", "--approach", "f", "--fault", "zombie", "--ledger", str(ledger)]
    found = find_server()
    for _ in range(2):
        assert main([*line, "--redis", str(found)]) == 0
    assert tried == [0]
    other = tmp_path / "another-server"
    other.symlink_to(found)
    assert main([*line, "--redis", str(other)]) == 0
    assert tried == [0, 0]


def test_a_row_that_cannot_be_tried_here_says_why() -> None:
    outcome = good(fault="disk-full")
    outcome.skipped = "no small disk can be mounted: permission denied"
    assert "| disk-full | f | skipped: no small disk" in page([outcome])
    assert Outcome(**json.loads(json.dumps(asdict(outcome)))) == outcome


def test_the_report_says_what_a_pause_of_redis_costs() -> None:
    paused = [good("g", "redis-paused") for _ in range(3)]
    for outcome, seconds in zip(paused, (3.4, 9.0, 3.8), strict=True):
        outcome.seconds = seconds
    told = "- redis-paused, g: a pause costs 1.0 visibility windows at the median"
    assert told in page([good("g", "none"), *paused])
    assert "redis-paused, g" not in page([good("f", "none"), *paused])


@pytest.mark.parametrize("fault", ["partition", "failover"])
def test_the_report_counts_what_e_loses_beside_f(fault: str) -> None:
    outcomes = [good(letter, fault) for letter in "eef"]
    for outcome, lost in zip(outcomes, (4, 1, 0), strict=True):
        outcome.counts.update(forgotten=3, lost=lost, redelivered=2)
    outcomes[0].failed = ["last.png"]
    report, what = page(outcomes), "acknowledged results forgotten,"
    e = f"- {fault}, e: 6 {what} 4 tiles delivered again, 5 tiles lost; 1 of 4 images not saved."
    f = f"- {fault}, f: 3 {what} 2 tiles delivered again, 0 tiles lost; 0 of 2 images not saved."
    assert [line for line in report.splitlines() if line.startswith("- ")] == [e, f]


def test_rows_that_were_not_run_again_keep_their_date() -> None:
    paused = [good("f", "none"), good("f", "redis-paused")]
    before = page([*paused, good("f", "zombie")])
    again = good("f", "zombie")
    again.date, again.seconds = "2026-03-04", 5.0
    report = page([again], before)
    new = [line for line in report.splitlines() if "| zombie" in line]
    assert new == ["| zombie | f | 1 | 1 | 1 | 1 | 0 | 0 | 5.0 s | 5.0 s | 2026-03-04 |"]
    kept = [line for line in before.splitlines() if "none" in line or "redis-paused" in line]
    assert len(kept) == 3
    assert [line for line in report.splitlines() if line in kept] == kept


@pytest.mark.parametrize("option", ["--fault", "--redis"])
def test_what_does_not_exist_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", option, "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


# the replica


def test_a_replica_takes_over_with_what_it_was_sent_and_nothing_else(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path / "primary", persistent=True) as primary:
        reaper = Reaper()
        replica = Replica(primary, tmp_path / "replica", reaper)
        with connect(primary.url) as before:
            before.set("sent", 1)
            assert before.wait(1, 10_000) == 1
            replica.link.cut()
            assert before.set("acknowledged", 1)
            assert before.wait(1, 1) == 0
        primary.kill()
        server = replica.promote()
        moved = primary.url.replace(f":{primary.port}/", f":{server.port}/")
        with connect(moved) as after:  # the password of the primary
            assert after.keys("*") == [b"sent"]
            assert after.set("later", 1)
        replica.close()
        reaper.close()


# the proxy


@contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(client: socket.socket) -> None:
            with client, suppress(ConnectionResetError):
                while data := client.recv(100):
                    client.sendall(data)

        def serve() -> None:
            try:
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=answer, args=[client], daemon=True).start()
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with echo() as port:
        proxy = Proxy(port, latency_s=0.001)
        yield proxy
        proxy.close()


def test_a_proxy_hands_on_what_it_gets_both_ways(proxy: Proxy) -> None:
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            client.sendall(b"ping")
            assert client.recv(100) == b"ping"


def test_a_proxy_resets_all_connections_and_serves_the_next(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(b"ping")
        client.recv(100)
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    assert wait_until(lambda: proxy.reset() == 0)
    test_a_proxy_hands_on_what_it_gets_both_ways(proxy)


def test_a_proxy_that_is_cut_holds_back_what_it_gets_until_it_is_healed(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        proxy.cut()
        client.sendall(b"ping")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
        proxy.heal()
        client.settimeout(10)
        assert client.recv(100) == b"ping"
        proxy.cut()  # and it can be closed so
        client.sendall(b"ping")


def test_a_proxy_that_is_cut_can_be_reset_and_hands_nothing_on_of_what_it_held(
    proxy: Proxy,
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(b"ping")
        client.recv(100)
        proxy.cut()
        handed_on = proxy.bytes
        client.sendall(b"gone")
        assert wait_until(lambda: proxy.bytes == handed_on + 4)
        assert proxy.reset() == 1
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    assert proxy.bytes == handed_on + 4  # an echo would have come back


def test_a_proxy_can_be_made_in_a_notebook_whose_loop_runs(proxy: Proxy) -> None:
    async def cell() -> Proxy:
        return Proxy(proxy.port)

    other = asyncio.run(cell())
    test_a_proxy_hands_on_what_it_gets_both_ways(other)
    other.close()


def test_a_proxy_resets_a_connection_of_which_one_side_has_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(listener.getsockname()[1])
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            server, _ = listener.accept()
            server.settimeout(0.5)
            with suppress(TimeoutError):  # the client reads nothing: the way back is full
                while True:
                    server.sendall(bytes(1 << 20))
            client.shutdown(socket.SHUT_WR)
            server.settimeout(10)
            with server, suppress(ConnectionResetError):
                assert (
                    server.recv(1) == b""
                )  # now the proxy has closed its connection to the server
            assert proxy.reset() == 1
        proxy.close()
    assert caplog.messages == []


def test_a_proxy_keeps_the_order_of_bytes_whatever_the_jitter(proxy: Proxy) -> None:
    proxy.jitter_s = 0.02
    sent = bytes(range(256)) * 4
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for first in range(0, len(sent), 64):
            client.sendall(sent[first : first + 64])
            time.sleep(0.002)
        client.settimeout(10)
        received = b""
        while len(received) < len(sent):
            received += client.recv(100)
    assert received == sent


def test_a_proxy_delays_by_its_latency_and_counts_round_trips(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        for latency_s in (0.0, 0.1):
            proxy.latency_s = latency_s
            began = time.monotonic()
            client.sendall(b"ping")
            assert client.recv(100) == b"ping"
            assert time.monotonic() - began >= 2 * latency_s
    assert (proxy.round_trips, proxy.bytes) == (2, 16)


def test_a_proxy_that_loses_everything_resets_and_heals(proxy: Proxy) -> None:
    proxy.loss = 1.0
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(b"ping")
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    proxy.loss = 0.0
    test_a_proxy_hands_on_what_it_gets_both_ways(proxy)


def test_a_proxy_bears_clients_that_reset_their_connection(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(b"ping")
        client.recv(100)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    assert wait_until(lambda: proxy.reset() == 0)
    test_a_proxy_hands_on_what_it_gets_both_ways(proxy)
    assert caplog.messages == []


def test_a_proxy_leads_new_connections_to_another_target(proxy: Proxy) -> None:
    with echo() as port:
        proxy.target = free_port()
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            assert client.recv(100) == b""
        proxy.target = port
        test_a_proxy_hands_on_what_it_gets_both_ways(proxy)


def test_a_proxy_of_a_server_that_is_away_turns_clients_down() -> None:
    proxy = Proxy(free_port(), latency_s=0.0)
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        assert client.recv(100) == b""
    proxy.close()
