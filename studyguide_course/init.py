"""`studyguide init`: a folder with all that a learner needs."""

import os
import shutil
import tempfile
from pathlib import Path

from studyguide.errors import StudyguideError, UsageError, explained
from studyguide.machinery.places import PARTS, first, own

GLOSSARY = "docs/glossary.md"  # the page that lessons link
LEFT_OUT = ("__pycache__", ".ipynb_checkpoints")


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
            whole = Path(name) / "course"
            for part in PARTS:
                _copy_files(source / part, whole / part)
            (whole / GLOSSARY).parent.mkdir()
            shutil.copyfile(source / GLOSSARY, whole / GLOSSARY)
            whole.rename(target)


def _copy_files(source: Path, target: Path) -> None:
    """Copy a folder's files, but not what links lead to. The first OSError ends it."""

    def fail(error: OSError) -> None:
        raise error

    for around, folders, names in os.walk(source, onerror=fail):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        there = target / Path(around).relative_to(source)
        there.mkdir(parents=True)
        for path in (Path(around, name) for name in names):
            if path.is_file() and not path.is_symlink():
                shutil.copyfile(path, there / path.name)
