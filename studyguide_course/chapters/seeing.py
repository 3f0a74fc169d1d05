"""Seeing a running system: ask its metrics and its trace, as Prometheus and Perfetto do."""

import time
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection
from itertools import pairwise
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families


def scrape(port: int) -> dict[str, float]:
    """Read /metrics once: name and label -> value, and `time`. OSError while nobody listens."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found = [it for family in text_string_to_metric_families(text) for it in family.samples]
    values = {" ".join([it.name, *it.labels.values()]): it.value for it in found}
    return {**values, "time": time.time()}


def rate(before: dict[str, float], after: dict[str, float], name: str) -> float:
    """How fast a counter grew between two scrapes, in its unit by second (PromQL: `rate`)."""
    return (after[name] - before[name]) / (after["time"] - before["time"])


def quantile(share: float, bounds: Sequence[float], counts: Sequence[float]) -> float:
    """Estimate a quantile of a histogram as PromQL's `histogram_quantile` does.

    `counts` has how many took no longer than each bound, and all in the end. What lies in a bucket
    is taken as spread evenly over it; beyond the last bound nothing is known.
    """
    return float(np.interp(share * counts[-1], [0, *counts[:-1]], [0, *bounds]))


def holes(trace: dict[str, Any]) -> list[tuple[float, str, int]]:
    """Seconds without a slice before each blur, with image and tile, the longest first."""
    slices = (event for event in trace["traceEvents"] if event["ph"] == "X")
    pairs = pairwise(sorted(slices, key=lambda event: (event["tid"], event["ts"])))
    found = ((b["ts"] - a["ts"] - a["dur"], b) for a, b in pairs if b["name"] == "blur")
    return sorted(((us / 1e6, b["args"]["image"], b["args"]["tile"]) for us, b in found))[::-1]
