"""Charts of runs: the timeline of one, the comparison of several.

The only module that imports matplotlib, and of pyplot with its global state it uses nothing. A
chart is drawn from a report and its events alone: the same log gives the same bytes.
"""

import base64
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from math import ceil, isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from studyguide import __version__
from studyguide.errors import UsageError
from studyguide.machinery import files
from studyguide.record.measures import recovery_s, start_s
from studyguide.record.report import BASELINE, KILLED, RunReport, newest_log, read_log
from studyguide.record.timeline import SPANS, Event, Timeline, critical_path

logger = logging.getLogger(__name__)

Lane = tuple[str, str]  # (process, thread)
Segment = tuple[Lane, float, float]  # lane, start and end in seconds from the start of the run
Floats = NDArray[np.float64]

# Kind of bar -> (legend, colour, hatch, ink of the hatch): the same in every chart, and never
# colour alone. Colours: Okabe and Ito, https://jfly.uni-koeln.de/color/. Shares of time are piled
# up in this order, so that blurring stands on the ground line and waiting comes last.
LOOKS = {
    "blur": ("blur", "#0072B2", "", "white"),
    "load": ("load", "#56B4E9", "////", "white"),
    "split": ("split", "#F0E442", "....", "#7A7000"),
    "enqueue": ("enqueue", "#CC79A7", "\\\\\\\\", "white"),
    "transfer": ("transfer", "#E69F00", "xxxx", "white"),
    "assemble": ("assemble", "#009E73", "||||", "white"),
    "save": ("save", "#D55E00", "----", "white"),
    "start": ("process start", "#B9B9B9", "+++", "white"),
    "held": ("tile held until death", "white", "xxxx", "#444444"),
    "backoff": ("wait: back-off", "#EEEEEE", "oo", "#ABABAB"),
    "full": ("wait: queue full", "#EEEEEE", "\\\\", "#ABABAB"),
    "silence": ("wait: silence", "#E2E2E2", "**", "#8A8A8A"),
    "wait": ("wait: queue empty", "#F1F1F1", "..", "#D6D6D6"),
}
CAUSES = ("backoff", "silence")  # of a wait, as it is recorded; without one the queue was empty
# Fault -> (sign, legend, several of them).
FAULTS = {
    "death": ("\u2716", "thread died", "dead threads"),
    "reclaim": ("\u2192", "tile reclaimed", "reclaims"),
    "retry": ("\u21bb", "retry after attempt n", "retries"),
    "duplicate": ("\u271a", "tile done twice", "duplicates"),
    "dead": ("\u25c6", "dead letter", "dead letters"),
    "lost": ("\u25cb", "tile lost", "lost tiles"),
    "failed": ("\u25bc", "image failed", "failed images"),
}

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
BAR, HEADLINE = 0.4, 0.45
LEGEND_COLUMNS = 5
AFTER = "After one killed worker"
MAX_BARS = 4000  # more become a smear: shares of time per bin are drawn instead
MAX_ROWS = 320  # more lanes are too thin to see: those of one role share a row
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
        self.sources: list[str] = []  # names of the logs that it is drawn from
        self.text(0.2 / WIDTH, 1 - 0.16 / height, title, size=12.5, weight="bold", va="top")
        self.text(0.2 / WIDTH, 1 - 0.43 / height, facts, color=GREY, va="top", wrap=True)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        image = base64.b64encode(self.png()).decode()
        return {"image/png": image, "text/plain": self.name}, {"image/png": {"alt": self.alt}}

    def png(self) -> bytes:
        """The picture; its metadata has its alt text, our version and the names of its logs."""
        buffer, metadata = io.BytesIO(), {"Description": self.alt}
        metadata["Software"] = f"studyguide {__version__}"
        if self.sources:
            metadata["Source"] = " ".join(self.sources)
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


