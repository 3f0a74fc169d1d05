"""Errors in two lines, where a traceback would say nothing: an interrupt, a cell before Setup."""

import sys
from types import TracebackType
from typing import Any

INTERRUPTED = (
    "Interrupted: this cell was stopped before its end.",
    "What the cells above made is still there; run this one again when you like.",
)
NO_SETUP = (
    "Run Setup first: the first code cell of this notebook makes `lesson`.",
    "The menu has Run > Run All Above Selected Cell, for all that this cell needs.",
)


def install() -> None:
    """Shorten such errors from now on, if this is a kernel."""
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
        shell.set_custom_exc((KeyboardInterrupt, NameError), _shown)


def _shown(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType,
    tb_offset: int | None = None,
) -> None:
    """Show an error: IPython calls this with one of those kinds."""
    if isinstance(error, KeyboardInterrupt):
        shell._showtraceback(kind, error, list(INTERRUPTED))
    elif isinstance(error, NameError) and error.name == "lesson":
        shell._showtraceback(kind, error, list(NO_SETUP))
    else:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
