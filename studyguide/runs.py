"""One run from its settings to its report."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from studyguide import images
from studyguide.approaches import APPROACHES, Approach
from studyguide.cluster import Chaos, Cluster, LocalCluster
from studyguide.errors import ImageError, UsageError
from studyguide.faults import Fault
from studyguide.report import RunReport, write_log
from studyguide.settings import OPTIONS, Settings, describe, from_options
from studyguide.tiles import grid
from studyguide.timeline import Event, Recorder, Timeline
from studyguide.work import Run

BACKENDS = ("local", "kubernetes")
ONE_WORKER = ("a", "d")  # one thread by definition, whatever the settings say


def run(
    approach: str,
    *,
    logs: str | Path | None = None,
    backend: str = "local",
    keep: bool = False,
    on_event: Callable[[Event], None] | None = None,
    chaos: Sequence[Chaos] = (),
    faults: Sequence[str] = (),
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
    on_event : callable, optional
        Is given each `Event` soon after it happened.
    chaos : sequence of callables, optional
        What strikes the cluster in d to g, for example `KillWorker(after=20)`.
    faults : sequence of str, optional
        Faults planted on tiles in e to g, for example "flaky:chart.png:7".
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
        If a setting is wrong, the folder of images is empty or the output cannot be written.
    QueueError, ToolError
        If Redis or a process failed for good.
    """
    if approach not in APPROACHES:
        raise UsageError(f"The approach is {approach!r}", f"Use one of {' '.join(APPROACHES)}")
    if backend not in BACKENDS:
        raise UsageError(f"The backend is {backend!r}", f"Use one of {', '.join(BACKENDS)}")
    chosen = APPROACHES[approach]
    checked = _settings(chosen, settings)
    planted = [Fault.parse(text) for text in faults]
    paths, _ = images.find(checked.images)
    images.check_writable(checked.output)
    if logs is not None:
        images.check_writable(Path(logs), "--logs")
    events = Events(on_event)
    if chosen.on_threads:
        _run_threads(chosen.on_threads, checked, Recorder(events))
    elif chosen.on_cluster:
        with _cluster(chosen, checked, Recorder(events), backend, keep) as cluster:
            cluster.chaos, cluster.faults = chaos, planted
            chosen.on_cluster(cluster)
    _tell_unfinished(paths, events)
    where = "local" if chosen.on_threads else backend
    made = RunReport.of(approach, where, Timeline(events.all), describe(checked))
    if logs is not None:
        write_log(made, Path(logs), chosen.stem)
    return made


class Events:
    """A sink that keeps all events and shows each to who wants to see it."""

    def __init__(self, on_event: Callable[[Event], None] | None) -> None:
        self.all: list[Event] = []
        self._on_event = on_event

    def __call__(self, event: Event) -> None:
        """Keep one event."""
        self.all.append(event)
        if self._on_event:
            self._on_event(event)


def _tell_unfinished(paths: Sequence[Path], events: Events) -> None:
    """No image is left out in silence, whatever ended the run."""
    ended = {event.image for event in events.all if event.stage in ("save", "failed")}
    for path in paths:
        if path.name not in ended:
            error = ImageError(f"{path} was not done: the run ended before", "Run it again")
            Recorder(events).mark("failed", path.name, error=str(error))


def _run_threads(function: Callable[[Run], None], settings: Settings, recorder: Recorder) -> None:
    from studyguide.blur import warm_up

    warm_up(settings.blur)  # kernels are compiled before the clock starts
    recorder.mark("run")
    function(Run(settings, recorder))


@contextmanager
def _cluster(
    chosen: Approach, settings: Settings, recorder: Recorder, backend: str, keep: bool
) -> Iterator[Cluster]:
    """Make the cluster that the backend names, with a folder of its own that goes with it."""
    with tempfile.TemporaryDirectory(prefix="studyguide-") as name:
        folder = Path(name)
        if backend == "kubernetes":
            from studyguide.kubernetes import KubernetesCluster

            pods = KubernetesCluster(settings, chosen.letter, folder, recorder, keep)
            with pods:
                yield pods
        else:
            with LocalCluster(settings, chosen.letter, folder, recorder) as processes:
                recorder.mark("run")
                yield processes


def import_events(approach: str, path: Path, logs: Path) -> RunReport:
    """Write the log of a run on a cluster from the events that were fetched from it.

    Parameters
    ----------
    approach : {"d", "e", "f", "g"}
    path : Path
        Events, one JSON object a line.
    logs : Path
        Folder for the log.
    """
    timeline = Timeline(Event.from_json(line) for line in path.read_text("utf-8").splitlines())
    workers = {(event.process, event.lane) for event in timeline.of("blur")}
    made = RunReport.of(approach, "kubernetes", timeline, {"workers": len(workers)})
    write_log(made, logs, APPROACHES[approach].stem)
    return made


def expected_blurs(approach: str, given: dict[str, Any]) -> int:
    """How many blurs a run will do, as the headers of its images tell: tiles, or whole images."""
    chosen = APPROACHES[approach]
    settings = _settings(chosen, given)
    sizes = [images.size(path) for path in images.find(settings.images)[0]]
    if chosen.letter in ONE_WORKER:
        return len(sizes)
    return sum(len(grid(height, width, settings.tile_size)) for height, width in sizes)


def _settings(chosen: Approach, given: dict[str, Any]) -> Settings:
    """Check what was given, and let each approach have an output folder of its own."""
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise UsageError(f"There is no setting {unknown[0]!r}", f"Use one of {', '.join(OPTIONS)}")
    if chosen.workers and (chosen.letter in ONE_WORKER or given.get("workers") is None):
        given = {**given, "workers": chosen.workers}
    for name in ("images", "output"):
        given = {**given, name: Path(given.get(name, getattr(Settings, name)))}
    settings = from_options(given)
    return replace(settings, output=settings.output / chosen.stem)
