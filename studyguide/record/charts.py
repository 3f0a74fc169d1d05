"""Charts of runs: the timeline of one, the comparison of several.

A chart is drawn from a report and its events alone: the same log gives the same bytes.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from math import ceil, isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from studyguide.errors import UsageError
from studyguide.machinery import files
from studyguide.record import looks
from studyguide.record.looks import FAULTS, LOOKS, Chart, paint, patch
from studyguide.record.report import (
    BASELINE,
    KILLED,
    RunReport,
    newest_log,
    read_log,
    recovery_s,
    start_s,
)
from studyguide.record.scene import Bar, Floats, Lane, Scene, shares
from studyguide.record.timeline import Timeline

logger = logging.getLogger(__name__)

BAR, HEADLINE, MAX_LANES = 0.4, 0.45, 10.0  # inches
AFTER = "After one killed worker"
MAX_BARS = 4000  # more become a smear: shares of time per bin are drawn instead
MAX_SIGNS = 200  # more faults are drawn as dots of one kind, without arrows
BINS = 320


def draw_all(logs: Path, folder: Path, stems: Sequence[str]) -> list[Path]:
    """Draw `<folder>/<stem>.png` from the newest log of each approach, and `comparison.png`.

    Runs of which a worker was killed have charts of their own, and a panel of the comparison.

    Returns
    -------
    list of Path
        What was drawn; an approach without a log is left out, with a warning.
    """
    found: dict[str, RunReport] = {}
    for stem in (*stems, *(stem + KILLED for stem in stems)):
        try:
            path = newest_log(logs, stem)
        except UsageError as error:
            if not stem.endswith(KILLED):
                logger.warning("No chart of %s: %s", stem, error)
        else:
            found[stem] = read_log(path)
    charts = {stem: timeline_figure(report) for stem, report in found.items()}
    killed = [found[stem] for stem in found if stem.endswith(KILLED)]
    if whole := [found[stem] for stem in found if not stem.endswith(KILLED)]:
        charts["comparison"] = comparison_figure(whole, killed)
    for stem, chart in charts.items():
        with files.atomic(folder / f"{stem}.png") as file:
            file.write(chart.png())
    return [folder / f"{stem}.png" for stem in charts]


# --- the timeline --------------------------------------------------------------------------------


def name_of(report: RunReport) -> str:
    """Name a run in words, for example "a sequential" or "e distributed queue on kubernetes"."""
    place = f" on {report.backend}" * (report.backend != "local")
    return f"{report.approach} {report.title.lower()}".strip() + place


@style.context(looks.STYLE)
def timeline_figure(report: RunReport) -> Chart:
    """Draw what each thread did when, how the workers spent their time, and the queue's length."""
    timeline = report.timeline
    scene = Scene(timeline)
    lanes_shown = list(dict.fromkeys(scene.shown.values()))
    rows, legend = _rows(lanes_shown), _legend(scene)
    depth = 0.55 - min(rows.values(), default=0.0)
    unit = min(max(0.27, min(0.45, 3.2 / depth)), MAX_LANES / depth)  # inches per lane
    tall = depth * unit
    height = Chart.around(tall + 2 * (looks.GAP + looks.STRIP), len(legend))
    work_done = f"{report.images} image{'s' * (report.images != 1)}"
    work_done += f", {report.tiles} tiles" if report.tiles else ""
    title = f"{name_of(report)}: {work_done} in {report.wall_s:.2f} s"
    name = f"Timeline of approach {report.approach}: {work_done}"
    chart = Chart(height, title, _facts(scene), name)
    chart.logs = [report.log] * bool(report.log)
    names = ["blurring", *_names(lanes_shown)]
    lanes = chart.place(names, looks.TOP, tall)
    work = chart.place(names, looks.TOP + tall + looks.GAP, looks.STRIP)
    queue = chart.place(names, looks.TOP + tall + looks.STRIP + 2 * looks.GAP, looks.STRIP)
    for axes in (lanes, work, queue):
        axes.set_xlim(0, 1.005 * (timeline.seconds or 1.0))
        axes.axvline(timeline.seconds, color=looks.GREY, linewidth=0.8, linestyle=":", zorder=1)
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
    axes.plot(*np.array(ends or np.empty((0, 2))).T, gid="path", **looks.PATH)


def _draw_faults(axes: Axes, scene: Scene, rows: dict[Lane, float]) -> None:
    if len(scene.faults) > MAX_SIGNS:
        for stage in dict.fromkeys(fault.stage for fault in scene.faults):
            mine = [fault for fault in scene.faults if fault.stage == stage]
            times = [scene.at(fault.start) for fault in mine]
            heights = [rows[scene.shown[scene.lane(fault)]] for fault in mine]
            marker = f"${FAULTS[stage][0]}$"
            axes.plot(times, heights, marker=marker, markersize=6, gid=stage, **looks.DOT)
        return
    near = 0.03 * axes.get_xlim()[1]  # as wide as a sign
    last: dict[Lane, tuple[float, float]] = {}  # where the sign before it on its lane stands
    for fault in scene.faults:
        lane = scene.shown[scene.lane(fault)]
        x, y = scene.at(fault.start), rows[lane]
        loser = scene.loser(fault) if fault.stage == "reclaim" else None
        if loser:
            arrow = {"arrowstyle": "-|>", "color": looks.INK, "path_effects": looks.HALO}
            tail = (loser[1], rows[scene.shown[loser[0]]])
            axes.annotate("", (x, y), tail, arrowprops=arrow, gid="reclaim")
        else:
            text = FAULTS[fault.stage][0] + str(fault.attempt) * (fault.stage == "retry")
            before, height = last.get(lane, (-near, 0.0))
            beside = (0.45 if height <= 0 else -0.45) if x - before < near else 0.0
            last[lane] = (x, beside)
            axes.text(x, y + beside, text, gid=fault.stage, **looks.SIGN)


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
        Line2D([], [], marker=f"${sign}$", markersize=8, label=label, **looks.DOT)
        for stage, (sign, label, _) in FAULTS.items()
        if stage in stages
    ]
    return [*bars, Line2D([], [], label="critical path", **looks.PATH), *signs]


