"""The judgement of a trial: the first invariant that does not hold, the events that show it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studyguide.errors import printable
from studyguide.record.charts import timeline_figure
from studyguide.record.looks import INK, Chart
from studyguide.record.report import RunReport
from studyguide.record.timeline import Event, Timeline
from studyguide_course.ladder import TILES
from studyguide_course.ladder.rungs import MOST_ATTEMPTS, PAUSE_S
from studyguide_course.ladder.trial import WORKERS, Record

MOST_SHOWN = 12  # events
WORDS = {
    "wait": "begins tile {tile}",
    "blur": "has blurred tile {tile}",
    "retry": "raises for tile {tile}",
    "assemble": "finds the result of tile {tile}: {text}",
    "dead": "finds tile {tile} given up",
    "death": "dies",
    "failed": "ends: {error}",
}


@dataclass(frozen=True)
class Problem:
    """An invariant that does not hold, and the tile that shows it, -1 for none."""

    text: str
    tile: int = -1


def problems(record: Record) -> Iterator[Problem]:
    """Every invariant that does not hold, the most telling first."""
    for failed in record.of("failed")[:1]:
        yield Problem(f"{failed.process} ended by itself: {failed.detail['error']}")
    yield from _wrong(record)
    yield from _repeated(record)
    yield from _changed(record)
    yield from _failing(record)
    yield from _late(record)
    missing = sorted(set(range(TILES)) - record.results().keys() - record.dead())
    for tile in missing[:1]:
        yield Problem(f"{len(missing)} of {TILES} tiles are lost, among them tile {tile}", tile)
    if record.stalled:
        yield Problem(record.stalled)


def _wrong(record: Record) -> Iterator[Problem]:
    """Results that are not what `blur` returned."""
    for tile, text in record.results().items():
        if text not in {event.detail["text"] for event in record.of("blur", tile)}:
            yield Problem(f"the result of tile {tile} is not what blur returned for it", tile)


def _changed(record: Record) -> Iterator[Problem]:
    """Results that were there and did not stay as they were."""
    for tile in range(TILES) if record.row.stable else ():
        if len(record.of("assemble", tile)) > 1:
            yield Problem(f"the result of tile {tile} was there and then changed", tile)


def _repeated(record: Record) -> Iterator[Problem]:
    """Tiles that were begun more often than the row allows."""
    row = record.row
    for tile in range(TILES):
        most, planted = row.most, tile in record.victims[: len(row.plant)]
        if planted:
            most = row.most_victim if tile == record.victims[0] else 0
        times = len(record.of("wait", tile))
        if most and times > most:
            yield Problem(f"tile {tile} was begun {times} times, allowed: {most}", tile)


def _failing(record: Record) -> Iterator[Problem]:
    """Tiles that had to end as dead letters and did not, or the other way round; their pauses."""
    plan = dict(zip(record.victims, record.row.plant, strict=False))
    for tile in range(TILES):
        kind, dead = plan.get(tile, ""), tile in record.dead()
        if dead and kind not in ("raise", "poison"):
            yield Problem(
                f"tile {tile} was given up, and one more attempt would have done it", tile
            )
        begun = record.of("wait", tile)
        if kind in ("raise", "poison") and len(begun) > MOST_ATTEMPTS:
            text = f"tile {tile} was begun {len(begun)} times, allowed: {MOST_ATTEMPTS}"
            yield Problem(text, tile)
        for n, (raised, again) in enumerate(zip(record.of("retry", tile), begun[1:], strict=False)):
            pause, least = again.end - raised.end, PAUSE_S * 2**n
            if pause < least - 0.005:
                text = f"attempt {n + 2} of tile {tile} came {pause:.2f} s after attempt {n + 1}"
                yield Problem(f"{text}, allowed: {least:g} s or more", tile)


def _late(record: Record) -> Iterator[Problem]:
    """A victim that came back too late."""
    seconds, most = recovery_s(record), record.row.recover_s
    if seconds and most and seconds > most:
        tile = record.victims[0]
        yield Problem(
            f"tile {tile} came back {seconds:.2f} s after the kill, target: {most} s", tile
        )


def recovery_s(record: Record) -> float:
    """Seconds from the first strike to the next begin of the victim; 0 without either."""
    if not record.strikes:
        return 0.0
    struck = record.strikes[0][0]
    again = [event.end for event in record.of("wait", record.victims[0]) if event.end > struck]
    return again[0] - struck if again else 0.0


def done_twice(record: Record) -> int:
    """How many tiles were blurred to the end more than once."""
    return sum(len(record.of("blur", tile)) > 1 for tile in range(TILES))


def lost(record: Record) -> int:
    """How many tiles are neither delivered nor given up."""
    return TILES - len(record.results().keys() | record.dead())


def story(record: Record, tile: int) -> list[str]:
    """The events that show a problem: those of its tile, deaths, failures and strikes."""
    start = min((event.start for event in record.events), default=0.0)
    lines = [(moment, f"the nemesis {what}") for moment, what in record.strikes]
    for event in record.events:
        if event.stage in WORDS and (event.tile == tile >= 0 or event.stage in ("death", "failed")):
            detail = {"text": None, "error": "", **event.detail}
            text = WORDS[event.stage].format(tile=event.tile, **detail)
            lines.append((event.end, f"{event.process} {text}"))
    shown = [f"{moment - start:7.3f} s  {printable(text)}" for moment, text in sorted(lines)]
    if len(shown) > MOST_SHOWN:
        shown[MOST_SHOWN - 3 : -2] = [f"{'...':>9}"]
    return shown


def code_lines(path: Path) -> int:
    """Lines of a file without blank ones and comments."""
    lines = map(str.strip, path.read_text(encoding="utf-8", errors="replace").splitlines())
    return sum(bool(line) and not line.startswith("#") for line in lines)


def picture(record: Record, number: int) -> Chart:
    """The timeline of a trial with the strikes marked."""
    timeline = Timeline(_drawn(record))
    chart = timeline_figure(RunReport.of("", "local", timeline, {"workers": WORKERS}))
    title = f"Rung {number}, {record.row.name}: {timeline.seconds:.1f} s"
    chart.texts[0].set_text(title)
    what = ", then ".join(text for _, text in record.strikes) or "strikes nothing"
    chart.alt = f"{title}; the nemesis {what}."
    chart.name = f"Timeline of rung {number}: {record.row.name}"
    for moment, text in record.strikes:
        at = moment - timeline.start
        for axes in chart.axes:
            axes.axvline(at, color=INK, linestyle="--", linewidth=1.0, gid="strike")
        top = chart.axes[0]
        side: Any = "right" if at > 0.8 * timeline.seconds else "left"
        top.text(at, 0.05, f" {text} ", size=7.5, ha=side, va="bottom", gid="strike")
    return chart


def _drawn(record: Record) -> Iterator[Event]:
    """The events of the chart, from the moment on at which the tiles are queued."""
    begun = min((event.start for event in record.of("enqueue")), default=0.0)
    for event in record.events:
        if event.stage not in ("failed", "start") and event.detail.get("text", "") is not None:
            yield replace(event, start=max(event.start, min(begun, event.end)))
