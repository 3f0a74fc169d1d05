"""Values with which each claim of lesson f holds, and those with which it fails."""

from types import SimpleNamespace as Stub
from typing import Any

from studyguide.record.timeline import Event, Timeline


def run(letter: str = "f", *events: Event, outputs: int = 2, **ledger: int) -> Stub:
    """Return a report with these events, so many outputs and this ledger."""
    counts = {"lost": 0, "redelivered": 0, **ledger}
    saved = dict.fromkeys(range(outputs), "digest")
    return Stub(approach=letter, timeline=Timeline(events), outputs=saved, ledger=counts)


def death(process: str) -> Event:
    """Return the death of a process."""
    return Event("death", 1, 1, process, "main")


LETTER = Event("dead", 2, 2, "worker-0", "main", "bubbles.png", 5)
LOSS = run("e", outputs=1, lost=1)
CLAIMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "e lost a tile and delivered none a second time.": (
        {"killed_e": LOSS},
        {"killed_e": run("e", lost=1, redelivered=1)},
    ),
    "The tile was delivered twice, and nothing is left to do.": (
        {"bob": Stub(deliveries=2), "left": 0},
        {"left": 1},
    ),
    "e lost a tile, and f lost none.": (
        {"killed_e": LOSS, "killed": run(redelivered=1)},
        {"killed": run(lost=1)},
    ),
    "Both images of f are saved, one of e is missing.": (
        {"killed_e": LOSS, "killed": run()},
        {"killed": run(outputs=1)},
    ),
    "Tile 7 was done at its second attempt; tile 5 failed four times and is a dead letter.": (
        {"faulty": run("f", LETTER), "retried": [5, 7, 5, 5]},
        {"retried": [5, 7, 7, 5, 5]},
    ),
    "No more than two workers died of the tile, and no tile is lost.": (
        {"poisoned": run("f", death("worker-0"), death("worker-1"))},
        {"poisoned": run("f", *map(death, ("worker-0", "worker-1", "worker-0")))},
    ),
    "Without the file all tiles are gone, with it none is lost to SIGKILL.": (
        {"left": {False: 0, True: 3}},
        {"left": {False: 0, True: 2}},
    ),
    "Only Redis died, and no tile is lost.": (
        {"outage": run("f", death("redis"))},
        {"outage": run("f", death("redis"), death("worker-0"))},
    ),
    "An acknowledged result was forgotten, and every tile is done all the same.": (
        {"before": (2, 18), "after": (1, 2), "done": 20},
        {"done": 19},
    ),
}
