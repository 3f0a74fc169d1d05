"""The chart of the chapters: lines over one axis."""

from collections.abc import Mapping, Sequence

from matplotlib import style

from studyguide.record.looks import FAINT, LOOKS, STYLE, Chart

KINDS = ("blur", "save", "assemble")  # whose colours are used
Line = tuple[str, Sequence[float], Sequence[float]]  # format of matplotlib; across; up


@style.context(STYLE)
def strips(title: str, facts: str, across: str, rows: Mapping[str, Mapping[str, Line]]) -> Chart:
    """Draw a strip for each row, under what goes up in it; lines of one name look alike in all."""
    chart, shown = Chart(Chart.around(2.0 * len(rows), 3), title, facts, title), {}
    for n, (up, lines) in enumerate(rows.items()):
        axes = chart.place(["0,000,000"], 0.85 + 2.0 * n, 1.65)
        for (name, (form, xs, ys)), kind in zip(lines.items(), KINDS * 2, strict=False):
            (shown[name],) = axes.plot(xs, ys, form, color=LOOKS[kind][1], label=name)
        axes.set(ylabel=up, ylim=(0, None), xlabel=across if n == len(rows) - 1 else "")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(color=FAINT)
    chart.key(list(shown.values()))
    return chart
