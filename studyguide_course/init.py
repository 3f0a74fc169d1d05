"""`studyguide init`: a folder with all that a learner needs, made once and kept up to date.

A file that a learner has changed is never overwritten: a new version of it comes beside it.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from studyguide.errors import DAMAGE, StudyguideError, UsageError, explained
from studyguide.machinery import files
from studyguide.machinery.places import PARTS, first, own

GLOSSARY = "docs/glossary.md"  # the page that lessons link
LEFT_OUT = ("__pycache__", ".ipynb_checkpoints")
GIVEN = ".studyguide.json"  # in a learner's folder: digest and version of each file as it came
Given = dict[str, list[str]]


def copy(folder: Path) -> None:
    """Make a folder with all that a learner needs, atomically, from the files of this package.

    Links and special files are left out.

    Raises UsageError if there is something of that name or it lies inside a part of the course;
    StudyguideError if it cannot be written, for example to a full disk.
    """
    source, target = first(own()), folder.resolve()
    if os.path.lexists(folder):
        raise UsageError(f"{folder} is there already", "Name a folder that is not there yet")
    for path in (source / part for part in (*PARTS, GLOSSARY)):
        if path.resolve() != path:
            raise UsageError(f"{path} is a link", "Put the folder itself there")
        if target.is_relative_to(path):
            raise UsageError(f"{folder} lies inside {path}", "Name a folder outside of it")
    remedy = "Free some space or name another folder"
    with explained(StudyguideError, f"{folder} cannot be made", remedy):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".studyguide-") as name:
            whole, given = Path(name) / "course", {}
            for part in PARTS:
                (whole / part).mkdir(parents=True)
            for path in _files(source):
                there = whole / path.relative_to(source)
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, there)
                given[path.relative_to(source).as_posix()] = _kind(there)
            _remember(whole, given)
            whole.rename(target)


def update(folder: Path) -> dict[str, str]:
    """Bring the files of a folder that `copy` made up to date; return what came beside what.

    A file that is as it came is replaced, one that is missing is made again. Of a file that was
    changed since, a new version gets a name of its own. A notebook of which only outputs are new
    is no new version.

    Raises StudyguideError if it cannot be written.
    """
    source, given, beside = first(own()), _given(folder), {}
    with explained(StudyguideError, f"{folder} cannot be updated", "Free some space"):
        for path in _files(source):
            name, kind = path.relative_to(source).as_posix(), _kind(path)
            mine, came = folder / name, given.get(name, ["", ""])
            if os.path.lexists(mine) and kind[1] == came[1]:
                continue
            given[name] = kind
            if not _as_it_came(mine, came, kind):
                mine = _place_beside(mine, folder, given, kind)
                beside[name] = new = mine.relative_to(folder).as_posix()
                given[new] = kind
            with files.atomic(mine) as file:
                file.write(path.read_bytes())
        _remember(folder, given)
    return beside


def is_copy(folder: Path) -> bool:
    """Whether `copy` made this folder."""
    return (folder / GIVEN).is_file()


def _as_it_came(mine: Path, came: list[str], kind: list[str]) -> bool:
    """Whether nothing of a learner's is lost when this file is replaced."""
    if not os.path.lexists(mine):
        return True
    return mine.is_file() and not mine.is_symlink() and _kind(mine)[0] in (came[0], kind[0])


def _place_beside(mine: Path, folder: Path, given: Given, kind: list[str]) -> Path:
    """The first name beside a file at which nothing of a learner's would be overwritten."""
    for number in count(1):
        end = "-new" if number == 1 else f"-new-{number}"
        path = mine.with_name(f"{mine.stem}{end}{mine.suffix}")
        if _as_it_came(path, given.get(path.relative_to(folder).as_posix(), ["", ""]), kind):
            return path
    raise AssertionError


def _kind(path: Path) -> list[str]:
    """The digest of a file, and that of its version: of a notebook, its cells without outputs."""
    data = text = path.read_bytes()
    if path.suffix == ".ipynb":
        with suppress(*DAMAGE):
            cells = json.loads(data)["cells"]
            text = repr([(cell["cell_type"], "".join(cell["source"])) for cell in cells]).encode()
    return [hashlib.sha256(each).hexdigest() for each in (data, text)]


def _given(folder: Path) -> Given:
    with suppress(OSError, *DAMAGE):
        known = json.loads((folder / GIVEN).read_bytes())
        return {str(name): [str(digest), str(version)] for name, (digest, version) in known.items()}
    return {}


def _remember(folder: Path, given: Given) -> None:
    with files.atomic(folder / GIVEN) as file:
        file.write(json.dumps(given, indent=0).encode())


def _files(source: Path) -> Iterator[Path]:
    """The course's files, but not what links lead to. The first OSError ends it."""

    def fail(error: OSError) -> None:
        raise error

    for part in PARTS:
        for around, folders, names in os.walk(source / part, onerror=fail):
            folders[:] = [name for name in folders if name not in LEFT_OUT]
            for path in (Path(around, name) for name in names):
                if path.is_file() and not path.is_symlink():
                    yield path
    yield source / GLOSSARY
