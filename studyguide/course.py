"""The course's own files: notebooks, sample images, manifests.

They lie around the working folder (the repository, or a copy that `studyguide init` made), around
this package (a repository that is installed in place), or inside it (an installed wheel).
"""

import shutil
import tempfile
from pathlib import Path

from studyguide.errors import UsageError

PARTS = ("notebooks", "images/input", "k8s")
PACKAGE = Path(__file__).resolve().parent


def find(part: str) -> Path:
    """A folder of the course, one of `PARTS`. Raises UsageError if it is nowhere."""
    here = Path.cwd().resolve()
    for around in (here, *here.parents, PACKAGE.parent, PACKAGE / "course"):
        if (around / part).is_dir():
            return around / part
    problem = f"No folder {part} is to be found"
    raise UsageError(problem, "Start in the course's own folder, or make one: studyguide init DIR")


def copy(folder: Path) -> None:
    """Make a folder with all that a learner needs: whole, or not at all.

    Raises UsageError if there is something of that name.
    """
    if folder.exists():
        raise UsageError(f"{folder} is there already", "Name a folder that is not there yet")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        whole = Path(name) / folder.name
        for part in PARTS:
            ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(find(part), whole / part, ignore=ignored)
        whole.rename(folder)
