"""Values with which each claim of lesson e holds, and those with which it fails."""

from types import SimpleNamespace as Stub
from typing import Any

from studyguide.record.timeline import Event, Timeline


def run(*lost: tuple[str, int], saved: tuple[str, ...] = ()) -> Stub:
    """Return a report in which these tiles are lost and these images saved."""
    events = [Event("lost", 9, 9, "coordinator", "main", *tile) for tile in lost]
    return Stub(timeline=Timeline(events), pixels=lambda: dict.fromkeys(saved, "digest"))


SEVENTH = ("bubbles.png", 7)
CLAIMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "An image is not saved exactly if a tile of it is lost.": (
        {"killed": run(("chart.png", 20)), "missing": ["chart.png"]},
        {"missing": []},
    ),
    "No list can tell a busy worker from a dead one.": (
        {"worker_is_busy": {}, "worker_is_dead": {}},
        {"worker_is_busy": {"doing": 1}},
    ),
    "Tile 7 is lost, so the bubbles are not saved, and the chart is.": (
        {"hiccup": run(SEVENTH, saved=("chart.png",))},
        {"hiccup": run(saved=("bubbles.png", "chart.png"))},
    ),
    "No simulated rate exceeds the bound.": (
        {"rates": {1: (35.0, 35.0), 10: (150.0, 180.0)}},
        {"rates": {1: (35.0, 35.0), 10: (350.0, 158.0)}},
    ),
}