def draw_all(logs: Path, folder: Path, stems: Sequence[str]) -> list[Path]:
    """Draw `<folder>/<stem>.png` from the newest log of each approach, and `comparison.png`.

    Runs of which a worker was killed have charts of their own, and a panel of the comparison.

    Returns
    -------
    list of Path
        What was drawn; an approach without a log is left out, with a warning.
    """
    found: dict[str, tuple[str, RunReport]] = {}  # stem -> name of its log, and what is in it
    for stem in (*stems, *(stem + KILLED for stem in stems)):
        try:
            path = newest_log(logs, stem)
        except UsageError as error:
            if not stem.endswith(KILLED):
                logger.warning("No chart of %s: %s", stem, error)
            continue
        found[stem] = path.name, read_log(path)
    charts: dict[Path, Chart] = {}
    for stem, (name, report) in found.items():
        charts[folder / f"{stem}.png"] = chart = timeline_figure(report)
        chart.sources = [name]
    whole = [report for stem, (_, report) in found.items() if not stem.endswith(KILLED)]
    if whole:
        killed = [report for stem, (_, report) in found.items() if stem.endswith(KILLED)]
        charts[folder / "comparison.png"] = chart = comparison_figure(whole, killed)
        chart.sources = [name for name, _ in found.values()]
    for path, chart in charts.items():
        with files.atomic(path) as file:
            file.write(chart.png())
    return list(charts)


# --- what is to be drawn -----------------------------------------------------------------------


class Bar(NamedTuple):
    """A span as it is drawn; times in seconds from the start of the run."""

    kind: str  # a key of LOOKS
    lane: Lane
    start: float
    end: float
    span: Event


