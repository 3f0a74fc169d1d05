"""The comparison of several runs as a chart, and all charts of a folder of logs."""

import logging
from collections.abc import Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import style
from matplotlib.axes import Axes

from studyguide.errors import UsageError
from studyguide.machinery import files
from studyguide.record.charts import (
    AXIS,
    GREY,
    HALO,
    LEGEND_ROW,
    SIGN,
    STYLE,
    TOP,
    WIDTH,
    Chart,
    name_of,
    paint,
    patch,
    timeline_figure,
)
from studyguide.record.report import BASELINE, KILLED, RunReport, newest_log, read_log
from studyguide.record.scene import FAULTS
from studyguide.record.timeline import Timeline

logger = logging.getLogger(__name__)

BAR, HEADLINE = 0.4, 0.45  # inches
AFTER = "After one killed worker"


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


class Row(NamedTuple):
    """A run in a panel: its name, its bar as (kind of LOOKS, seconds), what is said behind it."""

    name: str
    parts: Sequence[tuple[str, float]]
    said: str


@style.context(STYLE)
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
    first, second = TOP + BAR * len(walls), HEADLINE + BAR * len(after) + AXIS
    height = first + AXIS + second * bool(after) + LEGEND_ROW
    chart = Chart(height, title, f"runs: {len(walls)}, {lost}", f"{title}: {len(walls)} runs")
    chart.logs = [report.log for report in (*reports, *killed) if report.log]
    chart.alt = f"{title}; {_listed(walls)}."
    names = [row.name for row in (*walls, *after)]
    axes = chart.place(names, TOP, BAR * len(walls))
    _draw(axes, walls, "seconds")
    axes.axvline(base, color=GREY, linewidth=0.8, linestyle=":")
    for y, report in enumerate(reports):
        if report.lost_tiles:
            axes.text(report.wall_s, y, FAULTS["death"][0], gid="lost", **SIGN)
    legend = [patch("start", "start of all processes"), patch("blur", "work")]
    if after:
        chart.alt += f" {AFTER}: {_listed(after)}."
        top = first + AXIS + HEADLINE
        chart.text(0.2 / WIDTH, 1 - (top - 0.28) / height, AFTER, size=10.5, weight="bold")
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
        place: Any = {"textcoords": "offset points", "va": "center", "path_effects": HALO}
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


def start_s(timeline: Timeline) -> float:
    """Wall seconds from the start of the run until its last first process start is over; 0 without.

    A process that is started again during the run does not count.
    """
    starts = timeline.of("start")
    first = {event.process: event.end for event in reversed(starts)}
    return max(first.values(), default=timeline.start) - timeline.start


def recovery_s(timeline: Timeline) -> float:
    """Wall seconds from the first death until every tile that dead threads held was done again.

    Infinite if one never was; 0 where no thread that held a tile died.
    """
    held = {death.what: death.end for death in reversed(timeline.tiles("death"))}
    done: dict[tuple[str, int], float] = {}
    for event in timeline.of("transfer"):
        if event.end > held.get(event.what, inf):
            done.setdefault(event.what, event.end)
    recovered = max((done.get(tile, inf) for tile in held), default=0.0)
    return recovered - min(held.values(), default=0.0)
