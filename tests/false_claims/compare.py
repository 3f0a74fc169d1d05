"""Values with which each claim of the comparison holds, and those with which it fails."""

from types import SimpleNamespace as Stub
from typing import Any


def run(letter: str, tiles: int = 150, digest: str = "pixels") -> Stub:
    return Stub(approach=letter, tiles=tiles, pixels=lambda: {"chart.png": digest})


SEVEN = {
    "base": run("a", 0),
    "seven": [run(letter, 0 if letter in "ad" else 150) for letter in "abcdefg"],
}
SAFE, LOSSY = Stub(ok=True, lost_tiles=0), Stub(ok=False, lost_tiles=1)
KILLED = {"saved": dict.fromkeys("abc", 1), "killed": {"e": LOSSY, "f": SAFE, "g": SAFE}}
ON_DASK = {
    "lesson": Stub(images=Stub(iterdir=lambda: [Stub(name="chart.png")])),
    "images": Stub(load=lambda path: path.name, sha256=lambda pixels: pixels),
    "on_dask_threads": lambda pixels: "pixels",
    "base": run("a"),
}
MOVED = {"bytes_moved": {**dict.fromkeys("abcd", 0), "e": 5, "f": 3, "g": 3}}
HOUR = {
    "hour": {
        "one": ([5, 0], [1, 1], 9),
        "twenty": ([0, 0], [20, 20], 0),
        "following the queue": ([2, 0], [1, 3], 1),
    }
}

CLAIMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "All of b, c, e, f and g cut as many tiles.": (
        SEVEN,
        {"seven": [*SEVEN["seven"][:-1], run("g", 149)]},
    ),
    "All seven give the same pixels.": (
        SEVEN,
        {"seven": [*SEVEN["seven"][:-1], run("g", digest="others")]},
    ),
    "None of a, b and c has saved both images.": (KILLED, {"saved": {"a": 1, "b": 2, "c": 1}}),
    "Only f and g have saved both images after the kill.": (
        KILLED,
        {"killed": {"e": SAFE, "f": SAFE, "g": SAFE}},
    ),
    "Only e has lost a tile.": (
        KILLED,
        {"killed": {"e": Stub(ok=False, lost_tiles=0), "f": SAFE, "g": SAFE}},
    ),
    "Dask's map_overlap gives the same pixels as a.": (
        ON_DASK,
        {"on_dask_threads": lambda pixels: "others"},
    ),
    "On Dask no tile is lost, and all pixels are those of a.": (
        {"base": run("a"), "on_dask": Stub(**vars(run("dask")), ledger={"assembled": 150})},
        {"on_dask": Stub(**vars(run("dask")), ledger={"assembled": 149})},
    ),
    "No pixels move between processes in a to d.": (MOVED, {"bytes_moved": {"a": 1}}),
    "e moves more bytes than f and g.": (
        MOVED,
        {"bytes_moved": {**MOVED["bytes_moved"], "g": 5}},
    ),
    "In the simulation all three do all tiles in the hour.": (
        HOUR,
        {"hour": {**HOUR["hour"], "one": ([5, 5], [1, 1], 9)}},
    ),
    "Following the queue costs less than twenty, and waits are shorter than with one.": (
        HOUR,
        {"hour": {**HOUR["hour"], "following the queue": ([0], [1], 9)}},
    ),
}