class Scene:
    """The lanes, bars and faults of one run.

    `shown` maps each lane to the one in whose row it is drawn: itself, or where they are too many
    one that stands for all lanes of its role.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.faults = timeline.of(*FAULTS)
        self.spans: dict[Lane, list[Event]] = {}
        self.threads: dict[str, list[Lane]] = {}  # process -> its lanes that did anything
        for span in timeline.of(*SPANS):
            if span.stage != "start":
                self._add(_lane(span), span)
        for span in timeline.of("start"):  # a process starts for all of its threads
            for lane in list(self.threads.get(span.process, [_lane(span)])):
                self._add(lane, span)
        self.held = [bar for death in timeline.of("death") for bar in self._held(death)]
        self.bars = [*self.held]
        for lane, spans in self.spans.items():
            self.bars += [bar for span in spans for bar in self._parts(lane, span)]
        every = {*self.spans, *map(self.lane, self.faults)}
        self.lanes = sorted(every, key=self._order())
        self.shown = _shown(self.lanes)
        self.workers = {bar.lane for bar in self.bars if bar.kind in ("blur", "held")}

    def _add(self, lane: Lane, span: Event) -> None:
        if lane not in self.spans:
            self.threads.setdefault(lane[0], []).append(lane)
        self.spans.setdefault(lane, []).append(span)

    def _parts(self, lane: Lane, span: Event) -> Iterator[Bar]:
        """A span as bars: what of it was a wait for room in a full queue stands apart."""
        start, end = self.at(span.start), self.at(span.end)
        kind = str(span.detail.get("cause")) if span.stage == "wait" else span.stage
        if span.stage in ("enqueue", "transfer"):
            begun, start = start, min(end, start + max(0.0, span.detail.get("full_s", 0.0)))
            if start > begun:
                yield Bar("full", lane, begun, start, span)
        yield Bar(kind if kind in (*SPANS, *CAUSES) else "wait", lane, start, end, span)

    def at(self, moment: float) -> float:
        """Seconds from the start of the run."""
        return moment - self.timeline.start

    def blurring(self) -> float:
        """Percentage of the run that a worker lane spent blurring on average."""
        busy = sum(bar.end - bar.start for bar in self.bars if bar.kind == "blur")
        return 100 * busy / (len(self.workers) * self.timeline.seconds) if busy else 0.0

    def lane(self, fault: Event) -> Lane:
        """Where a fault stands: on its own lane if that did anything, else on its process's."""
        own = _lane(fault)
        if own in self.spans or any(bar.lane == own for bar in self.held):
            return own
        held = [bar.lane for bar in self.held if bar.lane[0] == fault.process]
        return (held + self.threads.get(fault.process, []) + [own])[0]

    def path(self) -> list[Segment]:
        """The critical path, steps that follow each other on a lane taken together."""
        parts: list[Segment] = []
        steps = critical_path(self.timeline)
        for n, step in enumerate(steps):
            lane, start, end = _lane(step), self.at(step.start), self.at(step.end)
            if lane not in self.spans:  # a process started: it goes on with the thread that follows
                after = (_lane(later) for later in steps[n + 1 : n + 2])
                known = (own for own in after if own[0] == lane[0] and own in self.spans)
                lane = next(known, self.lane(step))
            if parts and parts[-1][0] == lane:
                start = parts.pop()[1]
            parts.append((lane, start, end))
        return parts

    def loser(self, reclaim: Event) -> tuple[Lane, float] | None:
        """The lane that a tile was taken from, and when that lane went silent."""
        name, tile = reclaim.detail.get("from_worker"), (reclaim.image, reclaim.tile)
        had = [
            (name in (*_lane(wait), "/".join(_lane(wait))), self.at(wait.end), _lane(wait))
            for wait in self._deliveries.get(tile, ())
            if wait.end < reclaim.start
        ]
        if not had:
            return None
        _, silent, lane = max(had)
        deaths = [bar.end for bar in self.held if (bar.lane, bar.start) == (lane, silent)]
        return lane, max(deaths, default=silent)

    @cached_property
    def _deliveries(self) -> dict[tuple[str, int], list[Event]]:
        found: dict[tuple[str, int], list[Event]] = {}
        for wait in self.timeline.of("wait"):
            found.setdefault((wait.image, wait.tile), []).append(wait)
        return found

    def _order(self) -> Callable[[Lane], Any]:
        """Lanes in the order in which work reaches their roles, then by number."""
        work = self.timeline.of(*(stage for stage in SPANS if stage not in ("start", "wait")))
        names = dict.fromkeys(name for span in work for name in _lane(span))
        roles: dict[str, int] = {}
        for name in names:
            roles.setdefault(_role(name), len(roles))

        def place(name: str) -> tuple[int, str, int]:
            return roles.get(_role(name), len(roles)), *_numbered(name)

        return lambda lane: [place(name) for name in lane]

    def _held(self, death: Event) -> Iterator[Bar]:
        """The tiles that were delivered to a process and not handed over when it died."""
        for lane in self.threads.get(death.process, ()):
            past = [span for span in self.spans[lane] if span.end <= death.start and span.tile >= 0]
            turns = [span for span in past if span.stage in ("wait", "transfer")]
            if turns and turns[-1].stage == "wait":
                yield Bar("held", lane, self.at(turns[-1].end), self.at(death.start), turns[-1])


def _shown(lanes: Sequence[Lane]) -> dict[Lane, Lane]:
    """Lane -> the lane in whose row it is drawn."""
    if len(lanes) <= MAX_ROWS:
        return {lane: lane for lane in lanes}
    roles = [(_role(process), _role(thread)) for process, thread in lanes]
    processes: dict[str, set[str]] = {}
    for process, _ in lanes:
        processes.setdefault(_role(process), set()).add(process)
    number, shown = Counter(roles), {}
    for lane, role in zip(lanes, roles, strict=True):
        process = lane[0] if len(processes[role[0]]) == 1 else f"{role[0]} (all)"
        thread = f"{role[1]} ({number[role]:,} lanes)" if number[role] > 1 else lane[1]
        shown[lane] = (process, thread)
    return shown


def _lane(event: Event) -> Lane:
    return event.process, event.lane


def _numbered(name: str) -> tuple[str, int]:
    """Split `worker-10` into its role and its number."""
    role = name.rstrip("0123456789")
    return role, int(name[len(role) :] or 0)


def _role(name: str) -> str:
    """`worker` of `worker-10`, `assembler` of `assembler cat.png`."""
    return _numbered(name.partition(" ")[0])[0].rstrip("-")


