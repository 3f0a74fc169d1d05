"""Values with which each claim of lesson a holds, and those with which it fails."""

from types import SimpleNamespace as Stub
from typing import Any

import numpy as np
from support import lane_events

from studyguide import gaussian_blur
from studyguide_course.measures import Versus, covered, spans

DOT = np.zeros((9, 9), np.uint8)
DOT[4, 4] = 255
KERNEL = {"np": np, "dot": DOT, "gaussian_blur": gaussian_blur}
GREY = np.full((64, 64), 200, np.uint8)
DARK = GREY.copy()
DARK[0] = 57
EDGES = {"np": np, "clamped": GREY, "zeros": DARK}
CHART = np.arange(40 * 30, dtype=np.uint8).reshape(40, 30)
FORMULA = {
    "np": np,
    "chart": CHART,
    "saved": CHART,
    "by_formula": lambda image, y, x: float(image[y, x]),
}
DIGESTS = {f"{n}.png": f"{n}" for n in range(5)}
TWO_RUNS = {
    "lesson": Stub(reference=Stub(pixels=lambda: DIGESTS)),
    "report": Stub(pixels=lambda: DIGESTS),
}
STEPS = ("load main 0 1 a", "blur main 1 2 a", "save main 2 3 a")
SPENT = {(5, "direct"): 0.2, (5, "separable"): 0.1, (41, "direct"): 5.0, (41, "separable"): 0.2}
METHODS = {
    "gaussian_blur": lambda image, size, method: np.array([method == "direct"]),
    "square": None,
    "cpu_s": SPENT,
    "Versus": Versus,
}
SAVED = Stub(pixels=lambda: {"bubbles.png": "", "dunes.png": ""})


def counted() -> Any:
    return np.array([2000, 2000])


class Folder:
    """A folder of files, under any name that is asked for."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __truediv__(self, part: str) -> "Folder":
        return self

    def iterdir(self) -> list[Stub]:
        return [Stub(name=name) for name in self.names]


CLAIMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "The blurred dot is the formula's kernel.": (
        KERNEL,
        {"gaussian_blur": lambda image, kernel_size: np.roll(image, 1)},
    ),
    "Clamping leaves the grey area as it is.": (EDGES, {"clamped": DARK}),
    "Zeros darken it at the edge.": (EDGES, {"zeros": GREY}),
    "All 504 pixels are the formula's, rounded.": (FORMULA, {"saved": CHART ^ 1}),
    "Two runs give the same pixels, in all five images.": (
        TWO_RUNS,
        {"report": Stub(pixels=lambda: DIGESTS | {"1.png": "2"})},
    ),
    "Nothing overlaps: one stage is open at a time.": (
        {"report": Stub(timeline=lane_events(*STEPS))},
        {"report": Stub(timeline=lane_events(*STEPS, "load other 2 3 b"))},
    ),
    "The stages take no longer than the run.": (
        {
            "run": lane_events(*STEPS),
            "stages": ("load", "blur", "save"),
            "covered": covered,
            "spans": spans,
        },
        {"covered": lambda times: 3.1},
    ),
    "The methods differ by no more than one level of 255.": (
        METHODS,
        {"gaussian_blur": lambda image, size, method: np.array([2 * (method == "direct")])},
    ),
    "The wider kernel gains more.": (METHODS, {"cpu_s": SPENT | {(41, "separable"): 3.0}}),
    "One thread keeps no more than one core busy.": (
        {"once": Stub(cores=0.98)},
        {"once": Stub(cores=1.9)},
    ),
    "Only bubbles.png is done when the loop has failed.": (
        {"done": ["bubbles.png"]},
        {"done": ["bubbles.png", "cut.png", "dunes.png"]},
    ),
    "Both good images are saved.": (
        {"mixed": "mixed", "lesson": Stub(run=lambda images: SAVED)},
        {"lesson": Stub(run=lambda images: Stub(pixels=lambda: {"bubbles.png": ""}))},
    ),
    "They have the same pixels as in the clean run.": (
        {"broken": SAVED, "pixels": {"bubbles.png": "", "dunes.png": ""}},
        {"pixels": {"bubbles.png": "", "dunes.png": "other"}},
    ),
    "No half-written file is left over.": (
        {"lesson": Stub(folder=Folder("chart.png"))},
        {"lesson": Stub(folder=Folder("chart.png", ".chart.png.tmp"))},
    ),
    "Blocks of each side give the same pixels.": (
        {"np": np, "below": Stub(turn=lambda image, side, out: np.copyto(out, image.T))},
        {"below": Stub(turn=lambda image, side, out: np.copyto(out, 0))},
    ),
    "All counts are right, in one line too.": (
        {"below": Stub(COUNT=2), "counted": {"one": counted, "two": counted}},
        {"counted": {"one": lambda: np.array([2000, 1999]), "two": counted}},
    ),
}