# --- the comparison ------------------------------------------------------------------------------


class Row(NamedTuple):
    """A run in a panel: its name, its bar as (kind of LOOKS, seconds), what is said behind it."""

    name: str
    parts: Sequence[tuple[str, float]]
    said: str


@style.context(looks.STYLE)
def comparison_figure(reports: Sequence[RunReport], killed: Sequence[RunReport] = ()) -> Chart:
    """Draw the wall time of each run, its start and its work apart, and its speed-up over a's.

    A second panel shows what became of the `killed` runs: images saved, tiles lost, and the time
    until what the dead worker held was done again.
    """
    base = next((report.wall_s for report in reports if report.approach == BASELINE), 0.0)
    walls = [_wall(report, base) for report in reports]
    after = [_recovery(report) for report in killed if report.timeline.of("death")]
    title = "Wall time, and speed-up over a"
    lossy = sum(report.lost_tiles > 0 for report in reports)
    lost = f"tiles lost in {lossy} (cross)" if lossy else "no tiles lost"
    second = HEADLINE + BAR * len(after) + looks.AXIS if after else 0.0
    height = Chart.around(BAR * len(walls) + second, 4)
    chart = Chart(height, title, f"runs: {len(walls)}, {lost}", f"{title}: {len(walls)} runs")
    chart.logs = [report.log for report in (*reports, *killed) if report.log]
    chart.alt = f"{title}; {_listed(walls)}."
    names = [row.name for row in (*walls, *after)]
    axes = chart.place(names, looks.TOP, BAR * len(walls))
    _draw(axes, walls, "seconds")
    axes.axvline(base, color=looks.GREY, linewidth=0.8, linestyle=":")
    for y, report in enumerate(reports):
        if report.lost_tiles:
            axes.text(report.wall_s, y, FAULTS["death"][0], gid="lost", **looks.SIGN)
    legend = [patch("start", "start of all processes"), patch("blur", "work")]
    if after:
        chart.alt += f" {AFTER}: {_listed(after)}."
        top = looks.TOP + BAR * len(walls) + looks.AXIS + HEADLINE
        chart.text(0.2 / looks.WIDTH, 1 - (top - 0.28) / height, AFTER, size=10.5, weight="bold")
        _draw(chart.place(names, top, BAR * len(after)), after, "seconds after the worker died")
        legend += [patch("assemble", "until its tile was done again")]
        legend += [patch("silence", "until given up")]
    chart.key(legend)
    return chart


def _listed(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.name}: {row.said}" for row in rows)


def _draw(axes: Axes, rows: Sequence[Row], unit: str) -> None:
    """Draw a bar for each row, its name on the left, what is to be said behind it."""
    ends = [0.0] * len(rows)
    for y, row in enumerate(rows):
        for kind, seconds in row.parts:
            axes.barh(y, seconds, 0.7, ends[y], gid=kind, **paint(kind))
            ends[y] += seconds
        place: Any = {"textcoords": "offset points", "va": "center", "path_effects": looks.HALO}
        axes.annotate(row.said, (ends[y], y), (12, 0), **place)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=unit)
    longest = max(len(row.said) for row in rows)
    axes.set_xlim(0, (2.2 if longest > 24 else 1.25) * max(ends) or 1.0)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])


def _wall(report: RunReport, base: float) -> Row:
    """The row of a run: process starts, then work."""
    start = min(start_s(report.timeline), report.wall_s)
    faster = f", {base / report.wall_s:.1f}\u00d7" if base and report.wall_s else ""
    lost = f", tiles lost: {report.lost_tiles}" if report.lost_tiles else ""
    parts = [("start", start), ("blur", report.wall_s - start)]
    return Row(name_of(report), parts, f"{report.wall_s:.2f} s{faster}{lost}")


def _recovery(report: RunReport) -> Row:
    """The row of a run with a killed worker: from the death to the recovery, or until given up."""
    timeline = report.timeline
    seconds, kind, back = recovery_s(timeline), "assemble", "recovered in"
    if not isfinite(seconds):
        given_up = max((mark.end for mark in timeline.of("lost", "failed")), default=timeline.end)
        seconds, kind = given_up - timeline.of("death")[0].start, "silence"
        back = "given up after"
    lost = f"{report.lost_tiles or 'no'} tile{'s' * (report.lost_tiles > 1)} lost"
    saved = f"{len(report.outputs)} of {report.images} images saved"
    return Row(name_of(report), [(kind, seconds)], f"{saved}, {lost}, {back} {seconds:.1f} s")
