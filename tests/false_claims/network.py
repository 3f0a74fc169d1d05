"""Values with which each claim of the network's page holds, and those with which it fails."""

from types import SimpleNamespace as Stub
from typing import Any

CASES = [("e", latency_s, workers) for latency_s, workers in ((0.0, 2), (0.05, 2), (0.05, 8))]
ASKED = {"coordinator-0": 66, "assembler-0": 78}
TRIPS = {
    "runs": {case: Stub(tiles=20) for case in CASES},
    "trips": dict.fromkeys(CASES, ASKED),
}
PARTED = {"parted": Stub(ledger={"lost": 0}), "deaths": 0, "took_over": [1], "late": [1]}

CLAIMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "The coordinator and the assembler of e each make two round trips or more per tile.": (
        TRIPS,
        {"trips": TRIPS["trips"] | {CASES[-1]: ASKED | {"assembler-0": 39}}},
    ),
    "Nobody died, the tile was taken over, its late result was dropped, and no tile is lost.": (
        PARTED,
        {"late": []},
    ),
    "The plain writer lost 40 acknowledged writes; the careful one lost none.": (
        {"plain": Stub(lost=40), "careful": Stub(lost=0)},
        {"careful": Stub(lost=1)},
    ),
}
