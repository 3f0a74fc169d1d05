"""Values with which each claim of lesson b holds, and those with which it fails."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace as Stub
from typing import Any

import numpy as np
from support import lane_events

from studyguide_course.lesson import Spent
from studyguide_course.measures import overlap_s, peak, spans

IMAGE = np.zeros((540, 540), np.uint8)
WRONG = IMAGE.astype(int)
WRONG[180] = 9
FAR = WRONG.copy()
FAR[90, 90] = 9
HALO = {
    "np": np,
    "star": IMAGE,
    "blur": Stub(radius=10),
    "haloed": IMAGE,
    "untiled": IMAGE,
    "wrong": WRONG,
}
STEPS = ("load main 0 1 a", "blur w 1 2 a 0", "save main 2 3 a")
NEXT = ("load main 3 4 b", "save main 4 5 b")
MEASURES = {"overlap_s": overlap_s, "peak": peak, "spans": spans}
QUEUED = [f"enqueue c 0 1 a {n}" for n in range(5)] + [f"blur w 1 2 a {n}" for n in range(5)]
BEST: dict[Any, Spent] = {
    ("pure Python", 2): Spent(1, 1),
    ("compiled", 2): Spent(1, 0.5),
    ("nogil", 2): Spent(1, 1.9),
}
FAILED = {
    "futures": [Stub(exception=lambda: "tile 7 cannot be blurred", done=lambda: True)],
    "arrived": 17,
    "job": Stub(tiles=range(18)),
}
ENDED = {"ended_with": "tile 7 cannot be blurred", "left": []}
COPYING = Stub(submit=lambda call, sent: Stub(result=lambda: sent.copy()))
WAYS = Stub(by_value=lambda pool, job, image: image, by_name=lambda pool, job, image: image)


def b(*lines: str) -> dict[str, Any]:
    return {"b": Stub(timeline=lane_events(*lines))}


def reference(*lines: str) -> dict[str, Any]:
    return {"lesson": Stub(reference=Stub(timeline=lane_events(*lines)))}


def queued(*lines: str) -> dict[str, Any]:
    run = Stub(timeline=lane_events(*lines))
    return {"lesson": Stub(interleave=lambda cases: dict.fromkeys(cases, run))}


CLAIMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a: no stage overlaps another.": (reference(*STEPS), reference(*STEPS, "load w 2 3 b")),
    "With a halo all pixels are those of the untiled blur.": (HALO, {"haloed": IMAGE + 1}),
    "Without a halo some pixels are wrong.": (HALO, {"wrong": np.zeros_like(WRONG)}),
    "All of these are within the kernel's radius of a border.": (HALO, {"wrong": FAR}),
    "Never more tiles are kept under way than 1 + room in the queue + 2 workers.": (
        queued(*QUEUED[:3]),
        queued(*QUEUED),
    ),
    "Each load waits for the save before it.": (
        {**b(*STEPS, *NEXT), **MEASURES},
        b(*STEPS, "load main 2.5 4 b"),
    ),
    "No tile is blurred during a load or a save.": (
        {**b(*STEPS, *NEXT), **MEASURES},
        b(*STEPS, *NEXT, "blur w 3.5 4 a 1"),
    ),
    "While they hold the GIL, all threads together keep no more than one core busy.": (
        {"cores": 2, "best": BEST},
        {"best": {**BEST, ("compiled", 2): Spent(1, 1.9)}},
    ),
    "All 20 combinations give the pixels of the untiled blur.": (
        {
            "np": np,
            "pixels": {"glass.png": IMAGE},
            "blur": None,
            "blur_whole": lambda image, blur: image,
            "blurred": lambda workers, size: IMAGE,
        },
        {"blurred": lambda workers, size: IMAGE + (size == 64)},
    ),
    "All tasks have ended and one tile is missing, so the loop would hang.": (
        FAILED,
        {"arrived": 18},
    ),
    "No error was shown; a future kept it.": (
        FAILED,
        {"futures": [Stub(exception=lambda: None, done=lambda: True)]},
    ),
    "The whole run ends with the error of the failed tile.": (ENDED, {"ended_with": "no error"}),
    "No thread is left over.": (ENDED, {"left": ["worker-3"]}),
    "No load and no save overlaps anything.": (
        {**b(*STEPS, *NEXT), **MEASURES},
        b(*STEPS, "load main 2.5 4 b"),
    ),
    "What comes back has the same pixels, and is a copy.": (
        {
            "np": np,
            "pixels": {"chart.png": np.zeros((768, 768), np.uint8)},
            **HALO,
            "pool": COPYING,
        },
        {"pool": Stub(submit=lambda call, sent: Stub(result=lambda: sent))},
    ),
    "All ways give the same pixels, in each of the jobs.": (
        {
            **{"np": np, "partial": partial, "ThreadPoolExecutor": ThreadPoolExecutor, "some": 2},
            **{"processes": WAYS, "pool": None, "jobs": ("direct", "separable"), "chart": IMAGE},
        },
        {"processes": Stub(by_value=WAYS.by_value, by_name=lambda pool, job, image: image + 1)},
    ),
}
