"""The temporary folder of a run: locked while its process lives, swept by others when it is dead.

What a run that was cut short needs to go on stands in its file `run.json`.
"""

import errno
import fcntl
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from studyguide.errors import DAMAGE, StudyguideError, UsageError
from studyguide.machinery.files import atomic
from studyguide.machinery.link import clear, expire
from studyguide.settings import redis_url

log = logging.getLogger(__name__)

LOCK = "lock"  # in each temporary folder, held by the process that uses it
YOUNG_S = 60.0  # a folder may be this old before it is locked
KEPT_S = 7 * 24 * 3600  # seconds for which a run that was cut short can be resumed


@contextmanager
def run_folder(run_id: str, notes: Mapping[str, Any]) -> Iterator[Path]:
    """The folder of a run on a cluster, with these notes in `run.json`.

    It is kept if the run is cut short and its notes say that it is `resumable`.
    """
    sweep()
    folder = place(run_id)
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
            with atomic(folder / "run.json") as file:
                file.write(json.dumps(notes).encode())
            yield folder
        except BaseException as error:
            if notes["resumable"] and (folder / "events").exists():
                log.warning("run %s was cut short; --resume %s goes on with it", run_id, run_id)
            else:
                _remove(folder)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = "Free some space, or set TMPDIR to a folder on another disk"
                raise StudyguideError(f"{folder}: {error.strerror}", remedy) from error
            raise
        _remove(folder)


def place(run_id: str) -> Path:
    """Where the folder of a run is."""
    return Path(tempfile.gettempdir()) / f"studyguide-{run_id}"


def key_prefix(run_id: str) -> str:
    """How the keys of a run begin in Redis, on a server that others may use too."""
    return f"{{sg-{run_id}}}:"


def read_notes(folder: Path) -> dict[str, Any]:
    """What the run wrote down; nothing if it is not there or damaged."""
    with suppress(OSError, *DAMAGE):
        return dict(json.loads((folder / "run.json").read_bytes()))
    return {}


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
    if recent and read_notes(folder).get("resumable"):
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
