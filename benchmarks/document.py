"""Write docs/performance.md and its plots from the figures that are kept in results/.

python -m benchmarks.document
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks import direct, extremes, growth, job, kernel, memory, model, queues, start
from benchmarks.harness import RESULTS, ratios, table
from studyguide.approaches import queued

DOCS = Path(__file__).parents[1] / "docs"
MODULES: dict[str, Callable[..., str]] = {
    "kernel": kernel.report,
    "direct": direct.report,
    "job": job.report,
    "queues": queues.report,
    "growth": growth.report,
    "memory": memory.report,
    "extremes": extremes.report,
    "model": model.report,
    "start": start.report,
}
Data = dict[str, dict[str, Any]]
Bar = tuple[str, float, float, str]  # what, measured, wanted, how to compare: >= or <=


def bars(data: Data) -> list[Bar]:
    """Every mark that was set beforehand, and what was measured."""
    found: list[Bar] = []
    if "kernel" in data:
        found += kernel_bars(data["kernel"])
    if "job" in data:
        found += job_bars(data["job"])
    if "queues" in data:
        found += queue_bars(data["queues"])
    if "growth" in data:
        found += growth_bars(data["growth"])
    if "start" in data:
        found.append(("import studyguide, s", start.importing(data["start"]), 0.3, "<="))
    return found


def kernel_bars(data: dict[str, Any]) -> list[Bar]:
    def times(k: str, peer: str, mine: str) -> float:
        return ratios(data["seconds"][k], peer, mine)[0]

    one, every = "fixed point, 1 thread", "fixed point, all cores"
    cv, cv_all, vips = "OpenCV, 1 thread", "OpenCV, all cores", "libvips, all cores"
    share = 100 * data["errors"][one]["share"]
    floats = 100 * data["errors"]["float32, 1 thread"]["share"]
    return [
        ("kernel 21, 1 thread: times OpenCV's speed", times("21", cv, one), 2.5, ">="),
        ("kernel 21, all cores: times OpenCV's speed", times("21", cv_all, every), 2.4, ">="),
        ("kernel 21, all cores: times libvips' speed", times("21", vips, every), 2.8, ">="),
        *(
            (f"kernel {k}, {how}: times OpenCV's speed", times(k, peer, mine), 1.0, ">=")
            for k in ("3", "5")
            if k in data["seconds"]
            for how, peer, mine in (("1 thread", cv, one), ("all cores", cv_all, every))
        ),
        ("fixed point: largest error, levels", data["errors"][one]["max"], 1, "<="),
        ("fixed point: samples that differ, %", share, 0.6, "<="),
        ("float32: samples that differ, %", floats, 0.001, "<="),
    ]


def job_bars(data: dict[str, Any]) -> list[Bar]:
    seconds = data["seconds"]
    return [
        ("c: wall time over its bound", statistics.median(data["wall_over_bound"]), 1.1, "<="),
        *(
            (f"c: {peer}'s time over c's", ratios(seconds, peer, "c")[0], 1.0, ">=")
            for peer in seconds
            if peer != "c"
        ),
    ]


def queue_bars(data: dict[str, Any]) -> list[Bar]:
    seconds, lost = data["seconds"], data["redelivery"]
    found: list[Bar] = []
    for name in queued("stream"):
        for peer in ("celery", "rq", "dramatiq"):
            if peer in seconds["no-op"]:
                ratio = ratios(seconds["no-op"], peer, name)[0]
                found.append((f"no-ops: {name}'s speed over {peer}'s", ratio, 10, ">="))
        peers = [peer for peer in queues.ACKNOWLEDGING if peer in seconds["256 KiB"]]
        ahead = min(ratios(seconds["256 KiB"], peer, name)[0] for peer in peers)
        found.append(
            (f"256 KiB: {name}'s speed over that of the best acknowledging peer", ahead, 2, ">=")
        )
    windows = max(lost["seconds"]) / lost["visibility_s"]
    return [*found, ("redelivery after kill -9, visibility windows", windows, 2, "<=")]


def growth_bars(data: dict[str, Any]) -> list[Bar]:
    tiles = [(each["tiles"], each["seconds"]) for each in data["tiles"] if each["tiles"] >= 100]
    return [
        ("time against pixels: exponent", growth.exponent(data["pixels"]), 1.05, "<="),
        ("time against tiles: exponent", growth.exponent(tiles), 1.05, "<="),
        ("time against images: exponent", growth.exponent(data["images"]), 1.05, "<="),
        ("tiles in the stream at most", max(each["backlog"] for each in data["tiles"]), 100, "<="),
        ("encoder: its time over that of Pillow's default, %", data["encoder"]["percent"], 5, "<="),
        ("encoder: its size over that of Pillow's default", data["encoder"]["size"], 1.25, "<="),
        ("a kernel loaded from the cache, s", data["cold_start"]["cached"], 0.3, "<="),
    ]


def met(bar: Bar) -> bool:
    _, measured, wanted, how = bar
    return measured >= wanted if how == ">=" else measured <= wanted


def verdicts(found: list[Bar]) -> str:
    rows = [
        (bar[0], f"{bar[1]:.3g}", f"{bar[3]} {bar[2]:g}", "met" if met(bar) else "**missed**")
        for bar in found
    ]
    return table(("mark", "measured", "wanted", ""), rows)


def plain(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 if it spans little, else at powers of ten."""
    low, high = axis.get_view_interval()
    steps = (1, 2, 5) if high < 100 * low else (1,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def plot_growth(data: dict[str, Any], path: Path) -> None:
    """Four curves of growth on logarithmic axes."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    tiles = [(each["tiles"], each["seconds"]) for each in data["tiles"]]
    panels = [
        ("megapixels", {"": data["pixels"]}),
        ("kernel size", data["kernel"]),
        ("threads", {"": data["workers"]}),
        ("no-op tiles through f's queue", {"": tiles}),
    ]
    for panel, (label, curves) in zip(axes.flat, panels, strict=True):
        for name, curve in curves.items():
            panel.loglog(*zip(*curve, strict=True), marker="o", label=name)
        panel.set(xlabel=label, ylabel="seconds")
        plain(panel.xaxis)
        plain(panel.yaxis)
        panel.grid(alpha=0.3)
        if len(curves) > 1:
            panel.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def plot_peers(data: Data, path: Path) -> None:
    """Rows of bars: kernel, job and queue beside their peers."""
    found = {
        "kernel 21": data.get("kernel", {}).get("seconds", {}).get("21"),
        "the whole job": data.get("job", {}).get("seconds"),
        "a no-op through the queue": data.get("queues", {}).get("seconds", {}).get("no-op"),
    }
    panels = {title: seconds for title, seconds in found.items() if seconds}
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.4 * len(panels), 4.5), layout="constrained", squeeze=False
    )
    for panel, (title, seconds) in zip(axes.flat, panels.items(), strict=True):
        middle = {name: 1000 * statistics.median(times) for name, times in seconds.items()}
        names = sorted(middle, key=lambda name: -middle[name])
        drawn = panel.barh(names, [middle[name] for name in names])
        panel.bar_label(drawn, fmt=lambda ms: f"{float(f'{ms:.3g}'):,g}", padding=3)
        panel.margins(x=0.12)
        panel.set(title=title, xlabel="ms, logarithmic", xscale="log")
        plain(panel.xaxis)
        for spine in ("top", "right"):
            panel.spines[spine].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    files = {name: RESULTS / f"{name}.json" for name in MODULES}
    data = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    machine = next(iter(data.values()))["machine"]
    sections = [MODULES[name](each) for name, each in data.items()]
    pictures = []
    if {"kernel", "job", "queues"} & set(data):
        plot_peers(data, DOCS / "performance-peers.png")
        pictures.append(
            "![Bars: time of kernel, job and queue beside their peers](performance-peers.png)"
        )
    if "growth" in data:
        plot_growth(data["growth"], DOCS / "performance-growth.png")
        pictures.append(
            "![Curves: time against pixels, kernel size, threads and tiles](performance-growth.png)"
        )
    absent = ", ".join(name for name in MODULES if name not in data)
    recorded = ", ".join(f"{name} {each['recorded'][:10]}" for name, each in data.items())
    found = bars(data)
    missed = (Path(__file__).parent / "missed.md").read_text()
    text = f"""# Performance

Written by `make bench bench-peers` from the figures in `benchmarks/results/`: do not edit it here.
Variants take turns, round by round; times are medians, ratios are medians of the rounds with the
least and the greatest in brackets.

{table(("machine", ""), ((k, v) for k, v in machine.items() if k not in ("cluster",)))}

Recorded: {recorded}.{f" Not recorded yet: {absent}." if absent else ""}

{(chr(10) * 2).join(pictures)}

## The marks

{sum(map(met, found))} of {len(found)} are met.

{verdicts(found)}

{missed}
{chr(10).join(sections)}
"""
    (DOCS / "performance.md").write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
