"""Values with which each claim of lesson d holds, and those with which it fails."""

from types import SimpleNamespace as Stub
from typing import Any

BUBBLES = Stub(pixels=lambda: {"bubbles.png": "digest"})
BOTH = Stub(pixels=lambda: {"bubbles.png": "digest", "chart.png": "digest"})

CLAIMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "d takes longer than a.": (
        {"d_over_a": Stub(extra_s=0.7)},
        {"d_over_a": Stub(extra_s=-0.1)},
    ),
    "The interpreter alone takes less than half of a start; loading takes the rest.": (
        {"until": [0.01, 0.09, 0.35, 0.5, 0.7]},
        {"until": [0.4, 0.5, 0.6, 0.7, 0.7]},
    ),
    "The start is a smaller share of the larger job's processor time.": (
        {"shares": [0.9, 0.5]},
        {"shares": [0.5, 0.5]},
    ),
    "The image that was saved before the kill was done again, the other one once.": (
        {"saved": ["bubbles.png", "bubbles.png", "chart.png"]},
        {"saved": ["bubbles.png", "chart.png"]},
    ),
    "None of its results survives.": (
        {"stand_in": Stub(stdout="", returncode=-9)},
        {"stand_in": Stub(stdout="{'bubbles.png': 'blurred'}", returncode=-9)},
    ),
    "Only the damaged image failed, the other was saved, and the role ended with exit code 1.": (
        {"ended": Stub(returncode=1), "report": BUBBLES},
        {"report": BOTH},
    ),
}