def _shares(bars: Sequence[Bar], edges: Floats, lanes: int = 1) -> dict[str, Floats]:
    """Kind -> its share of the lanes' time in each bin between the edges."""
    shares = {}
    for kind in LOOKS:
        times = np.array([(bar.start, bar.end) for bar in bars if bar.kind == kind])
        if len(times):
            spent = elapsed(times[:, 0], edges) - elapsed(times[:, 1], edges)
            shares[kind] = np.diff(spent) / np.diff(edges) / lanes
    return shares


def elapsed(moments: Floats, edges: Floats) -> Floats:
    """At each edge, the seconds since each moment before it, summed."""
    before = np.searchsorted(np.sort(moments), edges)
    sums: Floats = before * edges - np.append(0.0, np.cumsum(np.sort(moments)))[before]
    return sums


# --- the timeline --------------------------------------------------------------------------------


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
    title = f"Approach {report.approach} on {report.backend}: {work_done} in {report.wall_s:.2f} s"
    name = f"Timeline of approach {report.approach}: {work_done}"
    chart = Chart(height, title, _facts(scene), name)
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
    _draw_work(work, scene, f"workers\nblurring\n{scene.blurring():.0f} %")
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


def _paint(kind: str) -> dict[str, Any]:
    _, colour, hatch, ink = LOOKS[kind]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": ink, "linewidth": 0.0}


def _patch(kind: str) -> Patch:
    return Patch(label=LOOKS[kind][0], **_paint(kind))


def _draw_bars(axes: Axes, scene: Scene, rows: dict[Lane, float]) -> None:
    """Draw each span, or where they are too many, shares of time."""
    if len(scene.bars) > MAX_BARS or len(rows) < len(scene.lanes):
        edges = np.linspace(0, scene.timeline.seconds, BINS + 1)
        by_row: dict[Lane, list[Bar]] = {lane: [] for lane in rows}
        for bar in scene.bars:
            by_row[scene.shown[bar.lane]].append(bar)
        for lane, bars in by_row.items():
            _pile(axes, _fitted(_shares(bars, edges)), edges, rows[lane] - 0.4, 0.8)
        return
    for kind in ("held", *LOOKS):  # what happened while a tile was held lies above
        spans = [(rows[bar.lane], bar.start, bar.end) for bar in scene.bars if bar.kind == kind]
        boxes = [[(s, y - 0.4), (e, y - 0.4), (e, y + 0.4), (s, y + 0.4)] for y, s, e in spans]
        outline = Outline.make_compound_path_from_polys(np.array(boxes).reshape(-1, 4, 2))
        axes.add_patch(PathPatch(outline, gid=kind, **_paint(kind)))
    wide = [bar for bar in scene.bars if bar.end - bar.start > 0.007 * axes.get_xlim()[1]]
    middles = np.array([rows[bar.lane] for bar in wide])
    starts = [bar.start for bar in wide]
    axes.vlines(starts, middles - 0.4, middles + 0.4, color="white", linewidth=0.7)


def _fitted(shares: dict[str, Floats]) -> dict[str, Floats]:
    """Shares of a row that several lanes share: its busiest moment is as high as the row."""
    most = max(1.0, float(sum(shares.values(), np.zeros(1)).max()))
    return {kind: share / most for kind, share in shares.items()}


def _pile(axes: Axes, shares: dict[str, Floats], edges: Floats, base: float, height: float) -> None:
    """Draw shares of time per bin one above the other, from the base upwards."""
    low = np.full(len(edges), base)
    for kind, share in shares.items():
        high = np.minimum(low + height * np.append(share, share[-1]), base + height)
        axes.fill_between(edges, low, high, step="post", gid=kind, **_paint(kind))
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
            sign: Any = {"linestyle": "", "marker": f"${FAULTS[stage][0]}$", "markersize": 6}
            axes.plot(times, heights, color=INK, gid=stage, **sign)
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
            sign_text = FAULTS[fault.stage][0] + str(fault.attempt) * (fault.stage == "retry")
            before, height = last.get(lane, (-near, 0.0))
            beside = (0.45 if height <= 0 else -0.45) if x - before < near else 0.0
            last[lane] = (x, beside)
            axes.text(x, y + beside, sign_text, gid=fault.stage, **SIGN)


