"""Helpers for the notebooks: set up, run, measure, show, tear down.

Outputs are compared in CI, so what these helpers print is either an invariant (240/240 tiles, same
pixels) or stands in a cell whose output is not compared.
"""

import hashlib
import inspect
import os
import re
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from IPython.display import Markdown, display
from numpy.typing import ArrayLike

from studyguide.approaches import APPROACHES
from studyguide.blur import POOL
from studyguide.cluster import Cluster, LocalCluster
from studyguide.errors import UsageError
from studyguide.machinery import places
from studyguide.machinery.run_folder import TemporaryFolder
from studyguide.machinery.warm import Template
from studyguide.record.looks import AXIS, TOP, WIDTH, Chart
from studyguide.record.report import RunReport
from studyguide.runs import run
from studyguide.tiles import Pixels
from studyguide_course.doctor import describe
from studyguide_course.learner import kernel
from studyguide_course.learner.progress import standing

if TYPE_CHECKING:
    from studyguide_course.predict import Guess

K = TypeVar("K")
BUSY = 0.8  # with a smaller share of the cores than this, times say little


class Lesson:
    """One lesson's workshop: where its images are, where its outputs go, and its reference.

    Its runs take the sample images named in `only` (all when empty), and share the settings
    `options`, the reference included.
    """

    def __init__(self, letter: str, only: Sequence[str] = (), **options: Any) -> None:
        self.approach = APPROACHES[letter]
        self.images = places.find("images/input")
        # Removed at the end of the session at the latest, if the last cell is never run.
        self._workshop = TemporaryFolder("lesson")
        self.folder = Path(self._workshop.name)
        if only:
            self.images = copy_images(self.images, only, self.folder / "images")
        self.options = options
        self._threads = set(threading.enumerate())
        self._had_children = _has_children()
        self._reference: RunReport | None = None
        self._guesses: list[Guess] = []
        where = "threads of this process" if self.approach.on_threads else "local processes"
        facts = {"lesson": f"{letter}: {self.approach.title}, on {where}", **describe()}
        facts["exercises"] = standing(letter, Path.cwd())
        kernel.install()
        for name, value in {**facts, "free cores": _free_cores_line(free_cores())}.items():
            print(f"{name:12} {value}")

    def predict(self, question: str, low: float, high: float, default: float, unit: str) -> "Guess":
        """Ask the reader for a number, which the next run locks; see `predict.Guess`."""
        from studyguide_course.predict import Guess  # ipywidgets: only where somebody guesses

        guess = Guess(question, low, high, default, unit)
        self._guesses.append(guess)
        display(guess)
        return guess

    def lock_guesses(self) -> None:
        """Lock every guess of the reader: a run begins."""
        for guess in self._guesses:
            guess.lock()

    def run(self, letter: str | None = None, **options: Any) -> RunReport:
        """Run an approach, the lesson's own by default, on the sample images; lock all guesses."""
        self.lock_guesses()
        places = {"images": self.images, "output": self.folder / "output"}
        options = {**places, **self.options, **options}
        return run(letter or self.approach.letter, **options)

    @property
    def reference(self) -> RunReport:
        """The sequential run that all others must agree with, done once."""
        if self._reference is None:
            self._reference = self.run("a")
        return self._reference

    def median(self, repeats: int = 3, letter: str | None = None, **options: Any) -> RunReport:
        """Return the run of median wall time among several."""
        return self.race(letter or self.approach.letter, repeats=repeats, **options)[0]

    def race(self, *letters: str, repeats: int = 3, **options: Any) -> list[RunReport]:
        """Run approaches alternately and return the run of median wall time of each."""
        cases = {letter: {"letter": letter, **options} for letter in letters}
        return list(self.interleave(cases, repeats).values())

    def interleave(
        self, cases: Mapping[K, Mapping[str, Any]], repeats: int = 3
    ) -> dict[K, RunReport]:
        """Run what is to be compared alternately; return the run of median wall time of each.

        Other programs that use the machine for a minute then slow down all cases alike. A case is
        a name and the options of `run`, among them `letter` for another approach.
        """
        rounds = [
            {name: self.run(**options) for name, options in cases.items()} for _ in range(repeats)
        ]
        middle = (repeats - 1) // 2
        return {
            name: sorted((runs[name] for runs in rounds), key=lambda run: run.wall_s)[middle]
            for name in cases
        }

    def check(self, report: RunReport) -> str:
        """State in one line whether a run did the same work as the sequential one."""
        same, ledger = report.pixels().items() & self.reference.pixels().items(), report.ledger
        return (
            f"{len(same)}/{len(self.reference.outputs)} images with the pixels of a, "
            f"{ledger['assembled']}/{ledger['enqueued']} tiles in place, "
            f"{ledger['lost']} lost, {ledger['dead_letters']} dead"
        )

    @staticmethod
    def claim(sentence: str, holds: object, **values: object) -> None:
        """Print a sentence about an outcome if it holds.

        Raises AssertionError with the values that it was computed from if it does not, so that no
        reader sees the sentence beside an output that refutes it.
        """
        if not holds:
            found = ", ".join(f"{name} = {value!r}" for name, value in values.items())
            raise AssertionError(f"False here: {sentence} ({found})")
        print(f"✓ {sentence}")

    def close(self) -> str:
        """Remove what the lesson made, and check that no thread, process or file of it is left."""
        self._workshop.cleanup()
        Template.end()
        assert not self.folder.exists(), f"files are left in {self.folder}"
        begun = [t for t in threading.enumerate() if t not in self._threads and not t.daemon]
        threads = [t.name for t in begun if not t.name.startswith(POOL)]  # it keeps its threads
        assert not threads, f"threads still run: {threads}"
        assert self._had_children or not _has_children(), "a process that was started still runs"
        return "Nothing is left: no thread, no process, no file."


