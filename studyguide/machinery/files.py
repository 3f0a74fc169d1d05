"""Files that are whole or not there: temporary ones, what writers that died left, room to write."""

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from studyguide.errors import UsageError, explained

TEMPORARY = ".studyguide-"  # how the names of files begin that are being written


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes `path` once the body has ended well and is on disk.

    The file is locked until then, so that `sweep` can tell it from one whose writer is dead. Its
    name is short and random: as long as `path` is a valid name, the temporary one is too, and
    several threads or hosts can write the same result.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, file = _create(path.parent)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)  # still locked
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _create(folder: Path) -> tuple[Path, IO[bytes]]:
    """Make a temporary file and lock it; make another one if `sweep` was faster than the lock."""
    while True:
        path = folder / f"{TEMPORARY}{secrets.token_hex(8)}.tmp"
        file = path.open("xb")
        with suppress(OSError):  # no locks on this file system: `sweep` removes nothing there
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return path, file
        file.close()


def sweep(folder: Path) -> None:
    """Remove what processes that are dead were writing into a folder with `atomic`.

    Their locks ended with them, whatever their process ids or namespaces were. On NFS this holds
    between hosts unless the mount has the option `nolock` or `local_lock`; a file that another host
    is writing may then be removed, and its writer reports that the image cannot be saved.
    """
    for path in folder.glob(f"{TEMPORARY}*.tmp"):
        with suppress(OSError), path.open("r+b") as file:  # NFS locks only files open for writing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def check_writable(folder: Path, option: str = "--output") -> None:
    """Find out before the work starts whether files can be saved; `option` names another folder.

    Raises UsageError if the folder cannot be made or written to.
    """
    remedy = f"Choose another folder with {option}"
    with explained(UsageError, f"The folder {folder} cannot be written", remedy):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
