"""Values with which each claim of lesson g holds, and those with which it fails."""

from types import SimpleNamespace as Stub
from typing import Any

from studyguide.record.timeline import Event, Timeline


def run(*died: str, lost: int = 0) -> Stub:
    """Return a report in which these processes died and so many tiles are lost."""
    deaths = [Event("death", 1, 1, process, "main") for process in died]
    return Stub(timeline=Timeline(deaths), ledger={"lost": lost})


ALL_THREE = ("worker-0", "worker-0", "coordinator-0", "redis")
CLAIMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Only the first commit counts.": (
        {"first": True, "second": False},
        {"second": True},
    ),
    "The starts of g take less processor time than those of f.": (
        {"cpu_s": {"f": 5.1, "g": 2.9}},
        {"cpu_s": {"f": 2.9, "g": 5.1}},
    ),
    "Another thread took over what was in hand, and no tile is lost.": (
        {"killed": run("worker-0"), "taken_over": ["a tile"]},
        {"taken_over": []},
    ),
    "An instance, the coordinator and Redis died, and no tile is lost.": (
        {"bad_day": run(*ALL_THREE)},
        {"bad_day": run(*ALL_THREE, lost=1)},
    ),
    "The separable blur takes less processor time than the direct one, on a single thread.": (
        {"blur_s": {"direct": 0.79, "separable": 0.05}},
        {"blur_s": {"direct": 0.05, "separable": 0.05}},
    ),
    "No simulated rate exceeds the bound.": (
        {"rates": {1: (35.0, 35.0), 10: (150.0, 180.0)}},
        {"rates": {1: (35.0, 35.0), 10: (350.0, 158.0)}},
    ),
    "By the metrics one tile was tried again, and none was given up.": (
        {"last": {"studyguide_tiles_total retried": 1.0, "studyguide_tiles_total dead": 0.0}},
        {"last": {"studyguide_tiles_total retried": 1.0, "studyguide_tiles_total dead": 1.0}},
    ),
    "By the trace a thread had tile 20 of chart.png for a second before it blurred it.": (
        {"found": {("chart.png", 20): 1.001}},
        {"found": {("chart.png", 20): 0.5}},
    ),
}
