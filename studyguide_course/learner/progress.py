"""Which exercises are right and which rungs are passed: `progress.json` beside the notebooks.

By name it has `exercises`, and each file that climbed the ladder; of each the last outcome of every
exercise or rung: whether it passed, when, and the scores of a rung.
"""

import argparse
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from studyguide.approaches import APPROACHES
from studyguide.errors import DAMAGE, StudyguideError, UsageError, explained, printable
from studyguide.machinery import files, places

PROGRESS = "progress.json"
ANSWERS = "exercises"
LETTERS = {letter: its.title for letter, its in APPROACHES.items()}  # of what has exercises
LETTERS |= {"n": "A network in the box", "s": "Side by side"}
COPY = Path("build/course")  # a learner's own folder, unless another one is named


def known(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """What is known of the exercises or of a learner's file: by exercise or rung."""
    with suppress(OSError, *DAMAGE):
        found = json.loads((folder / PROGRESS).read_bytes())[name]
        return {str(key): dict(said) for key, said in found.items()}
    return {}


def note(folder: Path, name: str, key: str, passed: bool, **scores: str) -> None:
    """Keep the outcome of an attempt, beside all others.

    Raises StudyguideError if it cannot be written.
    """
    path, everything = folder / PROGRESS, {}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    remedy = "Put your files into a folder that you can write to"
    with explained(StudyguideError, f"{path} cannot be written", remedy), _alone(folder):
        with suppress(OSError, *DAMAGE):
            everything = dict(json.loads(path.read_bytes()))
        outcome = {"passed": passed, "when": when, **scores}
        everything[name] = {**known(folder, name), key: outcome}
        with files.atomic(path) as file:
            file.write(json.dumps(everything, indent=2).encode() + b"\n")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time read and write: each lesson has a kernel of its own."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def note_answer(key: str, passed: bool) -> str:
    """Note an answer that was given in a learner's notebook; return where the lesson stands.

    An answer that is given elsewhere, for example in a test, is not noted.
    """
    here = Path.cwd()
    if not (here / Path(places.MARK).name).is_file():
        return ""
    note(here, ANSWERS, key, passed)
    return standing(key[0], here)


def standing(letter: str, folder: Path) -> str:
    """How many exercises of a lesson are right, and which are left."""
    right, rest = split(letter, folder)
    left = f", next: {rest[0]}" if right and rest else ""
    return f"{len(right)} of {len(right) + len(rest)} right{left}"


def split(letter: str, folder: Path) -> tuple[list[str], list[str]]:
    """The exercises of a lesson that are right, and the others."""
    from studyguide_course.exercises import EXERCISES, find  # which notes answers here

    find(f"{letter}1")
    keys = sorted(key for key in EXERCISES if key[0] == letter)
    answers = known(folder, ANSWERS)
    right = [key for key in keys if answers.get(key, {}).get("passed")]
    return right, [key for key in keys if key not in right]


def lines(folder: Path) -> Iterator[str]:
    """A table of all lessons, and of the files that climb the ladder, as Markdown."""
    yield from ("| | right | left |", "|---|---|---|")
    for letter, title in LETTERS.items():
        yield f"| {letter}: {title} | {' | '.join(map(' '.join, split(letter, folder)))} |"
    for file in sorted(folder.glob("*.py")):
        if rungs := known(folder, file.name):
            passed = " ".join(sorted(rung for rung, said in rungs.items() if said.get("passed")))
            yield f"| {file.name} | rungs {passed or 'none'} of 1 to 8 | |"


def command(given: argparse.Namespace) -> int:
    """Carry out `studyguide progress`."""
    folder = given.folder or (COPY if COPY.is_dir() else places.find("notebooks").parent)
    notebooks = folder / "notebooks" if (folder / "notebooks").is_dir() else folder
    if not (notebooks / Path(places.MARK).name).is_file():
        raise UsageError(f"{folder} has no lessons", "Name your folder of the course")
    print("\n".join(map(printable, lines(notebooks))))
    return 0
