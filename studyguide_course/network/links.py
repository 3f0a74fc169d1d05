"""Processes that reach their Redis over a network that can be slow, lose things, or be cut."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from studyguide.cluster import Cluster, LocalCluster
from studyguide.plan import Plan
from studyguide.record.timeline import Event, Recorder
from studyguide_course.chaos.proxy import Proxy


@dataclass
class Network:
    """The links of one run, all alike: a proxy between each process and the server of the run.

    Its attributes are those of `Proxy`. Give `run` its method `cluster` as `local`.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    proxies: dict[str, Proxy] = field(default_factory=dict)  # by process, while it runs
    round_trips: Counter[str] = field(default_factory=Counter)  # by process, of the last run

    def cluster(self, plan: Plan, recorder: Recorder) -> "LinkedCluster":
        """Make a cluster whose processes use these links."""
        self.round_trips.clear()
        return LinkedCluster(plan, recorder, self)

    def change(self, **quality: float) -> None:
        """Change `latency_s`, `jitter_s` or `loss` of all links, at once."""
        for name, value in quality.items():
            for link in (self, *self.proxies.values()):
                setattr(link, name, value)

    def heal(self) -> None:
        """Have all links carry again what they get."""
        for proxy in self.proxies.values():
            proxy.heal()

    def link(self, name: str, port: int) -> Proxy:
        """The link of a process to this port, new if it has none."""
        if name not in self.proxies:
            self.proxies[name] = Proxy(port, self.latency_s, self.jitter_s, self.loss)
        return self.proxies[name]

    def close(self) -> None:
        """End all links, and count what they did."""
        for name, proxy in self.proxies.items():
            proxy.close()
            self.round_trips[name] += proxy.round_trips
        self.proxies.clear()


class LinkedCluster(LocalCluster):
    """A local cluster whose processes reach Redis over a network; a server elsewhere directly."""

    def __init__(self, plan: Plan, recorder: Recorder, network: Network) -> None:
        super().__init__(plan, recorder)
        self.network = network
        self.handed_over: set[tuple[str, int]] = set()  # tiles whose results have arrived

    def address(self, name: str) -> str:
        """Where a process finds its end of the link."""
        if not self.redis:
            return self.redis_url
        port = self.network.link(name, self.redis.port).port
        return self.redis.url.replace(f":{self.redis.port}/", f":{port}/")

    def note(self, event: Event) -> None:
        """Keep account of results that have arrived, too."""
        if event.stage == "transfer":
            self.handed_over.add((event.image, event.tile))
        super().note(event)

    def cut(self, name: str) -> None:
        """Cut a process off; Redis itself, and whoever has no link, cannot be."""
        if name in self.network.proxies:
            self.network.proxies[name].cut()

    def cut_busy_worker(self) -> str:
        """Cut off a worker in the middle of a tile, and name it; "" if none was caught."""
        if name := self.freeze_busy_worker():
            self.cut(name)
            self.processes[name].child.resume()
        return name

    def close(self) -> None:
        """Leave nothing behind; whoever is cut off can hand over first what it has."""
        self.network.heal()
        try:
            super().close()
        finally:
            self.network.close()


@dataclass
class CutWorker:
    """Chaos: once `after` tiles are blurred, cut a worker off in the middle of its next tile.

    It is healed when another worker has handed that tile over. The cluster is one of a `Network`.
    """

    after: int
    name: str = ""  # of the worker
    tile: tuple[str, int] = ("", -1)  # that it held: image and number
    healed: bool = False

    def __call__(self, cluster: Cluster) -> None:
        """Strike or heal, if it is time."""
        assert isinstance(cluster, LinkedCluster)
        if not self.name and cluster.blurred >= self.after:
            self.name = cluster.cut_busy_worker()
            held: Any = [e for (owner, _), e in cluster.held.items() if owner == self.name]
            self.tile = (held[0].image, held[0].tile) if held else self.tile
        elif self.name and not self.healed and self.tile in cluster.handed_over:
            cluster.network.heal()
            self.healed = True