def _draw_work(axes: Axes, scene: Scene, name: str) -> None:
    """What an average worker lane does: blurring at the bottom, waiting on top."""
    edges = np.linspace(0, scene.timeline.seconds or 1.0, BINS + 1)
    working = [bar for bar in scene.bars if bar.lane in scene.workers]
    _pile(axes, _shares(working, edges, len(scene.workers)), edges, 0.0, 1.0)
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
    bars = [_patch(kind) for kind in LOOKS if kind in kinds]
    signs = [
        Line2D([], [], color=INK, linestyle="", marker=f"${sign}$", markersize=8, label=label)
        for stage, (sign, label, _) in FAULTS.items()
        if stage in stages
    ]
    return [*bars, Line2D([], [], label="critical path", **PATH), *signs]


# --- the comparison ------------------------------------------------------------------------------


@style.context(STYLE)
def comparison_figure(reports: Sequence[RunReport], killed: Sequence[RunReport] = ()) -> Chart:
    """Draw the wall time of each run, its start and its work apart, and its speed-up over a's.

    A second panel shows what became of the `killed` runs: images saved, tiles lost, and the time
    until what the dead worker held was done again.
    """
    killed = [report for report in killed if report.timeline.of("death")]
    base = next((report.wall_s for report in reports if report.approach == BASELINE), 0.0)
    names, said = _runs(reports), [_said(report, base) for report in reports]
    after, outcomes = _runs(killed), [_outcome(report) for report in killed]
    title = "Wall time, and speed-up over a"
    lossy = sum(report.lost_tiles > 0 for report in reports)
    facts = (
        f"runs: {len(reports)}, {f'tiles lost in {lossy} (cross)' if lossy else 'no tiles lost'}"
    )
    first, second = TOP + BAR * len(reports), HEADLINE + BAR * len(killed) + AXIS
    height = first + AXIS + second * bool(killed) + LEGEND_ROW
    chart = Chart(height, title, facts, f"{title}: {len(reports)} runs")
    chart.alt = f"{title}; {_listed(names, said)}."
    axes = chart.place([*names, *after], TOP, BAR * len(reports))
    _draw_walls(axes, reports, names, said)
    axes.axvline(base, color=GREY, linewidth=0.8, linestyle=":")
    kinds = [("start", "start of all processes"), ("blur", "work")]
    if killed:
        chart.alt += f" {AFTER}: {_listed(after, outcomes)}."
        top = first + AXIS + HEADLINE
        chart.text(0.2 / WIDTH, 1 - (top - 0.28) / height, AFTER, size=10.5, weight="bold")
        _draw_recoveries(chart.place([*names, *after], top, BAR * len(killed)), killed, outcomes)
        kinds += [("assemble", "until its tile was done again"), ("silence", "until given up")]
    chart.key([Patch(label=label, **_paint(kind)) for kind, label in kinds])
    return chart


def _listed(names: Sequence[str], said: Sequence[str]) -> str:
    return "; ".join(map(": ".join, zip(names, said, strict=True)))


def _draw_walls(
    axes: Axes, reports: Sequence[RunReport], names: Sequence[str], said: Sequence[str]
) -> None:
    """A bar for each run: process starts, then work."""
    rows, walls = range(len(reports)), [report.wall_s for report in reports]
    starts = [min(start_s(report.timeline), report.wall_s) for report in reports]
    work = [wall - start for wall, start in zip(walls, starts, strict=True)]
    axes.barh(rows, starts, 0.7, gid="start", **_paint("start"))
    axes.barh(rows, work, 0.7, starts, gid="work", **_paint("blur"))
    _label(axes, names, walls, said, "seconds")
    for y, report in enumerate(reports):
        if report.lost_tiles:
            axes.text(report.wall_s, y, FAULTS["death"][0], gid="lost", **SIGN)


