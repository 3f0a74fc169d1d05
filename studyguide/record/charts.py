"""The timeline of one run as a chart, and what all charts share.

This module and `comparison` alone import matplotlib, and of pyplot with its global state they use
nothing. A chart is drawn from a report and its events alone: the same log gives the same bytes.
"""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from math import ceil
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke

from studyguide import __version__
from studyguide.record.report import RunReport
from studyguide.record.scene import FAULTS, LOOKS, Bar, Floats, Lane, Scene, shares
from studyguide.record.timeline import Timeline

INK, GREY, FAINT = "#1A1A1A", "#5F5F5F", "#E4E4E4"
HALO = [withStroke(linewidth=2.5, foreground="white")]
PATH: Any = {"color": "black", "linewidth": 1.6, "solid_joinstyle": "miter"}
SIGN: Any = {"size": 12, "weight": "bold", "ha": "center", "va": "center", "path_effects": HALO}
OWN: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": GREY,
    "xtick.labelcolor": GREY,
    "ytick.labelcolor": INK,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.borderpad": 0.8,
}
STYLE = ["default", OWN]  # whatever style the reader has set
DPI = 110
WIDTH, RIGHT, TOP, MAX_LANES = 9.0, 0.55, 0.75, 10.0  # inches, and so is the next line
STRIP, GAP, AXIS, LEGEND_ROW = 0.6, 0.16, 0.55, 0.23
LEGEND_COLUMNS = 5
MAX_BARS = 4000  # more become a smear: shares of time per bin are drawn instead
MAX_SIGNS = 200  # more faults are drawn as dots of one kind, without arrows
BINS = 320


