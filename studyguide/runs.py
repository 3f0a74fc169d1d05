"""One run from its settings to its report."""

import errno
import fcntl
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from studyguide import images
from studyguide.approaches import APPROACHES, Approach
from studyguide.cluster import KEPT_S, Chaos, Cluster, LocalCluster, key_prefix
from studyguide.errors import DAMAGE, ImageError, MessageError, StudyguideError, UsageError
from studyguide.machinery import files
from studyguide.machinery.faults import Fault
from studyguide.machinery.link import clear, expire
from studyguide.record.report import KILLED, RunReport, write_log
from studyguide.record.timeline import Event, Recorder, Timeline
from studyguide.settings import OPTIONS, Settings, describe, from_options, redis_url
from studyguide.tiles import grid
from studyguide.work import Run

log = logging.getLogger(__name__)

BACKENDS = ("local", "kubernetes")
LOCK = "lock"  # in each temporary folder, held by the process that uses it
YOUNG_S = 60.0  # a folder may be this old before it is locked
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
    planted = [Fault.parse(text) for text in faults]
    paths, _ = images.find(checked.images)
    _check_faults(planted, chosen, paths, checked.tile_size)
    files.check_writable(checked.output)
    if checked.output.samefile(checked.images):
        problem = f"The output would overwrite the images: both are in {checked.output}"
        raise UsageError(problem, "Choose another folder with --output")
    if logs is not None:
        files.check_writable(Path(logs), "--logs")
    events = Events(on_event)
    if chosen.on_threads:
        _run_threads(chosen.on_threads, checked, Recorder(events))
    elif chosen.on_cluster:
        run_id = resume or f"{time.time_ns():x}"
        with _folder(run_id, resumable) as folder:
            _note(folder, approach, checked)
            kind = _kind(backend, run_id=run_id, namespace=namespace, keep=keep)
            cluster = kind(checked, approach, folder, Recorder(events))
            checked = cluster.settings  # where pods run some of them are other ones
            cluster.run_id, cluster.chaos, cluster.faults = run_id, chaos, planted
            _run_cluster(chosen.on_cluster, cluster)
    _tell_unfinished(paths, events)
    where = "local" if chosen.on_threads else backend
    made = RunReport.of(approach, where, Timeline(events.all), describe(checked), chosen.title)
    if logs is not None:
        write_log(made, Path(logs), chosen.stem + KILLED * bool(chaos))
    return made


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


def _run_cluster(function: Callable[[Any], None], cluster: Cluster) -> None:
    files.sweep(cluster.settings.output)
    with cluster:
        if isinstance(cluster, LocalCluster):
            cluster.prepare()
            cluster.recorder.mark("run")  # on Kubernetes the clock starts with the roles
        function(cluster)


@contextmanager
def _folder(run_id: str, resumable: bool) -> Iterator[Path]:
    """The folder of a run on a cluster; it is kept if the run is cut short and can be resumed."""
    sweep()
    folder = _place(run_id)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UsageError(f"{folder} belongs to somebody else", "Set TMPDIR to a folder of your own")
    try:
        lock = hold(folder)
    except BlockingIOError as error:
        raise UsageError(f"The run {run_id} still goes on", "Wait for its end") from error
    with lock:
        os.utime(folder / LOCK)  # it can be resumed for some days from here on
        try:
            yield folder
        except BaseException as error:
            if resumable and (folder / "events").exists():
                log.warning("run %s was cut short; --resume %s goes on with it", run_id, run_id)
            else:
                _remove(folder)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = "Free some space, or set TMPDIR to a folder on another disk"
                raise StudyguideError(f"{folder}: {error.strerror}", remedy) from error
            raise
        _remove(folder)


def hold(folder: Path) -> IO[str]:
    """Lock a folder for as long as the returned file is open: it is closed however we end.

    Raises BlockingIOError if another process holds it.
    """
    lock = (folder / LOCK).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        lock.close()
        raise
    return lock


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder that a later run removes if this process is killed."""

    def __init__(self, kind: str) -> None:
        sweep()
        super().__init__(prefix=f"studyguide-{kind}-")
        self._lock = hold(Path(self.name))

    def cleanup(self) -> None:
        """Remove the folder."""
        self._lock.close()
        super().cleanup()


def sweep() -> None:
    """Remove the temporary folders of killed processes, and of cut-short runs after some days.

    On a Redis that somebody else runs, their keys are removed too, or get a time to live.
    """
    for folder in Path(tempfile.gettempdir()).glob("studyguide-*"):
        # It is held by a process, somebody else's, or was removed meanwhile.
        with suppress(OSError, StudyguideError):
            age_s = time.time() - (folder / LOCK).stat().st_mtime
            # Others keep folders of such names, too; a young one may be about to be locked.
            if _is_private(folder) and age_s > YOUNG_S:
                with hold(folder):
                    _leave(folder, age_s < KEPT_S)


def _is_private(folder: Path) -> bool:
    """Whether it is a folder, not a link to one, that only we can enter."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and (found.st_mode & 0o77, found.st_uid) == (0, os.getuid())


def _leave(folder: Path, recent: bool) -> None:
    """Keep the folder of a dead process if it can be resumed, else remove it."""
    url, prefix = redis_url(), key_prefix(folder.name.removeprefix("studyguide-"))
    resumable = {letter for letter, approach in APPROACHES.items() if approach.resumable}
    if recent and _noted(folder).get("approach") in resumable:
        if url:
            expire(url, prefix, KEPT_S)
        return
    if url:
        clear(url, prefix)
    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: `sweep` finds what an interruption leaves."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _place(run_id: str) -> Path:
    return Path(tempfile.gettempdir()) / f"studyguide-{run_id}"


def _note(folder: Path, approach: str, settings: Settings) -> None:
    """Write down what `--resume` needs to know, in whatever folder it is called."""
    places = {"images": settings.images, "output": settings.output.parent}
    absolute = {name: str(path.absolute()) for name, path in places.items()}
    noted = {"approach": approach, "settings": describe(settings) | absolute}
    with files.atomic(folder / "run.json") as file:
        file.write(json.dumps(noted).encode())


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
    folder = _place(run_id)
    # A name is of letters and digits, so that it cannot lead to another folder.
    noted = _noted(folder) if run_id.isalnum() else {}
    if not approach or noted.get("approach") != approach:
        raise UsageError(
            f"There is no run {run_id!r} to resume in {folder.parent}",
            "Only runs of f and g on this machine that were cut short can be resumed, by their own "
            "letter and with the same TMPDIR",
        )
    return dict(noted["settings"])


def _noted(folder: Path) -> dict[str, Any]:
    """What `_note` wrote; nothing if it is not there or damaged."""
    with suppress(OSError, *DAMAGE):
        return dict(json.loads((folder / "run.json").read_bytes()))
    return {}


def _kind(backend: str, **options: Any) -> Callable[[Settings, str, Path, Recorder], Cluster]:
    if backend == "local":
        return LocalCluster
    from studyguide.kubernetes import KubernetesCluster

    return partial(KubernetesCluster, **options)


def import_events(approach: str, path: Path, logs: Path) -> RunReport:
    """Write the log of a run on a cluster from its events, one JSON object a line of `path`.

    Raises MessageError if a line is no event.
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
    for name in ("images", "output"):
        given = {**given, name: Path(given.get(name, getattr(Settings, name)))}
    settings = from_options(given)
    return replace(settings, output=settings.output / chosen.stem)
