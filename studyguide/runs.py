"""One run from its settings to its report."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from studyguide import images
from studyguide.approaches import APPROACHES, Approach
from studyguide.cluster import Chaos, LocalCluster
from studyguide.errors import UsageError
from studyguide.faults import Fault
from studyguide.report import RunReport, write_log
from studyguide.settings import OPTIONS, Settings, describe, from_options
from studyguide.tiles import grid
from studyguide.timeline import Event, Recorder, Timeline
from studyguide.work import Run

ONE_WORKER = ("a", "d")  # one thread by definition, whatever the settings say


def run(
    approach: str,
    *,
    logs: str | Path | None = None,
    backend: str = "local",
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
    backend : {"local"}
        Where d to g run: on processes of this machine.
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
    if backend != "local":
        raise UsageError(f"The backend is {backend!r}", "Use local")
    chosen = APPROACHES[approach]
    checked = _settings(chosen, settings)
    planted = [Fault.parse(text) for text in faults]
    images.find(checked.images)
    images.check_writable(checked.output)
    timeline = _record(chosen, checked, on_event or (lambda event: None), chaos, planted)
    made = RunReport.of(approach, backend, timeline, describe(checked))
    if logs is not None:
        write_log(made, Path(logs), chosen.stem)
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


def _record(
    chosen: Approach,
    settings: Settings,
    on_event: Callable[[Event], None],
    chaos: Sequence[Chaos],
    faults: Sequence[Fault],
) -> Timeline:
    """Run an approach and collect its events."""
    events: list[Event] = []

    def sink(event: Event) -> None:
        events.append(event)
        on_event(event)

    recorder = Recorder(sink)
    if chosen.on_threads:
        _warm_up()
        recorder.mark("run")
        chosen.on_threads(Run(settings, recorder))
    elif chosen.on_cluster:
        with tempfile.TemporaryDirectory(prefix="studyguide-") as folder:
            recorder.mark("run")
            cluster = LocalCluster(settings, chosen.letter, Path(folder), recorder)
            cluster.chaos, cluster.faults = chaos, faults
            with cluster:
                chosen.on_cluster(cluster)
    return Timeline(events)


def _warm_up() -> None:
    """Have the kernels compiled before the clock starts."""
    from studyguide.blur import warm_up

    warm_up()