class Chart(Figure):
    """A figure with alt text, which a notebook shows once, as the value of a cell's last line.

    Parameters
    ----------
    height : float
        Inches.
    title, facts : str
        Head lines, computed from the data; together they are the alt text.
    name : str
        The plain-text form: the same for each run of the same work, so that tests can compare it.
    """

    def __init__(self, height: float, title: str, facts: str, name: str) -> None:
        super().__init__(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
        self.alt, self.name = f"{title}; {facts}.", name
        self.logs: list[str] = []  # names of the logs that it is drawn from
        self.text(0.2 / WIDTH, 1 - 0.16 / height, title, size=12.5, weight="bold", va="top")
        self.text(0.2 / WIDTH, 1 - 0.43 / height, facts, color=GREY, va="top", wrap=True)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        image = base64.b64encode(self.png()).decode()
        return {"image/png": image, "text/plain": self.name}, {"image/png": {"alt": self.alt}}

    def png(self) -> bytes:
        """The picture; its metadata has its alt text, our version and the names of its logs."""
        buffer, metadata = io.BytesIO(), {"Description": self.alt}
        metadata["Software"] = f"studyguide {__version__}"
        if self.logs:
            metadata["Source"] = " ".join(self.logs)
        with style.context(STYLE):
            self.savefig(buffer, format="png", dpi=DPI, metadata=metadata)
        return buffer.getvalue()

    def key(self, handles: Sequence[Artist]) -> None:
        """Explain signs and colours at the bottom."""
        self.legend(handles=handles, ncols=LEGEND_COLUMNS, loc="lower left", handleheight=1.1)

    def place(self, names: Sequence[str], top: float, height: float) -> Axes:
        """Add axes below `top` (inches), with room for names on their left."""
        left, total = 0.4 + 0.075 * max(map(len, names)), self.get_figheight()
        corner = (left / WIDTH, 1 - (top + height) / total)
        axes = self.add_axes((*corner, 1 - (left + RIGHT) / WIDTH, height / total), axisbelow=True)
        axes.spines[:].set_visible(False)
        axes.grid(axis="x", color=FAINT, linewidth=0.8)
        axes.tick_params(length=0)
        return axes


def paint(kind: str) -> dict[str, Any]:
    """What matplotlib needs to fill an area with the look of a kind."""
    _, colour, hatch, ink = LOOKS[kind]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": ink, "linewidth": 0.0}


def patch(kind: str, label: str = "") -> Patch:
    """Explain a kind in a legend."""
    return Patch(label=label or LOOKS[kind][0], **paint(kind))


def name_of(report: RunReport) -> str:
    """Name a run in words, for example "a sequential" or "e distributed queue on kubernetes"."""
    place = f" on {report.backend}" * (report.backend != "local")
    return f"{report.approach} {report.title.lower()}".strip() + place


@style.context(STYLE)
def timeline_figure(report: RunReport) -> Chart:
    """Draw what each thread did when, how the workers spent their time, and the queue's length."""
    timeline = report.timeline
    scene = Scene(timeline)
    lanes_shown = list(dict.fromkeys(scene.shown.values()))
    rows, legend = _rows(lanes_shown), _legend(scene)
    depth = 0.55 - min(rows.values(), default=0.0)
    unit = min(max(0.27, min(0.45, 3.2 / depth)), MAX_LANES / depth)  # inches per lane
    tall = depth * unit
    height = TOP + tall + 2 * (GAP + STRIP) + AXIS + LEGEND_ROW * ceil(len(legend) / LEGEND_COLUMNS)
    work_done = f"{report.images} image{'s' * (report.images != 1)}"
    work_done += f", {report.tiles} tiles" if report.tiles else ""
    title = f"{name_of(report)}: {work_done} in {report.wall_s:.2f} s"
    name = f"Timeline of approach {report.approach}: {work_done}"
    chart = Chart(height, title, _facts(scene), name)
    chart.logs = [report.log] * bool(report.log)
    names = ["blurring", *_names(lanes_shown)]
    lanes = chart.place(names, TOP, tall)
    work = chart.place(names, TOP + tall + GAP, STRIP)
    queue = chart.place(names, TOP + tall + STRIP + 2 * GAP, STRIP)
    for axes in (lanes, work, queue):
        axes.set_xlim(0, 1.005 * (timeline.seconds or 1.0))
        axes.axvline(timeline.seconds, color=GREY, linewidth=0.8, linestyle=":", zorder=1)
        axes.tick_params(labelbottom=axes is queue)
    lanes.set_ylim(-depth, 0)
    queue.set_xlabel("seconds from the start of the run")
    _name_lanes(lanes, rows, every=ceil(0.13 / unit))
    _draw_bars(lanes, scene, rows)
    _draw_path(lanes, scene, rows)
    _draw_faults(lanes, scene, rows)
    draw_work(work, scene, f"workers\nblurring\n{scene.blurring():.0f} %")
    _draw_queue(queue, timeline)
    chart.key(legend)
    return chart


def _facts(scene: Scene) -> str:
    processes = {process for process, _ in scene.lanes}
    counts = Counter(fault.stage for fault in scene.faults)
    faults = [f"{FAULTS[stage][2]}: {counts[stage]}" for stage in FAULTS if counts[stage]]
    return (
        f"processes: {len(processes)}, lanes: {len(scene.lanes)}, workers: {len(scene.workers)}, "
        f"blurring {scene.blurring():.0f} % of the time; {', '.join(faults) or 'no faults'}"
    )


def _rows(lanes: Sequence[Lane]) -> dict[Lane, float]:
    """Lane -> its middle, in lanes from the top; several of one process stand under a headline."""
    rows: dict[Lane, float] = {}
    y = 0.0
    for _, group in groupby(lanes, key=lambda lane: lane[0]):
        threads = list(group)
        y -= 0.8 if len(threads) > 1 else 0.1
        for lane in threads:
            y -= 1.0
            rows[lane] = y + 0.5
    return rows


def _names(lanes: Sequence[Lane]) -> list[str]:
    """The thread where a process has several, else the process."""
    threads = Counter(process for process, _ in lanes)
    full = [thread if threads[process] > 1 else process for process, thread in lanes]
    return [name if len(name) <= 24 else f"{name[:10]}\u2026{name[-13:]}" for name in full]


def _name_lanes(axes: Axes, rows: dict[Lane, float], every: int) -> None:
    axes.set_yticks(list(rows.values())[::every], _names(list(rows))[::every])
    groups = [list(lanes) for _, lanes in groupby(rows, key=lambda lane: lane[0])]
    for (process, thread), *others in groups[::every]:
        if others:
            axes.text(0, rows[process, thread] + 0.5, process, weight="bold", va="bottom")


def _draw_bars(axes: Axes, scene: Scene, rows: dict[Lane, float]) -> None:
    """Draw each span, or where they are too many, shares of time."""
    if len(scene.bars) > MAX_BARS or len(rows) < len(scene.lanes):
        edges = np.linspace(0, scene.timeline.seconds, BINS + 1)
        by_row: dict[Lane, list[Bar]] = {lane: [] for lane in rows}
        for bar in scene.bars:
            by_row[scene.shown[bar.lane]].append(bar)
        for lane, bars in by_row.items():
            _pile(axes, _fitted(shares(bars, edges)), edges, rows[lane] - 0.4, 0.8)
        return
    for kind in ("held", *LOOKS):  # what happened while a tile was held lies above
        spans = [(rows[bar.lane], bar.start, bar.end) for bar in scene.bars if bar.kind == kind]
        boxes = [[(s, y - 0.4), (e, y - 0.4), (e, y + 0.4), (s, y + 0.4)] for y, s, e in spans]
        outline = Outline.make_compound_path_from_polys(np.array(boxes).reshape(-1, 4, 2))
        axes.add_patch(PathPatch(outline, gid=kind, **paint(kind)))
    wide = [bar for bar in scene.bars if bar.end - bar.start > 0.007 * axes.get_xlim()[1]]
    middles = np.array([rows[bar.lane] for bar in wide])
    starts = [bar.start for bar in wide]
    axes.vlines(starts, middles - 0.4, middles + 0.4, color="white", linewidth=0.7)


def _fitted(parts: dict[str, Floats]) -> dict[str, Floats]:
    """Shares of a row that several lanes share: its busiest moment is as high as the row."""
    most = max(1.0, float(sum(parts.values(), np.zeros(1)).max()))
    return {kind: share / most for kind, share in parts.items()}


def _pile(axes: Axes, parts: dict[str, Floats], edges: Floats, base: float, height: float) -> None:
    """Draw shares of time per bin one above the other, from the base upwards."""
    low = np.full(len(edges), base)
    for kind, share in parts.items():
        high = np.minimum(low + height * np.append(share, share[-1]), base + height)
        axes.fill_between(edges, low, high, step="post", gid=kind, **paint(kind))
        low = high


def _draw_path(axes: Axes, scene: Scene, rows: dict[Lane, float]) -> None:
    """A line under the spans that the end of the run waited for, from lane to lane."""
    parts = [(rows[scene.shown[lane]] - 0.43, times) for lane, *times in scene.path()]
    ends = [(moment, y) for y, times in parts for moment in times]
    axes.plot(*np.array(ends or np.empty((0, 2))).T, gid="path", **PATH)


def _draw_faults(axes: Axes, scene: Scene, rows: dict[Lane, float]) -> None:
    if len(scene.faults) > MAX_SIGNS:
        for stage in dict.fromkeys(fault.stage for fault in scene.faults):
            mine = [fault for fault in scene.faults if fault.stage == stage]
            times = [scene.at(fault.start) for fault in mine]
            heights = [rows[scene.shown[scene.lane(fault)]] for fault in mine]
            axes.plot(times, heights, gid=stage, **_sign(stage, 6))
        return
    near = 0.03 * axes.get_xlim()[1]  # as wide as a sign
    last: dict[Lane, tuple[float, float]] = {}  # where the sign before it on its lane stands
    for fault in scene.faults:
        lane = scene.shown[scene.lane(fault)]
        x, y = scene.at(fault.start), rows[lane]
        loser = scene.loser(fault) if fault.stage == "reclaim" else None
        if loser:
            arrow = {"arrowstyle": "-|>", "color": INK, "path_effects": HALO}
            tail = (loser[1], rows[scene.shown[loser[0]]])
            axes.annotate("", (x, y), tail, arrowprops=arrow, gid="reclaim")
        else:
            text = FAULTS[fault.stage][0] + str(fault.attempt) * (fault.stage == "retry")
            before, height = last.get(lane, (-near, 0.0))
            beside = (0.45 if height <= 0 else -0.45) if x - before < near else 0.0
            last[lane] = (x, beside)
            axes.text(x, y + beside, text, gid=fault.stage, **SIGN)


def _sign(stage: str, size: int) -> dict[str, Any]:
    """A fault as the marker of a line."""
    return {"color": INK, "linestyle": "", "marker": f"${FAULTS[stage][0]}$", "markersize": size}


def draw_work(axes: Axes, scene: Scene, name: str) -> None:
    """Draw what an average worker lane does: blurring at the bottom, waiting on top."""
    edges = np.linspace(0, scene.timeline.seconds or 1.0, BINS + 1)
    working = [bar for bar in scene.bars if bar.lane in scene.workers]
    _pile(axes, shares(working, edges, len(scene.workers)), edges, 0.0, 1.0)
    _scale(axes, name, 1, "100 %")


def _draw_queue(axes: Axes, timeline: Timeline) -> None:
    curve = [(moment - timeline.start, depth) for moment, depth in timeline.queue_depth()]
    times, depths = zip((0.0, 0), *curve, (timeline.seconds, 0), strict=True)
    axes.fill_between(times, depths, step="post", gid="queue", color=LOOKS["enqueue"][1], lw=0)
    _scale(axes, f"tiles in\nqueue\npeak {max(depths)}", max(1, *depths), str(max(1, *depths)))


def _scale(axes: Axes, name: str, top: float, label: str) -> None:
    axes.set(ylim=(0, 1.02 * top), yticks=(0, top), yticklabels=("0", label))
    axes.yaxis.tick_right()
    axes.text(-0.007, 0.5, name, transform=axes.transAxes, ha="right", va="center")


def _legend(scene: Scene) -> list[Artist]:
    """Entries for what occurs in this run."""
    kinds = {bar.kind for bar in scene.bars}
    stages = {fault.stage for fault in scene.faults}
    bars = [patch(kind) for kind in LOOKS if kind in kinds]
    signs = [
        Line2D([], [], label=FAULTS[stage][1], **_sign(stage, 8))
        for stage in FAULTS
        if stage in stages
    ]
    return [*bars, Line2D([], [], label="critical path", **PATH), *signs]
