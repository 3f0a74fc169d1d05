"""Charts with sliders: what laws and the model say of more workers, tiles and cores.

A reader without widgets sees the chart as the sliders stand at first.
"""

import html
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib import style

from studyguide.cluster import LocalCluster
from studyguide.machinery.link import Link
from studyguide.record.looks import FAINT, GREY, HALO, LOOKS, STYLE, Chart
from studyguide_course.costs import Costs
from studyguide_course.laws import PER_IMAGE, amdahl, bottleneck, bound, demands, gustafson, rate

HEIGHT, TOP, TALL = 4.3, 0.85, 2.9  # inches: of a chart, above its axes, of the axes
CENTRED: Any = {"ha": "center", "path_effects": HALO}
STATION = {"workers": "blur", "coordinator": "enqueue", "Redis": "transfer", "assembler": "save"}


class Explorer:
    """A chart that is drawn anew when a slider moves; the arrow keys move one, too.

    `draw` gets the value of each slider by name; a slider is what it offers and its first value.
    """

    def __init__(
        self, draw: Callable[..., Chart], sliders: Mapping[str, tuple[Sequence[float], float]]
    ) -> None:
        self._draw = draw
        self.sliders = {
            name: ipywidgets.SelectionSlider(
                options=[(f"{value:,.10g}", value) for value in offered],
                value=first,
                description=name.replace("_", " "),
                style={"description_width": "initial"},
                layout={"width": "60%"},
            )
            for name, (offered, first) in sliders.items()
        }
        self.image = ipywidgets.HTML()  # the widget Image has no alt text
        for slider in self.sliders.values():
            slider.observe(self._update, "value")
        self._update()

    def _update(self, _: object = None) -> None:
        self.chart = self._draw(**{name: slider.value for name, slider in self.sliders.items()})
        png, alt = b64encode(self.chart.png()).decode(), html.escape(self.chart.alt)
        where = f'src="data:image/png;base64,{png}" style="max-width: 100%"'
        self.image.value = f'<img alt="{alt}" {where}>'

    def _repr_mimebundle_(self, **options: Any) -> Any:
        box = ipywidgets.VBox([*self.sliders.values(), self.image])
        still, metadata = self.chart._repr_mimebundle_()
        return {**box._repr_mimebundle_(**options), **still}, metadata


class ServerProbe:
    """Chaos that strikes nobody: it reads how many CPU seconds Redis has used since its start."""

    def __init__(self) -> None:
        self.cpu_s = self._due = self._started = 0.0
        self._link: Link | None = None

    def __call__(self, cluster: LocalCluster) -> None:
        """Look ten times a second."""
        if time.monotonic() > self._due:
            self._due = time.monotonic() + 0.1
            self._link = self._link or Link(cluster.redis_url)
            used = self._link(lambda client: client.info("cpu"))
            total = used["used_cpu_sys"] + used["used_cpu_user"]
            self._started = self._started or total
            self.cpu_s = total - self._started


def steps(top: int) -> list[int]:
    """1, 2, 5, 10, 20, 50 and so on up to `top`."""
    return [m * 10**n for n in range(len(str(top))) for m in (1, 2, 5) if m * 10**n <= top]


def explore_speed_up(serial: float, cores: int, measured: Mapping[int, float]) -> Explorer:
    """Amdahl and Gustafson beside what was measured: the speed-up by number of workers.

    `serial` is the share of the run that cannot be shared out, 0 to 1, as its profile says. No more
    workers than this machine has cores run at once.
    """
    shares = sorted({0.01, 0.05, 0.1, 0.2, 0.3, 0.5, round(serial, 2)})
    counts = steps(1000)

    @style.context(STYLE)
    def draw(serial_share: float) -> Chart:
        limit = f"never more than {1 / serial_share:.1f} times as fast"
        facts = f"serial share {serial_share:.0%}: by Amdahl {limit}; cores here: {cores}"
        chart, axes = _axes("Speed-up by workers", facts, "workers", "speed-up")
        lines = {
            "Gustafson: the job grows": [gustafson(serial_share, n) for n in counts],
            "Amdahl: the same job": [amdahl(serial_share, n) for n in counts],
        }
        for (name, line), kind in zip(lines.items(), ("save", "blur"), strict=True):
            axes.plot(counts, line, color=LOOKS[kind][1], marker="o", ms=3, label=name)
        axes.plot([*measured], [*measured.values()], "ks", ms=6, label="measured")
        _mark_validated(axes, cores, "cores of this machine")
        axes.legend(loc="upper left")
        return chart

    return Explorer(draw, {"serial_share": (shares, round(serial, 2))})


def explore_scale(
    costs: Costs, samples: int, validated: int = 10, per_image: int = PER_IMAGE
) -> Explorer:
    """Throughput of e, f or g with a machine for each process, up to 10,000 workers.

    `others` is the number of coordinators, and of assemblers; Redis is one. Costs are those of the
    reader's machine; `samples` is of a tile: pixels of its core times channels; `validated` is the
    number of workers up to which the model was compared with runs; an image has `per_image` tiles.
    """
    counts = steps(10_000)
    few = [count for count in counts if count <= 50]
    simulated = [rate(costs, count, samples, per_image) for count in few]

    @style.context(STYLE)
    def draw(workers: int, others: int, tiles: int) -> Chart:
        busy = demands(costs, workers, samples, others, per_image)
        (station, most), seconds = bottleneck(busy), bound(costs, busy, tiles)
        flight = workers * min(1.0, busy["workers"] * most)
        facts = (
            f"{workers:,} workers, {tiles:,} tiles, {per_image} an image: at least "
            f"{_time(seconds)}; bottleneck: {station}; {flight:,.0f} workers busy (Little)"
        )
        chart, axes = _axes("Tiles a second by workers", facts, "workers", "tiles/s")
        at_all = [demands(costs, count, samples, others, per_image) for count in counts]
        for name, kind in STATION.items():
            rates = [1 / each[name] if each[name] else np.nan for each in at_all]
            axes.plot(counts, rates, "--", color=LOOKS[kind][1], lw=1.2, label=f"{name} alone")
        together = [bottleneck(each)[1] for each in at_all]
        axes.plot(counts, together, color="black", lw=2.5, label="all together, at most")
        axes.plot(few, simulated, "ks", ms=5, label="simulated, others = 1")
        axes.axvline(workers, color=GREY, lw=1)
        _mark_validated(axes, validated, "validated")
        axes.legend(loc="upper left", ncols=2)
        return chart

    sliders = {
        "workers": (steps(10_000), 100),
        "others": (steps(1000), 1),
        "tiles": (steps(10_000_000), 1_000_000),
    }
    return Explorer(draw, sliders)


def _axes(title: str, facts: str, across: str, up: str) -> tuple[Chart, Any]:
    chart = Chart(HEIGHT, title, facts, title)
    axes = chart.place([up + " 0,000"], TOP, TALL)
    axes.set(xscale="log", yscale="log", xlabel=across, ylabel=up)
    axes.tick_params(which="both", length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    axes.grid(color=FAINT)
    return chart, axes


def _mark_validated(axes: Any, last: int, text: str) -> None:
    """Hatch what was compared with runs; what lies to its right is extrapolated."""
    first, low = axes.get_xlim()[0], axes.get_ylim()[0]
    axes.set(xlim=(first, None), ylim=(low / 2, axes.get_ylim()[1] * 20))
    axes.axvspan(first, last, facecolor="none", edgecolor=FAINT, hatch="//", zorder=0)
    axes.text(last, low / 1.6, f" {text} | extrapolated", color=GREY, **CENTRED)


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
