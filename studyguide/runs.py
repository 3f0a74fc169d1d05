"""One run from its settings to its report."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from studyguide import images
from studyguide.approaches import APPROACHES, Approach
from studyguide.cluster import Chaos, Cluster, LocalCluster
from studyguide.errors import ImageError, MessageError, UsageError
from studyguide.machinery.faults import Fault
from studyguide.machinery.files import check_writable, sweep
from studyguide.machinery.run_folder import place, read_notes, run_folder
from studyguide.plan import Plan
from studyguide.record.report import KILLED, RunReport, write_log
from studyguide.record.timeline import Event, Recorder, Timeline
from studyguide.settings import OPTIONS, Settings, describe, from_options
from studyguide.tiles import grid
from studyguide.work import Run

log = logging.getLogger(__name__)

BACKENDS = ("local", "kubernetes")
JOBS = ("images", "output", "tile_size", "kernel_size", "sigma", "method")  # what makes a job


def run(
    approach: str,
    *,
    logs: str | Path | None = None,
    backend: str = "local",
    keep: bool = False,
    namespace: str = "",
    on_event: Callable[[Event], None] | None = None,
    chaos: Sequence[Chaos] = (),
    faults: Sequence[str] = (),
    resume: str = "",
    local: Callable[[Plan, Recorder], LocalCluster] = LocalCluster,
    **settings: Any,
) -> RunReport:
    """Blur a folder of images in one of the seven ways.

    Parameters
    ----------
    approach : {"a", "b", "c", "d", "e", "f", "g"}
    logs : path, optional
        Folder for the run's log; none is written when not given.
    backend : {"local", "kubernetes"}
        Where d to g run: on processes of this machine, or on pods of kubectl's current context.
    keep : bool
        Leave the deployment on Kubernetes running at the end.
    namespace : str, optional
        Namespace on Kubernetes, which may exist; by default one of the run's own, which is deleted.
    on_event : callable, optional
        Is given each `Event` soon after it happened.
    chaos : sequence of callables, optional
        What strikes the cluster in d to g, for example `KillWorker(after=20)`.
    faults : sequence of str, optional
        Faults planted on tiles in e to g, for example "flaky:chart.png:7".
    resume : str, optional
        Name of a run of f or g on this machine that was cut short: go on with it. It keeps the
        settings that it had; those given here come before them, but for what makes its tiles.
    local : callable, optional
        The kind of `LocalCluster` to use, for example one with a slow network.
    **settings
        Any of `studyguide.settings.OPTIONS`: images, output, workers, tile_size, kernel_size,
        sigma, method, ...

    Returns
    -------
    RunReport
        Its `timeline` holds the events that it was computed from.

    Raises
    ------
    UsageError
        If a setting is wrong, the folder of images is empty, a fault is planted on an image or a
        tile that this run does not have, the output cannot be written, or there is nothing to
        resume.
    QueueError, ToolError
        If Redis or a process failed for good.
    """
    _require(approach, "approach", APPROACHES)
    _require(backend, "backend", BACKENDS)
    chosen = APPROACHES[approach]
    resumable = backend == "local" and chosen.resumable
    if resume:
        noted = _settings_of(resume, approach if resumable else "")
        _require_same_jobs(resume, chosen, noted, noted | settings)
        settings = noted | settings
    checked = _settings(chosen, settings)
    planted = tuple(map(Fault.parse, faults))
    paths = _check(checked, chosen, planted, logs)
    events = Events(on_event)
    if chosen.on_threads:
        _run_threads(chosen.on_threads, checked, Recorder(events))
    else:
        run_id = resume or f"{time.time_ns():x}"
        with run_folder(run_id, _notes(approach, checked, resumable)) as folder:
            plan = Plan(approach, checked, folder, run_id, planted, tuple(chaos))
            kind = _pods(namespace, keep) if backend == "kubernetes" else local
            cluster = kind(plan, Recorder(events))
            checked = cluster.settings  # where pods run some of them are other ones
            _run_cluster(chosen, cluster)
    _tell_unfinished(paths, events)
    where = "local" if chosen.on_threads else backend
    made = RunReport.of(approach, where, Timeline(events.all), describe(checked), chosen.title)
    if logs is not None:
        write_log(made, Path(logs), chosen.stem + KILLED * bool(chaos))
    return made


def _check(
    settings: Settings, chosen: Approach, planted: Sequence[Fault], logs: str | Path | None
) -> list[Path]:
    """The images of a run; UsageError if a setting cannot be carried out."""
    paths, _ = images.find(settings.images)
    _check_faults(planted, chosen, paths, settings.tile_size)
    check_writable(settings.output)
    if settings.output.samefile(settings.images):
        problem = f"The output would overwrite the images: both are in {settings.output}"
        raise UsageError(problem, "Choose another folder with --output")
    if logs is not None:
        check_writable(Path(logs), "--logs")
    return paths


def _require(value: str, name: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise UsageError(f"The {name} is {value!r}", f"Use one of {' '.join(choices)}")


def _check_faults(
    planted: Sequence[Fault], chosen: Approach, paths: Sequence[Path], tile_size: int
) -> None:
    """Raise UsageError for a fault that could never strike: it would be ignored without a word."""
    if planted and chosen.queue == "none":
        raise UsageError(
            f"Approach {chosen.letter} has no place for the fault '{planted[0]}'",
            "Plant faults in e, f or g, whose workers take one tile at a time from a queue",
        )
    by_name = {path.name: path for path in paths}
    for fault in planted:
        if fault.image not in by_name:
            raise UsageError(
                f"The fault '{fault}' is planted on {fault.image}, which is not among the images",
                f"Use one of {', '.join(by_name)}",
            )
        tiles = len(grid(*images.size(by_name[fault.image]), tile_size))
        if fault.tile >= tiles:
            raise UsageError(
                f"The fault '{fault}' is planted on tile {fault.tile} of {fault.image}, which has "
                f"{tiles} tiles of size {tile_size}, numbered from 0",
                "Choose a tile that exists, or a smaller --tile-size",
            )


@dataclass
class Events:
    """A sink that keeps all events and shows each to who wants to see it."""

    on_event: Callable[[Event], None] | None
    all: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Keep one event."""
        self.all.append(event)
        if self.on_event:
            self.on_event(event)


