"""Metrics for Prometheus and health for Kubernetes, on one port of a role.

`Metrics` is a sink: it counts a process' events, and nothing else is counted anywhere. A scraper
sums over processes. Only the depth of the queue is asked of Redis, at each scrape.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from studyguide.errors import MORE_THREADS, StudyguideError, UsageError, explained
from studyguide.machinery.link import Link
from studyguide.record.timeline import LET_GO, Event

ALIVE_S = 60.0  # at least; a heart touches its file three times in each visibility timeout
COUNTED = {"blur": "done", "reclaim": "redelivered", "retry": "retried", "dead": "dead"}
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # bounds of the histograms


class Metrics:
    """Counts events of tiles as they come; served by `serve`."""

    def __init__(self) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError as error:
            remedy = "Install it: pip install studyguide[cluster]"
            raise UsageError(f"--metrics-port: {error}", remedy) from error
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry, "namespace": "studyguide"}
        self._tiles = Counter("tiles", "Tiles by what became of them", ["outcome"], **options)
        for outcome in COUNTED.values():
            self._tiles.labels(outcome)  # shows as 0 before the first
        self._holding: set[str] = set()  # lanes with a tile in hand; each has one at most
        self._in_flight = Gauge("tiles_in_flight", "Tiles leased and not let go of", **options)
        buckets = {"buckets": SECONDS, **options}
        self._seconds = {
            "blur": Histogram("service_seconds", "Blurring a tile", **buckets),
            "wait": Histogram("wait_seconds", "Waiting for a tile", **buckets),
        }
        self.depth = Gauge("queue_depth", "Tiles queued, of all processes", **options)

    def __call__(self, event: Event) -> None:
        """Count one event."""
        if event.tile < 0:
            return
        if event.stage in COUNTED:
            self._tiles.labels(COUNTED[event.stage]).inc()
        if event.stage in self._seconds:
            self._seconds[event.stage].observe(max(0.0, event.seconds))
        if event.stage == "wait":
            self._holding.add(event.lane)
        elif event.stage in LET_GO:
            self._holding.discard(event.lane)
        self._in_flight.set(len(self._holding))


def serve(
    address: str,
    metrics: Metrics,
    link: Link,
    depth: Callable[[Any], Any],
    alive: Path,
    alive_s: float = ALIVE_S,
) -> None:
    """Answer /metrics, /healthz and /readyz at `[HOST:]PORT` for as long as this process lives.

    Raises UsageError if that address cannot be listened on.

    Parameters
    ----------
    address : str
        Without a host only this machine is answered; in a pod it is 0.0.0.0.
    link : Link
        For /readyz, which is a PING, and for the depth of the queue; without patience.
    depth : callable
        Asks a client of Redis how many tiles are queued.
    alive : Path
        The file that the heart touches: /healthz is its age, whatever Redis does.
    alive_s : float
        Seconds for which that file may be left untouched.
    """
    from prometheus_client import make_wsgi_app, start_http_server

    def ask(question: Callable[[Any], Any], otherwise: float) -> float:
        with suppress(StudyguideError):
            return float(link(question))
        return otherwise

    metrics.depth.set_function(lambda: ask(depth, float("nan")))
    pages: Callable[..., Iterable[bytes]] = make_wsgi_app(metrics.registry)
    checks: dict[str, Callable[[], bool]] = {
        "/healthz": lambda: alive.exists() and time.time() - alive.stat().st_mtime < alive_s,
        "/readyz": lambda: bool(ask(lambda client: client.ping(), 0.0)),
    }

    def answer(request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        check = checks.get(request["PATH_INFO"])
        if check is None:
            return pages(request, start)
        start("200 OK" if check() else "503 Service Unavailable", [])
        return []

    host, _, port = address.rpartition(":")
    problem = f"--metrics-port {address} cannot be listened on"
    remedy = "Use [HOST:]PORT with a free port"
    no_thread = explained(StudyguideError, "No thread can be started", MORE_THREADS, RuntimeError)
    with no_thread, explained(UsageError, problem, remedy, ValueError, OverflowError):
        server, _ = start_http_server(int(port), host or "127.0.0.1", metrics.registry)
    handler: Any = server.RequestHandlerClass
    handler.timeout = 10  # seconds for a request to come in
    server.set_app(answer)
