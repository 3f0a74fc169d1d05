"""The timeline, interactive: hover, zoom, and follow a tile from cause to effect.

Python decides what is drawn, view.js draws it. Where there are too many spans in sight, it is sent
the shares of time in each bin instead, and new ones whenever the reader zooms.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from matplotlib import style

from studyguide.record import looks
from studyguide.record.charts import BINS, MAX_BARS, draw_work, name_of, timeline_figure
from studyguide.record.looks import FAULTS, GAP, LOOKS, STRIP, Chart, patch
from studyguide.record.report import RunReport
from studyguide.record.scene import Scene, elapsed
from studyguide.record.timeline import Event
from studyguide_course.book import MIME, pack

KINDS = list(LOOKS)


def explore(report: RunReport, other: RunReport | None = None) -> "RunView":
    """Show the timeline of a run to explore, or of two runs on one time axis.

    A reader without widgets sees a static chart; the book explores what is stored beside it.
    """
    reports = [report] if other is None else [report, other]
    view = RunView([Drawing(name_of(run), Scene(run.timeline)) for run in reports])
    view.still = timeline_figure(report) if other is None else side_by_side(reports)
    return view


@style.context(looks.STYLE)
def side_by_side(reports: Sequence[RunReport]) -> Chart:
    """Draw how the workers of several runs spent their time, a strip each, on one time axis."""
    scenes = [Scene(report.timeline) for report in reports]
    names = [name_of(report) for report in reports]
    seen = {bar.kind for scene in scenes for bar in scene.bars if bar.lane in scene.workers}
    kinds = [kind for kind in LOOKS if kind in seen]
    title = "What an average worker did, on one time axis"
    said = [f"{name} {report.wall_s:.2f} s" for name, report in zip(names, reports, strict=True)]
    height = Chart.around(len(reports) * (STRIP + GAP), len(kinds))
    chart = Chart(height, title, ", ".join(said), f"{title}: {len(reports)} runs")
    for n, (name, scene) in enumerate(zip(names, scenes, strict=True)):
        axes = chart.place(names, looks.TOP + n * (STRIP + GAP), STRIP)
        draw_work(axes, scene, f"{name}\n{scene.blurring():.0f} %")
        axes.axvline(scene.timeline.seconds, color=looks.GREY, linewidth=0.8, linestyle=":")
        axes.set_xlim(0, 1.02 * max(scene.timeline.seconds for scene in scenes))
        axes.tick_params(labelbottom=n == len(reports) - 1)
    axes.set_xlabel("seconds from the start of each run")
    chart.key([patch(kind) for kind in kinds])
    return chart


class RunView(anywidget.AnyWidget):
    """Runs on one time axis, drawn by view.js from top to bottom."""

    _esm, _css = (Path(__file__).with_name(name) for name in ("view.js", "view.css"))
    looks = traitlets.List([list(LOOKS[kind]) for kind in KINDS]).tag(sync=True)
    signs = traitlets.Dict({stage: list(look[:2]) for stage, look in FAULTS.items()}).tag(sync=True)
    runs: traitlets.List[Any] = traitlets.List().tag(sync=True)
    window = traitlets.List([0.0, 0.0]).tag(sync=True)  # what is in sight; set by view.js
    alt = traitlets.Unicode().tag(sync=True)

    def __init__(self, drawings: "Sequence[Drawing]" = (), **traits: Any) -> None:
        super().__init__(**traits)
        self.drawings = drawings
        self.still: Chart | None = None
        self.observe(self._look, "window")
        self._look()

    def _look(self, _: Any = None) -> None:
        start, end = self.window
        self.runs = [drawing.seen(start, end or float("inf")) for drawing in self.drawings]

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle, about = super()._repr_mimebundle_() or ({}, {})
        if self.still is None:
            names = ", ".join(drawing.name for drawing in self.drawings)
            return bundle | {"text/plain": f"Live in JupyterLab: {names}"}, about
        self.alt = self.still.alt
        chart, description = self.still._repr_mimebundle_()
        return bundle | chart | {MIME: pack(self.stored())}, about | description

    def stored(self) -> dict[str, Any]:
        """What view.js needs to draw the whole runs without a kernel."""
        whole = [drawing.seen(0.0, float("inf")) for drawing in self.drawings]
        return {"looks": self.looks, "signs": self.signs, "alt": self.alt, "runs": whole}


class Drawing:
    """What view.js draws of one run under a name; one that has ended has a critical path."""

    def __init__(self, name: str, scene: Scene, ended: bool = True) -> None:
        self.name, self.scene, self.ended = name, scene, ended
        self.row = {lane: n for n, lane in enumerate(scene.lanes)}
        self.images = list(dict.fromkeys(event.image for event in scene.timeline.events))
        place = {image: n for n, image in enumerate(self.images)}
        rows = []
        for bar in sorted(scene.bars, key=lambda bar: bar.start):
            what = (place[bar.span.image], bar.span.tile, bar.span.attempt)
            rows.append((KINDS.index(bar.kind), self.row[bar.lane], bar.start, bar.end, *what))
        self.bars = np.array(rows or np.empty((0, 7)), dtype=float)

    def seen(self, start: float, end: float) -> dict[str, Any]:
        """What is to be drawn when the times from `start` to `end` are in sight."""
        timeline, bars = self.scene.timeline, self.bars
        near = (bars[:, 3] >= start) & (bars[:, 2] <= end)
        many = near.sum() > MAX_BARS
        tiles = bars[:, 4] * 1e9 + bars[:, 5]
        # All of a tile's spans are sent along, so that it can be followed out of sight.
        chosen = bars[near | (np.isin(tiles, tiles[near]) & (bars[:, 5] >= 0))][:MAX_BARS]
        end = min(end, timeline.seconds)
        return {
            "name": self.name,
            "lanes": self._names(),
            "workers": [self.row[lane] for lane in self.row if lane in self.scene.workers],
            "blurring": self.scene.blurring(),
            "images": self.images,
            "end": timeline.seconds,
            "dense": len(bars) > MAX_BARS,
            "bars": [] if many else np.round(chosen, 5).tolist(),
            "shares": self._shares(start, end) if many else None,
            "path": [] if many else self.path,
            "marks": self.marks,
            "queue": self._queue(start, end),
        }

    def _names(self) -> list[str]:
        threads = Counter(process for process, _ in self.row)
        full = "{0} {1}" if len(threads) > 1 else "{1}"
        return [full.format(*lane) if threads[lane[0]] > 1 else lane[0] for lane in self.row]

    def _shares(self, start: float, end: float) -> dict[str, Any]:
        """For each lane and kind, its share of the time in each bin."""
        edges = np.linspace(start, end, BINS + 1)
        found = []
        for lane, kind in sorted({(int(bar[1]), int(bar[0])) for bar in self.bars}):
            mine = self.bars[(self.bars[:, 1] == lane) & (self.bars[:, 0] == kind)]
            spent = np.diff(elapsed(mine[:, 2], edges) - elapsed(mine[:, 3], edges))
            found.append((lane, kind, np.round(spent * BINS / (end - start), 3).tolist()))
        return {"start": start, "end": end, "of": found}

    @cached_property
    def path(self) -> list[tuple[int, float, float]]:
        """The critical path: row, start and end of each part."""
        parts = self.scene.path()[:MAX_BARS] if self.ended else []
        return [(self.row[lane], start, end) for lane, start, end in parts]

    @cached_property
    def marks(self) -> list[dict[str, Any]]:
        """Signs and arrows of what went wrong."""
        return [self._mark(fault) for fault in self.scene.faults[:MAX_BARS]]

    def _mark(self, fault: Event) -> dict[str, Any]:
        loser = self.scene.loser(fault) if fault.stage == "reclaim" else None
        sign, label, _ = FAULTS[fault.stage]
        return {
            "sign": sign + str(fault.attempt) * (fault.stage == "retry"),
            "text": label + (f", tile {fault.tile} of {fault.image}" if fault.tile >= 0 else ""),
            "lane": self.row[self.scene.lane(fault)],
            "at": self.scene.at(fault.start),
            "from": loser and [self.row[loser[0]], loser[1]],
            "stage": fault.stage,
            "tile": [fault.image, fault.tile],
        }

    @cached_property
    def depths(self) -> list[tuple[float, int]]:
        """The queue's length after each change."""
        return [(self.scene.at(moment), n) for moment, n in self.scene.timeline.queue_depth()]

    def _queue(self, start: float, end: float) -> list[tuple[float, int]]:
        """The queue's length over time; the longest in each bin where it changes too often."""
        if len(self.depths) <= MAX_BARS:
            return self.depths
        times, depths = np.array(self.depths).T
        edges = np.searchsorted(times, np.linspace(start, end, BINS + 1))
        return [
            (float(times[a]), int(depths[a:b].max())) for a, b in pairwise(edges.tolist()) if b > a
        ]
