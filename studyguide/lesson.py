"""What the notebooks lean on: one line to set up, one to tear down, and ways to show things.

Outputs are compared in CI, so what these helpers print is either an invariant (240/240 tiles, same
pixels) or stands in a cell whose output is not compared.
"""

import inspect
import re
import shutil
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from IPython.display import Markdown

from studyguide.approaches import APPROACHES
from studyguide.doctor import describe
from studyguide.errors import UsageError
from studyguide.report import RunReport
from studyguide.runs import run


class Lesson:
    """One lesson's workshop: where its images are, where its outputs go, and its reference.

    Parameters
    ----------
    letter : {"a", ..., "g"}
        The approach that the lesson is about.
    only : sequence of str, optional
        Names of the sample images that its runs take; all of them when not given.
    **options
        Settings that all its runs share, the reference included.
    """

    def __init__(self, letter: str, only: Sequence[str] = (), **options: Any) -> None:
        self.approach = APPROACHES[letter]
        self.images = find_images()
        self.folder = Path(tempfile.mkdtemp(prefix="studyguide-lesson-"))
        if only:
            self.images = copy_images(self.images, only, self.folder / "images")
        self.options = options
        self._threads = set(threading.enumerate())
        self._reference: RunReport | None = None
        for name, value in describe().items():
            print(f"{name:12} {value}")

    def run(self, letter: str | None = None, **options: Any) -> RunReport:
        """Run an approach, the lesson's own by default, on the sample images."""
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
        """The run of median wall time among several: one run alone says little on a busy machine."""
        runs = [self.run(letter, **options) for _ in range(repeats)]
        middle = statistics.median_low(report.wall_s for report in runs)
        return next(report for report in runs if report.wall_s == middle)

    def check(self, report: RunReport) -> str:
        """State in one line whether a run did the same work as the sequential one."""
        same = sum(
            report.pixels().get(name) == sha for name, sha in self.reference.pixels().items()
        )
        ledger = report.ledger
        return (
            f"{same}/{len(self.reference.outputs)} images with the pixels of a, "
            f"{ledger['assembled']}/{ledger['enqueued']} tiles in place, "
            f"{ledger['lost']} lost, {ledger['dead_letters']} dead"
        )

    def close(self) -> str:
        """Remove what the lesson made and say what is left: no thread, no process, no file."""
        shutil.rmtree(self.folder)
        threads = [t.name for t in threading.enumerate() if t not in self._threads and not t.daemon]
        assert not threads, f"threads still run: {threads}"
        return "Nothing is left: no thread, no process, no file."


def find_images() -> Path:
    """The sample images: in the repository around the working folder, or around this package.

    Raises
    ------
    UsageError
        If neither has them.
    """
    around = [*Path.cwd().resolve().parents, *Path(__file__).resolve().parents]
    for folder in [Path.cwd().resolve(), *around]:
        if (folder / "images" / "input").is_dir():
            return folder / "images" / "input"
    raise UsageError("No folder images/input is to be found", "Start in the course's own folder")


def show_source(*things: Callable[..., Any] | type) -> Markdown:
    """The library's own source of these functions or classes, as it runs here."""
    texts = (inspect.getsource(thing).rstrip() for thing in things)
    return Markdown("```python\n" + "\n\n\n".join(texts) + "\n```")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Markdown:
    """A table that every reader shows, on a code host too."""
    lines = [header, ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


def copy_images(source: Path, names: Sequence[str], folder: Path) -> Path:
    """Copy these images into a new folder, and return it: a small job out of a large one."""
    folder.mkdir()
    for name in names:
        shutil.copy(source / name, folder)
    return folder


def show_command(name: str) -> Markdown:
    """A command of protocol.lua, with the comment that states its arguments and its answer."""
    source = files("studyguide").joinpath("protocol.lua").read_text()
    found = re.search(rf"^-- {name} .*?^end$", source, re.MULTILINE | re.DOTALL)
    if not found:
        raise UsageError(
            f"protocol.lua has no command {name!r}", "Look into the file for its names"
        )
    return Markdown(f"```lua\n{found.group()}\n```")
