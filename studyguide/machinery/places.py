"""The course's own files: notebooks, sample images, manifests, recordings.

They lie around the working folder (the repository, or a copy that `studyguide init` made), around
this package (a repository that is installed in place), or inside it (an installed wheel).
"""

from collections.abc import Iterable
from pathlib import Path

from studyguide.errors import UsageError

PARTS = ("notebooks", "images/input", "k8s", "logs/kubernetes")
# A file of this name marks the course: many people have a folder that is called k8s or notebooks.
MARK = "notebooks/01_a_sequential.ipynb"
PACKAGE = Path(__file__).resolve().parents[1]


def find(part: str) -> Path:
    """Find a folder of the course, one of `PARTS`. Raises UsageError if it is nowhere."""
    here = Path.cwd().resolve()
    return first((here, *here.parents, *own())) / part


def own() -> tuple[Path, Path]:
    """The places of the package's own files: of a wheel, of a repository."""
    return PACKAGE / "course", PACKAGE.parent


def first(places: Iterable[Path]) -> Path:
    """The first of these folders that is the course: it has the mark and all parts."""
    for place in places:
        if (place / MARK).is_file() and all((place / part).is_dir() for part in PARTS):
            return place
    problem = f"No folder with the course ({', '.join(PARTS)}) is to be found"
    raise UsageError(problem, "Start in the course's own folder, or make one: studyguide init DIR")