def _draw_recoveries(axes: Axes, killed: Sequence[RunReport], said: Sequence[str]) -> None:
    """A bar for each run: from the death to the recovery, or until the run gave up."""
    times = [_recovered(report) for report in killed]
    for y, (report, taken) in enumerate(zip(killed, times, strict=True)):
        kind = "assemble" if isfinite(recovery_s(report.timeline)) else "silence"
        axes.barh(y, taken, 0.7, gid=kind, **_paint(kind))
    _label(axes, _runs(killed), times, said, "seconds after the worker died")


def _label(
    axes: Axes, names: Sequence[str], ends: Sequence[float], said: Sequence[str], unit: str
) -> None:
    """Names on the left, what is to be said behind each bar."""
    axes.set(ylim=(len(ends) - 0.5, -0.5), xlabel=unit)
    axes.set_xlim(0, (2.2 if max(map(len, said)) > 24 else 1.25) * max(ends) or 1.0)
    axes.set_yticks(range(len(ends)), names)
    for y, (end, text) in enumerate(zip(ends, said, strict=True)):
        place: Any = {"textcoords": "offset points", "va": "center", "path_effects": HALO}
        axes.annotate(text, (end, y), (12, 0), **place)


def _recovered(report: RunReport) -> float:
    """Seconds from the death until its tile was done again, or until the run gave it up."""
    timeline = report.timeline
    taken = recovery_s(timeline)
    given_up = max((mark.end for mark in timeline.of("lost", "failed")), default=timeline.end)
    return taken if isfinite(taken) else given_up - timeline.of("death")[0].start


def _outcome(report: RunReport) -> str:
    lost = f"{report.lost_tiles} tile{'s' * (report.lost_tiles != 1)} lost"
    seconds = _recovered(report)
    back = f"recovered in {seconds:.1f} s"
    if not isfinite(recovery_s(report.timeline)):
        back = f"given up after {seconds:.1f} s"
    lost = lost if report.lost_tiles else "no tile lost"
    return f"{len(report.outputs)} of {report.images} images saved, {lost}, {back}"


@style.context(STYLE)
def side_by_side(reports: Sequence[RunReport]) -> Chart:
    """Draw how the workers of several runs spent their time, a strip each, on one time axis."""
    scenes = [Scene(report.timeline) for report in reports]
    names = _runs(reports)
    seen = {bar.kind for scene in scenes for bar in scene.bars if bar.lane in scene.workers}
    kinds = [kind for kind in LOOKS if kind in seen]
    tall = len(reports) * (STRIP + GAP)
    title = "What an average worker did, on one time axis"
    said = [f"{name} {report.wall_s:.2f} s" for name, report in zip(names, reports, strict=True)]
    height = TOP + tall + AXIS + LEGEND_ROW * ceil(len(kinds) / LEGEND_COLUMNS)
    chart = Chart(height, title, ", ".join(said), f"{title}: {len(reports)} runs")
    for n, (name, scene) in enumerate(zip(names, scenes, strict=True)):
        axes = chart.place(names, TOP + n * (STRIP + GAP), STRIP)
        _draw_work(axes, scene, f"{name}\n{scene.blurring():.0f} %")
        axes.axvline(scene.timeline.seconds, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_xlim(0, 1.02 * max(scene.timeline.seconds for scene in scenes))
        axes.tick_params(labelbottom=n == len(reports) - 1)
    axes.set_xlabel("seconds from the start of each run")
    chart.key([_patch(kind) for kind in kinds])
    return chart


def _runs(reports: Sequence[RunReport]) -> list[str]:
    """Names in words, for example "a sequential"."""
    where = [f" on {report.backend}" * (report.backend != "local") for report in reports]
    return [
        f"{report.approach} {report.title.lower()}".strip() + place
        for report, place in zip(reports, where, strict=True)
    ]


def _said(report: RunReport, base: float) -> str:
    faster = f", {base / report.wall_s:.1f}\u00d7" if base and report.wall_s else ""
    lost = f", tiles lost: {report.lost_tiles}" if report.lost_tiles else ""
    return f"{report.wall_s:.2f} s{faster}{lost}"
