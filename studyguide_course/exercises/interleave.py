"""Two threads, one of which is paused at each of its steps in turn: a race that can happen, does.

Left alone, a race may stay hidden for a thousand runs. Here the first thread is stopped between two
instructions of its own, the second runs as far as it can, and then the first goes on. This is done
for every place at which the first can be stopped.
"""

import linecache
import sys
from collections.abc import Callable, Iterator
from itertools import count
from threading import Thread
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
Steps = Callable[[], object]

BLOCKED_S = 0.02  # who has not ended by then is taken to wait for a lock that the other holds
STUCK_S = 2.0
# Steps are instructions, as a line may be half done. Python 3.12.1 crashes on them: there, lines.
STEP = "line" if sys.version_info[:2] == (3, 12) else "opcode"


class Stuck(Exception):
    """The threads wait for ever."""


def interleavings(
    make: Callable[[], T], first: Callable[[T], object], second: Callable[[T], object]
) -> Iterator[tuple[T, str]]:
    """Run two threads on a new object for each place at which the first one can be paused.

    Raises Stuck if they do not end.

    Yields
    ------
    object, str
        What `make` made, after both have ended, and the line of source at which the first paused.
    """
    for step in count():
        shared = make()
        line = run(lambda: first(shared), lambda: second(shared), step)  # noqa: B023
        yield shared, line or "its end"
        if line is None:
            return


def run(first: Steps, second: Steps, step: int) -> str | None:
    """Run two threads, the first paused at a step; the line of source there, None if it has fewer.

    Raises Stuck if they do not end.
    """
    errors: list[BaseException] = []
    steps, line = count(), None
    other = Thread(target=_guarded, args=(second, errors), daemon=True)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal line
        if frame.f_globals.get("__name__") == "threading":
            return None  # locks are one step
        frame.f_trace_opcodes = STEP == "opcode"
        if event == STEP and next(steps) == step:
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            other.start()
            other.join(BLOCKED_S)
        return trace

    def traced() -> None:
        sys.settrace(trace)
        first()

    one = Thread(target=_guarded, args=(traced, errors), daemon=True)
    one.start()
    one.join(STUCK_S)
    if line is None and not one.is_alive():
        other.start()
    if other.ident is not None:
        other.join(STUCK_S)
    if one.is_alive() or other.is_alive():
        raise Stuck
    if errors:
        raise errors[0]
    return line


def _guarded(steps: Steps, errors: list[BaseException]) -> None:
    try:
        steps()
    except Exception as error:
        errors.append(error)