def _has_children() -> bool:
    """Whether this process has child processes; False where the system cannot tell."""
    try:
        # WNOWAIT: their exit status is left to whoever started them.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (ChildProcessError, AttributeError):  # macOS has waitid from Python 3.13 on
        return False
    return True


def show_source(*things: Callable[..., Any] | type) -> Markdown:
    """The library's own source of these functions or classes, as it runs here."""
    texts = (inspect.getsource(thing).rstrip() for thing in things)
    return Markdown("```python\n" + "\n\n\n".join(texts) + "\n```")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Markdown:
    """A table that every reader shows, on a code host too."""
    lines = [header, ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


# --- measuring ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """What a call took: wall seconds, and CPU seconds of all threads of this process."""

    wall_s: float
    cpu_s: float

    @property
    def cores(self) -> float:
        """Cores at work on average: CPU seconds per wall second."""
        return self.cpu_s / self.wall_s


def spent(call: Callable[[], object]) -> Spent:
    """Call, and measure both clocks."""
    start, cpu = time.perf_counter(), time.process_time()
    call()
    cpu = time.process_time() - cpu
    return Spent(time.perf_counter() - start, cpu)


def durations(call: Callable[[], object], repeats: int = 3) -> list[float]:
    """How long each of several calls takes, in wall seconds."""
    return [spent(call).wall_s for _ in range(repeats)]


def fastest(calls: Mapping[K, Callable[[], object]], repeats: int = 9) -> dict[K, Spent]:
    """Call alternately, and return the fastest call of each."""
    rounds = [{name: spent(call) for name, call in calls.items()} for _ in range(repeats)]
    return {name: min((each[name] for each in rounds), key=lambda s: s.wall_s) for name in calls}


def free_cores(seconds: float = 0.2) -> float:
    """Measure how many cores this process gets when it asks for all of them, for so many seconds.

    It hashes on one thread for each core, which needs no lock of the interpreter. What other
    programs use is missing from the result.
    """
    cores, block = os.cpu_count() or 1, bytes(2**18)

    def hash_until(end: float) -> None:
        while time.perf_counter() < end:
            hashlib.sha256(block).digest()

    with ThreadPoolExecutor(cores) as pool:
        end = time.perf_counter() + seconds
        return min(cores, spent(lambda: list(pool.map(hash_until, [end] * cores))).cores)


def _free_cores_line(free: float) -> str:
    cores = os.cpu_count() or 1
    line = f"{free:.1f} of {cores}"
    if free >= BUSY * cores:
        return line
    return f"{line}: other programs use the rest, so times and speed-ups say little here"


# --- pictures ------------------------------------------------------------------------------------

SMALL: Any = {"fontsize": 8.5, "ha": "center", "va": "center"}


def gallery(title: str, pictures: Mapping[str, Pixels]) -> Chart:
    """Show images side by side, each under its name: (H, W), (H, W, 3) or (H, W, 4), uint8."""
    gap = 0.15  # inches
    width = (WIDTH - 0.4 + gap) / len(pictures) - gap
    tall = width * max(image.shape[0] / image.shape[1] for image in pictures.values())
    names, room = ", ".join(pictures), TOP + 0.25 + tall + gap
    chart = Chart(room, title, f"from left to right: {names}", f"{title}: {names}")
    for n, (name, image) in enumerate(pictures.items()):
        left, height = 0.2 + n * (width + gap), chart.get_figheight()
        axes = chart.add_axes((left / WIDTH, gap / height, width / WIDTH, tall / height))
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(name, fontsize=9.5)
        axes.set(xticks=(), yticks=(), anchor="N")
    return chart


def heat_map(title: str, rows: Sequence[str], columns: Sequence[str], seconds: ArrayLike) -> Chart:
    """Draw a table of times, of shape (rows, columns), dark where fast; the fastest has a frame."""
    times = np.asarray(seconds, dtype=float)
    down, along = divmod(int(times.argmin()), len(columns))
    facts = f"milliseconds; fastest, in the frame: {rows[down]}, {columns[along]}"
    tall = 0.42 * len(rows)
    name = f"{title}: {len(rows)} by {len(columns)}"
    chart = Chart(TOP + tall + AXIS - 0.15, title, facts, name)
    axes = chart.place(rows, TOP, tall)
    shade = np.log(times / times.min())
    axes.imshow(shade, cmap="viridis", aspect="auto")
    axes.grid(visible=False)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for (y, x), value in np.ndenumerate(times):
        ink = "black" if shade[y, x] > 0.6 * shade.max() else "white"
        axes.text(x, y, f"{1000 * value:.0f}", color=ink, **SMALL)
    frame = np.array([[-1, 1, 1, -1, -1], [-1, -1, 1, 1, -1]])
    axes.plot(along + 0.46 * frame[0], down + 0.42 * frame[1], color="white", linewidth=2)
    return chart


# --- one lesson's own needs ----------------------------------------------------------------------


def copy_images(source: Path, names: Sequence[str], folder: Path) -> Path:
    """Copy these images into a new folder, and return it: a small job out of a large one."""
    folder.mkdir()
    for name in names:
        shutil.copy(source / name, folder)
    return folder


def show_command(name: str) -> Markdown:
    """A command of protocol.lua, with the comment that states its arguments and its answer."""
    source = files("studyguide").joinpath("protocol.lua").read_text()
    found = re.search(rf"(?ms)^-- {name} .*?^end$", source)
    if not found:
        raise UsageError(f"protocol.lua has no command {name!r}", "Look there for its names")
    return Markdown(f"```lua\n{found.group()}\n```")


@dataclass
class MemoryProbe:
    """Chaos that harms nobody: once `after` tiles are blurred it weighs the workers' processes.

    `mib` then has the resident memory of each in MiB. What processes share, for example the code of
    libraries, is counted for each of them.
    """

    after: int
    mib: dict[str, float] = field(default_factory=dict)

    def __call__(self, cluster: Cluster) -> None:
        """Look if it is time."""
        if self.mib or cluster.blurred < self.after or not isinstance(cluster, LocalCluster):
            return
        workers = cluster.having("worker")
        self.mib = {process.role.name: _resident_mib(process.child.pid) for process in workers}


def _resident_mib(pid: int) -> float:
    """Memory of a process that lies in RAM: from /proc, or from ps where there is none."""
    statm = Path(f"/proc/{pid}/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20
    command = ["ps", "-o", "rss=", "-p", str(pid)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 2**10
