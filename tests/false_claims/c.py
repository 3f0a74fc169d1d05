"""Values with which each claim of lesson c holds, and those with which it fails."""

from types import SimpleNamespace as Stub
from typing import Any

from support import lane_events

from studyguide.record.timeline import Timeline
from studyguide_course.lesson import Spent
from studyguide_course.measures import Little, in_memory, lower_bound, overlap_s, peak, spans

STEPS = {"overlap_s": overlap_s, "peak": peak, "spans": spans}
ONE_LANE = ("load main 0 1 a", "blur w 1 2 a 0", "save main 2 3 a")
APART = {"flawed": Stub(timeline=lane_events(*ONE_LANE, "load main 3 4 b")), **STEPS}
HUNG = {"events": lane_events("load l 0 1 a").events, "waiting": ["loader-0", "loader-1"]}
SAVED = {"events": lane_events(*ONE_LANE).events}
PIPELINE = ("load l 0 1 a", "enqueue c 1 2 a 0", "wait w 1 2 a 0", "blur w 2 3 a 0")
WHOLE = (*PIPELINE, "transfer w 3 4 a 0", "assemble s 3 4 a 0", "save s 4 5 a")
IMAGES = {f"{n}.png": f"{n}" for n in range(5)}
KILLED = {
    "size": 61,
    "folder": Stub(glob=lambda pattern: [Stub(name="1.png")] if "png" in pattern else []),
    "images": Stub(load=lambda path: path.name[0], sha256=lambda pixels: pixels),
    "lesson": Stub(run=lambda kernel_size: Stub(pixels=lambda: IMAGES)),
}
WITH_LOG = Stub(glob=lambda pattern: [Stub(name="1.png")] if "png" in pattern else ["c.json"])

PATH: dict[str, Any] = {
    "path": [Stub(stage="load"), Stub(stage="blur"), Stub(stage="save")],
    "on_path": {"load": 1, "save": 3},
    "c": Stub(timeline=lane_events(*WHOLE)),
}


def flawed(*lines: str) -> dict[str, Any]:
    return {"flawed": Stub(timeline=lane_events(*lines))}


def c(*lines: str, **fields: Any) -> dict[str, Any]:
    return {"c": Stub(timeline=lane_events(*lines), **fields)}


def runs(cpu: float) -> dict[str, Any]:
    run = Stub(timeline=lane_events(*WHOLE, cpu=cpu), machine={"cores": 1})
    return {name: Stub(approach=name, **vars(run)) for name in "abc"}


def held(*lines: str) -> dict[str, Any]:
    return {"held": {1: Stub(timeline=lane_events(*lines))}}


CLAIMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "b: one thread loads and saves.": (APART, flawed(*ONE_LANE, "load other 3 4 b")),
    "b: no load overlaps a save.": (APART, flawed(*ONE_LANE, "load main 2.5 4 b")),
    "b: all workers wait during a load or a save.": (
        APART,
        flawed(*ONE_LANE, "blur w 2.5 3 b 0"),
    ),
    "c: the first blur starts before the last load ends.": (
        {**c("load l 0 1 a", "blur w 1 2 a 0", "load l 1 2 b"), "spans": spans},
        c("load l 0 1 a", "load l 1 2 b", "blur w 2 3 a 0"),
    ),
    "c: never more than 3 images are kept in memory.": (
        {**c(*WHOLE, settings={"images_in_memory": 3}), "peak": peak},
        c(
            *(f"load l{n} 0 1 {n}" for n in range(4)),
            *(f"save s{n} 1 2 {n}" for n in range(4)),
            settings={"images_in_memory": 3},
        ),
    ),
    "No run is shorter than its lower bound.": (
        {**runs(cpu=0.2), "lower_bound": lower_bound},
        {"lower_bound": lambda timeline, cores: Stub(seconds=5.1)},
    ),
    "Encoding takes longer than the fast blur, with both encoders.": (
        {"best": {"blur": Spent(1, 0.1), "encode": Spent(1, 0.2), "fast": Spent(1, 0.3)}},
        {"best": {"blur": Spent(1, 0.1), "encode": Spent(1, 0.2), "fast": Spent(1, 0.1)}},
    ),
    "Never more images are kept in memory than there are places.": (
        {
            "lesson": Stub(
                interleave=lambda cases: {n: Stub(timeline=lane_events(*WHOLE)) for n in cases},
                check=str,
            ),
            "peak": peak,
            "in_memory": in_memory,
        },
        {"peak": lambda times: 2},
    ),
    "Every image is saved before the next one is loaded.": (
        {**held(*ONE_LANE, "load l 3 4 b", "save s 4 5 b"), "in_memory": in_memory},
        held(*ONE_LANE, "load l 2 4 b", "save s 4 5 b"),
    ),
    "Neither of the two good images is saved.": ({**HUNG, "Timeline": Timeline}, SAVED),
    "Both loaders still wait for a place.": (
        {**HUNG, "Timeline": Timeline},
        {"waiting": ["loader-0"]},
    ),
    "With the library's loader both good images are saved.": (
        {
            "dirty": "dirty",
            "lesson": Stub(
                run=lambda images: Stub(
                    failed_images=[], pixels=lambda: {"bubbles.png": "", "dunes.png": ""}
                )
            ),
        },
        {"lesson": Stub(run=lambda images: Stub(failed_images=[], pixels=dict))},
    ),
    "The path begins with a load and ends with a save.": (PATH, {"path": PATH["path"][:-1]}),
    "Its stages take no longer than the run.": (PATH, {"on_path": {"load": 3, "save": 3}}),
    "Mean depth is rate times mean wait, neither more nor less.": (
        {"law": Little(depth=10, rate=5, wait_s=2)},
        {"law": Little(depth=10, rate=5, wait_s=2.1)},
    ),
    "Some images are saved, others are missing.": (
        KILLED,
        {"folder": Stub(glob=lambda pattern: [])},
    ),
    "What is saved is whole.": (
        KILLED,
        {"images": Stub(load=lambda path: path.name, sha256=lambda pixels: pixels)},
    ),
    "No log is left of what was done.": (KILLED, {"folder": WITH_LOG}),
    "At each rate every tile that arrived was blurred.": (
        {"tasks": [0, 1], "late": {0.5: [0.1, 0.2], 0.9: [0.1, 0.3]}},
        {"late": {0.5: [0.1, 0.2], 0.9: [0.1]}},
    ),
    "In the model p99 rises with every step of the load.": (
        {"modelled": {0.5: (1, 2), 0.9: (1, 3)}},
        {"modelled": {0.5: (1, 3), 0.9: (1, 2)}},
    ),
    "Largest first takes no longer than 7/6 of the best schedule.": (
        {"lpt": 7.0, "best": 6.0},
        {"lpt": 7.1},
    ),
}
