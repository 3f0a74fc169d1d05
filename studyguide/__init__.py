"""A study guide to parallel and distributed processing: one job, done seven ways.

>>> import studyguide
>>> blurred = studyguide.gaussian_blur(image)                    # doctest: +SKIP
>>> report = studyguide.run("b", images="images/input")          # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studyguide.blur import gaussian_blur
    from studyguide.errors import StudyguideError
    from studyguide.record.report import RunReport
    from studyguide.runs import run

__all__ = ["RunReport", "StudyguideError", "__version__", "gaussian_blur", "run"]
__version__ = "0.1.0"

_HOMES = {
    "RunReport": "studyguide.record.report",
    "StudyguideError": "studyguide.errors",
    "gaussian_blur": "studyguide.blur",
    "run": "studyguide.runs",
}


def __getattr__(name: str) -> Any:
    """Load numba and the rest only when they are used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'studyguide' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
