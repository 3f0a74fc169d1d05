"""`studyguide grade FOLDER`: judge every submitted notebook in a folder, and write a table.

The notebooks are foreign code: each is judged in a process of its own, in a cage where the system
has one (`cage`), and within limits (`judge`).
"""

import argparse
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from studyguide.errors import DAMAGE, StudyguideError, UsageError, explained, printable
from studyguide.machinery import files, places
from studyguide.machinery.run_folder import TemporaryFolder
from studyguide_course.exercises import EXERCISES, find
from studyguide_course.ladder.trial import end_all
from studyguide_course.learner import cage
from studyguide_course.learner.judge import Task
from studyguide_course.learner.progress import LETTERS

CHECK = re.compile(r"""^\s*check\(\s*["']([a-z]\d)["']""", re.MULTILINE)
LARGEST = 32 << 20  # bytes of a notebook
MOST_OUTPUT = 1 << 16  # bytes of verdicts
START_S = 60.0  # for Python to start and import, on a busy machine


@dataclass
class Graded:
    """One row of the table."""

    file: str
    verdicts: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def right(self) -> int:
        """How many exercises are right."""
        return sum(said.startswith("right") for said in self.verdicts.values())


def cells(path: Path) -> list[str]:
    """The learner's own code cells: the exercises, and what is not in the course's notebooks.

    Raises ValueError or another of DAMAGE if it is not a notebook.
    """
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    course = places.first(places.own()) / "notebooks"
    given = {source for each in course.glob("*.ipynb") for _, source in _code(each)}
    return [
        source
        for tags, source in _code(path)
        if "solution" not in tags and (CHECK.search(source) or source not in given)
    ]


def _code(path: Path) -> Iterator[tuple[list[str], str]]:
    """Tags and source of each code cell of a notebook."""
    for cell in json.loads(path.read_bytes())["cells"]:
        if cell["cell_type"] == "code":
            yield cell["metadata"].get("tags", []), "".join(cell["source"])


def grade(path: Path, name: str, seconds: float, memory: int, caged: bool) -> Graded:
    """Judge one notebook; whatever it does, this returns a row, in bounded time."""
    row = Graded(name)
    try:
        own = cells(path)
    except (OSError, *DAMAGE) as error:
        row.note = f"it cannot be read: {error}"
        return row
    asked = {key[0] for source in own for key in CHECK.findall(source)} & {*LETTERS}
    for letter in asked:
        find(f"{letter}1")
    keys = sorted(key for key in EXERCISES if key[0] in asked)
    row.verdicts = dict.fromkeys(keys, "not yet: its process ended before it was judged")
    row.note = "" if keys else "there is no exercise in it"
    if keys:
        row.verdicts |= _judge(Task(keys, own, seconds, memory, caged))
    return row


def _judge(task: Task) -> dict[str, str]:
    """Have a task judged by a process that shares nothing with us; return its verdicts."""
    with TemporaryFolder("grade") as folder, tempfile.TemporaryFile() as out:
        argv = [sys.executable, "-m", "studyguide_course.learner.judge"]
        home = "/tmp" if task.caged else folder  # noqa: S108 (the cage has its own)
        env = {"HOME": home, "TMPDIR": home, "LANG": "C.UTF-8", "STUDYGUIDE_TRIAL": folder}
        env |= {"PYTHONPATH": os.pathsep.join(map(str, cage.packages()))}
        env |= {"PATH": cage.PATH, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            cage.caged(argv, Path(folder)) if task.caged else argv,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.DEVNULL,
            env=env,
            cwd=folder,
            start_new_session=True,
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                most = START_S + len(task.keys) * (task.seconds + 1)
                process.communicate(json.dumps(asdict(task)).encode(), timeout=most)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            end_all(folder)
        out.seek(0)
        return dict(_lines(out.read(MOST_OUTPUT), task))


def _lines(said: bytes, task: Task) -> Iterator[tuple[str, str]]:
    for line in said.splitlines():
        with suppress(*DAMAGE):
            key, verdict = json.loads(line)
            if key in task.keys and isinstance(verdict, str):
                yield key, verdict


def table(rows: list[Graded]) -> bytes:
    """The grades as CSV; no cell of it is a formula, whatever a submission is called or says."""
    keys = sorted({key for row in rows for key in row.verdicts})
    writer = csv.writer(text := io.StringIO(), lineterminator="\n")
    writer.writerow(["file", "right", "of", "note", *keys])
    for row in rows:
        said = [row.file, str(row.right), str(len(row.verdicts)), row.note]
        said += [row.verdicts.get(key, "") for key in keys]
        writer.writerow(f"'{it}" if it[:1] in "=+-@" and it else it for it in map(printable, said))
    return text.getvalue().encode()


def command(given: argparse.Namespace) -> int:
    """Carry out `studyguide grade FOLDER`."""
    if not given.folder.is_dir():
        raise UsageError(f"{given.folder} is not a folder", "Name the one with the notebooks")
    with TemporaryFolder("grade") as folder:
        caged = not given.no_cage and cage.available(Path(folder))
    if not caged and not given.no_cage:
        problem = "This system lets us make no cage for foreign code"
        raise UsageError(problem, "docs/teaching.md says what to do; --no-cage grades without one")
    found = [
        path
        for path in sorted(given.folder.rglob("*.ipynb"))
        if path.is_file() and not path.is_symlink() and ".ipynb_checkpoints" not in path.parts
    ]

    def one(path: Path) -> Graded:
        name = str(path.relative_to(given.folder))
        row = grade(path, name, given.seconds, given.memory << 20, caged)
        print(printable(f"{row.file}: {row.right}/{len(row.verdicts)} {row.note}"), flush=True)
        return row

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(one, found))
    problem = f"{given.csv} cannot be written"
    with explained(StudyguideError, problem, "Use another --csv"), files.atomic(given.csv) as file:
        file.write(table(rows))
    print(printable(f"{len(rows)} notebooks, {'in cages' if caged else 'NO CAGE'}: {given.csv}"))
    return 0
