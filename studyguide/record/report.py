"""The run report: what one run did, computed from its events and from nothing else."""

import json
import os
import platform
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

from studyguide.errors import (
    DAMAGE,
    MessageError,
    StudyguideError,
    UsageError,
    explained,
    printable,
)
from studyguide.machinery import files
from studyguide.record.timeline import SCHEMA, Event, Timeline

# What says that a tile was put into a queue, that a worker was handed it, and how it ended.
QUEUED = ("enqueue", "wait", "blur", "transfer", "reclaim", "retry", "duplicate", "death")
DELIVERED = QUEUED[1:]
FATES = ("assemble", "dead", "lost")

BASELINE = "a"  # the approach that others are compared with


@dataclass(frozen=True)
class Ledger:
    """Where every tile went: enqueued = assembled + dead letters + lost + in doubt.

    A killed process may take its last events along. What the others' events imply is counted: a
    tile that is in its place was enqueued and delivered. A tile of which no event says how it ended
    is in doubt.
    """

    enqueued: int  # distinct tiles put into the queue
    delivered: int  # times that a worker was handed a tile
    assembled: int  # distinct tiles that reached their place in an image
    redelivered: int  # deliveries of a tile beyond its first
    duplicates: int  # results, or errors, that came second and were dropped
    dead_letters: int  # distinct tiles given up after their last attempt
    lost: int  # distinct tiles that vanished with a worker
    in_doubt: int = 0  # distinct tiles whose end no event tells

    @classmethod
    def of(cls, timeline: Timeline) -> "Ledger":
        """Count the tiles in a run's events."""
        fates = _fates(timeline)
        ends = Counter(fates.values())
        handed = {tile for tile, fate in fates.items() if fate in ("assemble", "dead")}
        handed.update(event.what for event in timeline.tiles(*DELIVERED))
        redelivered = len(timeline.tiles("wait")) - len(timeline.delivered())
        return cls(
            enqueued=len(fates),
            delivered=len(handed) + redelivered,
            assembled=ends["assemble"],
            redelivered=redelivered,
            duplicates=len(timeline.of("duplicate")),
            dead_letters=ends["dead"],
            lost=ends["lost"],
            in_doubt=ends[""],
        )


def _fates(timeline: Timeline) -> dict[tuple[str, int], str]:
    """Each tile's last fate, empty if none is known; an image that is saved has all its tiles."""
    fates: dict[tuple[str, int], str] = {}
    of_image: dict[str, set[int]] = {}
    saved: set[str] = set()
    for event in sorted(timeline.of(*QUEUED, *FATES, "save"), key=lambda event: event.end):
        tiles = of_image.setdefault(event.image, set())
        if event.stage == "save":
            saved.add(event.image)
            fates.update(((event.image, tile), "assemble") for tile in tiles)
        elif event.tile >= 0:
            tiles.add(event.tile)
            known = fates.get(event.what) or "assemble" * (event.image in saved)
            fates[event.what] = event.stage if event.stage in FATES else known
    return fates


