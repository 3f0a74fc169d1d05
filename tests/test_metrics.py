"""What a role tells a scraper and a kubelet: counts of its events, and its health."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from support import free_port

from studyguide.errors import UsageError
from studyguide.machinery.link import Link
from studyguide.machinery.redis_server import RedisServer
from studyguide.record.metrics import Metrics, serve
from studyguide.record.timeline import Event


def event(stage: str, tile: int = 0, seconds: float = 0.0) -> Event:
    return Event(stage, 100.0, 100.0 + seconds, "worker-0", "worker-0", "grain.png", tile)


class Site:
    """A role's port, its events and its alive file."""

    def __init__(self, folder: Path, url: str) -> None:
        self.alive = folder / "alive"
        self.alive.touch()
        self.metrics = Metrics()
        self.port = free_port()
        link = Link(url, patience_s=0.0)
        serve(str(self.port), self.metrics, link, lambda c: c.xlen("{m}:tasks"), self.alive)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, ""

    def told(self) -> dict[str, float]:
        """Every sample by its name and outcome."""
        code, text = self.get("/metrics")
        assert code == 200
        return {
            sample.name + sample.labels.get("outcome", "") + sample.labels.get("le", ""): (
                sample.value
            )
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer.start(tmp_path / "redis", persistent=False) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: RedisServer) -> Site:
    return Site(tmp_path, server.url)


def test_events_of_tiles_are_counted_by_what_became_of_them(site: Site) -> None:
    history = [event("wait", n) for n in range(5)]
    history += [event("blur", 0), event("transfer", 0), event("blur", 1), event("retry", 2)]
    history += [event("dead", 3), event("reclaim", 4), event("wait", -1), event("blur", -1)]
    for item in history:
        site.metrics(replace(item, lane=f"worker-{item.tile}"))
    told = site.told()
    outcomes = {"done": 2, "redelivered": 1, "retried": 1, "dead": 1}
    assert {o: told[f"studyguide_tiles_total{o}"] for o in outcomes} == outcomes
    assert told["studyguide_tiles_in_flight"] == 2
    assert told["studyguide_wait_seconds_count"] == 5


@pytest.mark.parametrize("end", ["transfer", "retry", "dead", "duplicate"])
def test_a_tile_is_in_flight_until_its_thread_is_done_with_it(end: str, site: Site) -> None:
    for n in range(3):
        site.metrics(replace(event("wait", n), lane=f"worker-{n % 2}"))
    assert site.told()["studyguide_tiles_in_flight"] == 2
    for stage in (end, "duplicate"):
        site.metrics(replace(event(stage, 2), lane="worker-0"))
        assert site.told()["studyguide_tiles_in_flight"] == 1


def test_before_the_first_event_all_counts_are_zero(site: Site) -> None:
    told = site.told()
    assert {value for name, value in told.items() if "_created" not in name} == {0.0}
    assert "studyguide_tiles_totaldead" in told


def test_the_times_of_blurs_are_told_as_a_histogram(site: Site) -> None:
    for seconds in (0.0005, 0.02, 20.0):
        site.metrics(event("blur", seconds=seconds))
    told = site.told()
    buckets = [told[f"studyguide_service_seconds_bucket{le}"] for le in ("0.001", "0.03", "+Inf")]
    assert buckets == [1, 2, 3]
    assert told["studyguide_service_seconds_sum"] == pytest.approx(20.0205)


def test_the_depth_of_the_queue_is_asked_of_redis(site: Site, server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        for n in range(3):
            client.xadd("{m}:tasks", {"tile": n})
    assert site.told()["studyguide_queue_depth"] == 3


def test_a_role_whose_redis_is_away_is_alive_but_not_ready(site: Site, server: RedisServer) -> None:
    assert [site.get(path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
    server.kill()
    assert [site.get(path)[0] for path in ("/healthz", "/readyz")] == [200, 503]
    assert str(site.told()["studyguide_queue_depth"]) == "nan"


def test_a_role_whose_heart_stands_still_is_not_alive(site: Site) -> None:
    long_ago = time.time() - 61
    os.utime(site.alive, (long_ago, long_ago))
    assert [site.get(path)[0] for path in ("/healthz", "/readyz")] == [503, 200]
    site.alive.unlink()
    assert site.get("/healthz")[0] == 503


def test_only_this_machine_is_answered_unless_a_host_is_named(site: Site) -> None:
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", site.port), timeout=5)


@pytest.mark.parametrize("address", ["x", "99999", "-1", "256.0.0.1:80", ""])
def test_an_address_that_cannot_be_listened_on_is_told(address: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--metrics-port .* cannot be .* Use \[HOST:\]PORT"):
        serve(address, Metrics(), Link("redis://127.0.0.1"), lambda c: 0, tmp_path / "alive")


def test_a_port_that_is_taken_is_told(site: Site) -> None:
    with pytest.raises(UsageError, match="Address already in use"):
        serve(str(site.port), Metrics(), Link("redis://127.0.0.1"), lambda c: 0, site.alive)


def test_a_request_that_never_comes_is_waited_for_no_longer_than_ten_seconds(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as silent:
        began = time.monotonic()
        assert silent.recv(1) == b""
    assert 9 < time.monotonic() - began < 20