def _tell_unfinished(paths: Sequence[Path], events: Events) -> None:
    """No image is left out in silence, whatever ended the run."""
    ended = {event.image for event in events.all if event.stage in ("save", "failed")}
    for path in (path for path in paths if path.name not in ended):
        error = ImageError(f"{path} was not done: the run ended before", "Run it again")
        Recorder(events).mark("failed", path.name, error=str(error))


def _run_threads(function: Callable[[Run], None], settings: Settings, recorder: Recorder) -> None:
    from studyguide.blur import warm_up

    warm_up(settings.blur)  # kernels are compiled before the clock starts
    recorder.mark("run")
    function(Run(settings, recorder))


def _pods(namespace: str, keep: bool) -> Callable[[Plan, Recorder], Cluster]:
    from studyguide.kubernetes import KubernetesCluster

    return partial(KubernetesCluster, namespace=namespace, keep=keep)


def _run_cluster(chosen: Approach, cluster: Cluster) -> None:
    assert chosen.on_cluster
    sweep(cluster.settings.output)
    with cluster:
        if isinstance(cluster, LocalCluster):
            cluster.prepare()
            cluster.recorder.mark("run")  # on Kubernetes the clock starts with the roles
        chosen.on_cluster(cluster)


def _notes(approach: str, settings: Settings, resumable: bool) -> dict[str, Any]:
    """What `--resume` needs to know, in whatever folder it is called."""
    places = {"images": settings.images, "output": settings.output.parent}
    absolute = {name: str(path.absolute()) for name, path in places.items()}
    return {
        "approach": approach,
        "resumable": resumable,
        "settings": describe(settings) | absolute,
    }


def _require_same_jobs(
    run_id: str, chosen: Approach, noted: dict[str, Any], given: dict[str, Any]
) -> None:
    """Raise UsageError if a run would go on with other jobs: its tiles are those of the first."""
    before, now = (describe(_settings(chosen, settings)) for settings in (noted, given))
    for name in JOBS:
        old, new = before[name], now[name]
        if name in ("images", "output"):
            old, new = Path(old).resolve(), Path(new).resolve()
        if old != new:
            raise UsageError(
                f"The run {run_id} was begun with {name} {old}, not {new}",
                f"Leave --{name.replace('_', '-')} out to go on with it, "
                "or begin a new run without --resume",
            )


def _settings_of(run_id: str, approach: str) -> dict[str, Any]:
    """The settings of a run that was cut short.

    Raises UsageError if there is no such run of that approach.
    """
    folder = place(run_id)
    # A name is of letters and digits, so that it cannot lead to another folder.
    noted = read_notes(folder) if run_id.isalnum() else {}
    if not approach or noted.get("approach") != approach:
        raise UsageError(
            f"There is no run {run_id!r} to resume in {folder.parent}",
            "Only runs of f and g on this machine that were cut short can be resumed, by their own "
            "letter and with the same TMPDIR",
        )
    return dict(noted["settings"])


def import_events(approach: str, path: Path, logs: Path) -> RunReport:
    """Write the log of a run on a cluster from its events, one JSON object a line of `path`.

    Raises MessageError if a line is not an event.
    """
    _require(approach, "approach", [it.letter for it in APPROACHES.values() if it.on_cluster])
    lines = path.read_text("utf-8", errors="replace").splitlines()
    try:
        timeline = Timeline(Event.from_json(line) for line in lines)
    except MessageError as error:
        raise MessageError(f"{path}: {error.problem}", "Fetch the events again") from error
    workers = {(event.process, event.lane) for event in timeline.of("blur")}
    chosen = APPROACHES[approach]
    made = RunReport.of(approach, "kubernetes", timeline, {"workers": len(workers)}, chosen.title)
    write_log(made, logs, chosen.stem)
    return made


def expected_blurs(approach: str, given: dict[str, Any]) -> int:
    """How many blurs a run will do, as the headers of its images tell: tiles, or whole images."""
    chosen = APPROACHES[approach]
    settings = _settings(chosen, given)
    sizes = [images.size(path) for path in images.find(settings.images)[0]]
    if not chosen.tiled:
        return len(sizes)
    return sum(len(grid(height, width, settings.tile_size)) for height, width in sizes)


def _settings(chosen: Approach, given: dict[str, Any]) -> Settings:
    """Check what was given, and let each approach have an output folder of its own."""
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise UsageError(f"There is no setting {unknown[0]!r}", f"Use one of {', '.join(OPTIONS)}")
    if chosen.workers and (not chosen.tiled or given.get("workers") is None):
        given = {**given, "workers": chosen.workers}
    settings = from_options(given)
    return replace(settings, output=settings.output / chosen.stem)