@dataclass(frozen=True)
class RunReport:
    """What `studyguide.run` returns and `--json` prints.

    `wall_s` is seconds from the start of the run to its last saved image, process starts included;
    `blur_s` is CPU seconds spent blurring, summed over all workers.
    """

    approach: str
    backend: str
    images: int
    tiles: int
    workers: int
    wall_s: float
    blur_s: float
    lost_tiles: int
    redelivered: int
    dead_letters: int
    failed_images: list[dict[str, str]]
    outputs: list[dict[str, str]]
    ledger: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    title: str = ""  # of the approach, for example "Tile parallel"
    notes: list[dict[str, str]] = field(default_factory=list)  # what was left out of which image
    # Not in the JSON: the events, and the name of the log that they were read from, if any.
    timeline: Timeline = field(default_factory=lambda: Timeline([]), repr=False, compare=False)
    log: str = field(default="", repr=False, compare=False)

    @classmethod
    def of(
        cls,
        approach: str,
        backend: str,
        timeline: Timeline,
        settings: dict[str, Any],
        title: str = "",
    ) -> "RunReport":
        """Compute the report of a run from its events."""
        ledger = Ledger.of(timeline)
        blurs = timeline.of("blur")
        # The last word on an image decides: it may be repaired, or saved twice after a crash.
        ends = sorted(timeline.of("save", "failed"), key=lambda event: event.end)
        last = {event.image: event for event in ends}.values()
        failed = {event.image: event.detail["error"] for event in last if event.stage == "failed"}
        saves = [event.detail for event in last if event.stage == "save"]
        digests = {detail["path"]: detail["pixels_sha256"] for detail in saves}
        return cls(
            approach=approach,
            backend=backend,
            images=len(last),
            tiles=ledger.enqueued,
            workers=int(settings["workers"]),
            wall_s=round(timeline.seconds, 4),
            blur_s=round(sum(event.detail.get("cpu_s", event.seconds) for event in blurs), 4),
            lost_tiles=ledger.lost,
            redelivered=ledger.redelivered,
            dead_letters=ledger.dead_letters,
            failed_images=[{"image": name, "error": failed[name]} for name in sorted(failed)],
            outputs=[{"path": path, "pixels_sha256": digests[path]} for path in sorted(digests)],
            ledger=asdict(ledger),
            settings=settings,
            machine=_machine_of(timeline),
            title=title,
            started=datetime.fromtimestamp(timeline.start, UTC).isoformat(timespec="seconds"),
            notes=_notes(timeline),
            timeline=timeline,
        )

    @property
    def ok(self) -> bool:
        """Whether every image was blurred and saved whole, and no tile is in doubt."""
        in_doubt = self.ledger.get("in_doubt", 0)  # logs of earlier versions do not have it
        return bool(self.outputs) and not self.failed_images and not in_doubt

    def pixels(self) -> dict[str, str]:
        """Output file name -> sha256 of its pixels."""
        return {Path(output["path"]).name: output["pixels_sha256"] for output in self.outputs}

    def to_dict(self) -> dict[str, Any]:
        """As JSON wants it, without the timeline."""
        names = [item.name for item in fields(self) if item.compare]
        return {name: getattr(self, name) for name in names}


def _notes(timeline: Timeline) -> list[dict[str, str]]:
    """What was left out of images; one that was loaded twice, after a crash, counts once."""
    loads = sorted(timeline.of("load"), key=lambda event: event.image)
    lists = ((event.image, event.detail.get("notes")) for event in loads)
    notes = ((image, str(note)) for image, each in lists if isinstance(each, list) for note in each)
    return [{"image": image, "note": note} for image, note in dict.fromkeys(notes)]


def _machine_of(timeline: Timeline) -> dict[str, Any]:
    """What the first of a run's processes was started on, in a pod or here; its cluster."""
    told = [event.detail["machine"] for event in timeline.of("start") if "machine" in event.detail]
    where = next((item for item in told if isinstance(item, dict)), machine())
    return where | dict(chain(*(run.detail.items() for run in timeline.of("run"))))


def machine() -> dict[str, Any]:
    """What a run was recorded on, without names or addresses."""
    packages = ("studyguide", "numpy", "numba", "Pillow", "redis")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


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


KILLED = "-killed"  # in the name of a run's log: chaos struck it, so that it is no measurement

# --- logs ------------------------------------------------------------------------------------


def write_log(report: RunReport, folder: Path, stem: str) -> Path:
    """Write `<stem>_<UTC time>.txt` for people and `.json` with everything; return the latter.

    Raises StudyguideError if a file cannot be written, for example to a full disk.
    """
    timeline = report.timeline
    stamp = datetime.fromtimestamp(timeline.start, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    path = folder / f"{stem}_{stamp}.json"
    head = json.dumps({"schema": SCHEMA, "report": report.to_dict()}, indent=1)[:-2]
    events = ",\n".join(event.to_json() for event in timeline.events)
    whole = f'{head},\n "events": [\n{events}\n]}}\n'
    remedy = "The images are saved; free some space"
    for place, text in ((path, whole), (path.with_suffix(".txt"), readable(report))):
        problem = f"The log {place} cannot be written"
        with explained(StudyguideError, problem, remedy), files.atomic(place) as file:
            # A file's name may hold bytes that are no UTF-8; Python has them as surrogates.
            file.write(text.encode(errors="backslashreplace"))
    return path


def read_log(path: Path) -> RunReport:
    """Read the JSON log of a run. Raises MessageError if the file is no log of this schema."""
    try:
        log = json.loads(path.read_text("utf-8"))
        if log["schema"] != SCHEMA:
            raise ValueError(f"it has schema {log['schema']}, not {SCHEMA}")
        known = {item.name for item in fields(RunReport) if item.compare}
        kept = {key: value for key, value in log["report"].items() if key in known}
        stem = path.name.partition("_20")[0].removesuffix(KILLED)
        kept.setdefault("title", stem[1:].replace("_", " ").strip())
        kept["timeline"] = Timeline(Event.from_dict(event) for event in log["events"])
        report = RunReport(**kept, log=path.name)
        # What a field of another type would break later, in a chart or a table, it breaks here.
        str([_head(report), _tail(report), comparison([report]), report.pixels()])
        return report
    except (MessageError, *DAMAGE) as error:
        raise MessageError(f"{path} is not a run's log ({error})", "Record it again") from error


def newest_log(folder: Path, stem: str) -> Path:
    """The newest JSON log of an approach. Raises UsageError if there is none."""
    logs = sorted(folder.glob(f"{stem}_*.json"))
    if not logs:
        raise UsageError(f"No log of {stem} in {folder}", f"Run `studyguide run {stem[0]}` first")
    return logs[-1]


def readable(report: RunReport) -> str:
    """The log for people."""
    tables = [*_images(report.timeline), *_workers(report.timeline)]
    return "\n".join(map(printable, [*_head(report), *tables, *_tail(report), ""]))


def _head(report: RunReport) -> list[str]:
    return [
        f"approach {report.approach} on backend {report.backend}, started {report.started}",
        "machine:  " + ", ".join(f"{key} {value}" for key, value in report.machine.items()),
        "settings: " + ", ".join(f"{key} {value}" for key, value in report.settings.items()),
        "",
        f"wall time  {report.wall_s:9.3f} s   images {report.images}, tiles {report.tiles}",
        f"blur time  {report.blur_s:9.3f} s   CPU, summed over {report.workers} workers",
    ]


def _images(timeline: Timeline) -> list[str]:
    lines = ["", "image                     load s   blur s   save s   total s"]
    of_image: dict[str, list[Event]] = defaultdict(list)
    for event in timeline.events:
        of_image[event.image].append(event)
    for image in sorted(of_image.keys() - {""}):
        one = Timeline(of_image[image])
        sums = (sum(event.seconds for event in one.of(stage)) for stage in ("load", "blur", "save"))
        times = " ".join(f"{seconds:8.3f}" for seconds in sums)
        lines.append(f"{image:24} {times} {one.seconds:9.3f}")
    return lines


def _workers(timeline: Timeline) -> list[str]:
    lines = ["", "worker                    tiles   blurring s"]
    blurs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in timeline.of("blur"):
        blurs[event.who].append(event.seconds)
    for lane in filter(blurs.__contains__, timeline.lanes()):
        lines.append(f"{' '.join(lane):24} {len(blurs[lane]):6} {sum(blurs[lane]):12.3f}")
    return lines


def _tail(report: RunReport) -> list[str]:
    ledger = [f"  {name:13} {count}" for name, count in report.ledger.items()]
    failed = [f"  {item['image']}: {item['error']}" for item in report.failed_images]
    outputs = [f"  {item['path']}  {item['pixels_sha256']}" for item in report.outputs]
    notes = [f"  {item['image']}: {item['note']}" for item in report.notes]
    return [
        *("", "ledger (tiles)", *ledger),
        *("", "failed images", *(failed or ["  none"])),
        *("", "outputs, sha256 of their pixels", *outputs),
        *(["", "notes", *notes] if notes else []),
    ]


# --- comparison --------------------------------------------------------------------------------


def comparison(reports: list[RunReport]) -> str:
    """The table that compares runs; a's run, if among them, is the reference."""
    base = next((report for report in reports if report.approach == BASELINE), None)
    header = (
        "approach  backend     images  tiles  workers   wall s   blur s  speed-up"
        "  lost  redelivered  dead  same pixels as a"
    )
    return "\n".join([header, *(printable(_row(report, base)) for report in reports)])


def _row(report: RunReport, base: RunReport | None) -> str:
    speedup, same = "-", "-"
    if base:
        speedup = f"{base.wall_s / report.wall_s:.2f}x" if report.wall_s else "-"
        same = "yes" if report.outputs and report.pixels() == base.pixels() else "no"
    return (
        f"{report.approach:9} {report.backend:11} {report.images:6} {report.tiles:6} "
        f"{report.workers:8} {report.wall_s:8.2f} {report.blur_s:8.2f} {speedup:>9} "
        f"{report.lost_tiles:5} {report.redelivered:12} {report.dead_letters:5}  {same}"
    )
