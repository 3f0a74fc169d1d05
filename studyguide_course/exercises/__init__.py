"""The exercises of the lessons: `check("a1", answer)` says whether it is right, or gives a hint.

A module per lesson, named by its letter (`s`: all approaches side by side). A checker tries an
answer on cases, against the library or an independent computation, and yields hints: the first one
counts, and without any the answer is right. A hint names the mistake that was recognised, so that
it helps without giving the solution away.
"""

import dis
import functools
import inspect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from studyguide.errors import UsageError
from studyguide_course.learner.progress import note_answer

Answer = Callable[..., Any]
Hints = Generator[str | None, None, None]
Checker = Callable[[Any], Hints]
DATA = (bool, int, float, str, list, tuple, dict, np.ndarray)  # of a case: copied, and shown
OF_COURSE = "_solution"  # how keys and names end in the course's own answers


class Exercise(NamedTuple):
    """What is asked, and who judges the answer."""

    title: str
    checker: Checker


EXERCISES: dict[str, Exercise] = {}  # of the lessons imported so far


def exercise(key: str, title: str) -> Callable[[Checker], Checker]:
    """Register a checker under the letter of its lesson and a number, as in "b1"."""

    def register(checker: Checker) -> Checker:
        EXERCISES[key] = Exercise(title, checker)
        return checker

    return register


def check(key: str, answer: object) -> None:
    """Print one line on an answer: right, or not yet and a hint.

    A key such as "a1_solution" stands for the course's own answer; a learner's is noted.

    Raises UsageError if there is no such exercise. A wrong answer raises nothing, nor does one that
    fails.
    """
    said = verdict(key.removesuffix(OF_COURSE), answer)
    print(key, said)
    if not key.endswith(OF_COURSE) and not is_blank(answer):
        passed = said.startswith("right")
        standing = note_answer(key, passed)
        if passed and standing:
            print(f"lesson {key[0]}: {standing}")


def answered(mine: Answer, solution: Answer) -> Answer:
    """Return a learner's function, or the solution as long as the learner's is blank."""
    return solution if is_blank(mine) else mine


def find(key: str) -> Exercise:
    """Look an exercise up; its lesson's module is imported when first asked for.

    Raises UsageError if there is no such exercise.
    """
    if key[:1].isalpha() and find_spec(f"{__name__}.{key[0]}"):
        import_module(f"{__name__}.{key[0]}")
    if key not in EXERCISES:
        raise UsageError(f"There is no exercise {key!r}", f"Known here: {', '.join(EXERCISES)}")
    return EXERCISES[key]


def verdict(key: str, answer: object) -> str:
    """Judge an answer: what `check` prints behind the key."""
    asked = find(key)
    if is_blank(answer):
        return f"not yet: {_unanswered(answer)}not answered yet"
    try:
        with closing(asked.checker(_guarded(answer))) as hints:
            hint = next(filter(None, hints), None)
    except Exception as error:
        case = "".join(getattr(error, "__notes__", [])[:1])
        return f"not yet: your answer fails {case}with {type(error).__name__}: {error}"
    return f"not yet: {hint}" if hint else f"right: {asked.title}"


def is_blank(answer: object) -> bool:
    """Whether something is still to be filled in: `...`, or a function that does nothing at all."""
    if parts := list(_parts(answer)):
        return any(is_blank(part) for _, part in parts)
    if inspect.isfunction(answer):
        steps = [step for step in dis.get_instructions(answer) if step.opname != "RESUME"]
        return all(step.argval is None for step in steps)
    return answer is None or answer is ...


def _parts(answer: object) -> Iterator[tuple[str, object]]:
    """The parts of an answer in several, each with its name."""
    if isinstance(answer, dict):
        yield from ((str(name), part) for name, part in answer.items())
    elif isinstance(answer, list | tuple):
        yield from ((getattr(it, "__name__", f"part {n}"), it) for n, it in enumerate(answer, 1))
    elif inspect.isclass(answer):
        yield from ((name, it) for name, it in vars(answer).items() if inspect.isfunction(it))


def _unanswered(answer: object) -> str:
    """Name the parts that are blank, if others are not: "`recover` is "."""
    parts = list(_parts(answer))
    blank = [f"`{name}`" for name, part in parts if is_blank(part)]
    if len(blank) == len(parts):
        return ""
    return f"{' and '.join(blank)} {'is' if len(blank) == 1 else 'are'} "


def _guarded(answer: Any) -> Any:
    """The answer, called with copies: it cannot change a judge's cases. An error names its case."""
    if isinstance(answer, tuple):
        return tuple(map(_guarded, answer))
    if not callable(answer) or inspect.isclass(answer):
        return answer

    @functools.wraps(answer)
    def guarded(*case: Any) -> Any:
        try:
            return answer(*(deepcopy(it) if isinstance(it, DATA) else it for it in case))
        except Exception as error:
            if all(isinstance(it, DATA) for it in case):
                error.add_note(f"for ({', '.join(map(_short, case))}) ")
            raise

    return guarded


def compare(
    key: str,
    title: str,
    cases: Sequence[tuple[Any, ...]],
    right: Answer,
    usual: Mapping[str, Answer],
) -> None:
    """Register an exercise whose answer is compared with the right one on cases.

    A case has the arguments of a call. `usual` has the usual wrong answers by their hint: the first
    that agrees with the answer in every case tells the hint.
    """

    def hints(answer: Answer) -> Hints:
        given = [answer(*case) for case in cases]
        if _agree(given, wanted := [right(*case) for case in cases]):
            return
        for hint, wrong in usual.items():
            if _agree(given, [wrong(*case) for case in cases]):
                yield hint
        pairs = zip(cases, given, wanted, strict=True)
        case, got, want = next(each for each in pairs if not _agree([each[1]], [each[2]]))
        asked = ", ".join(map(_short, case))
        yield f"for ({asked}) the answer is {_short(want)}, and yours is {_short(got)}"

    exercise(key, title)(hints)


def _agree(given: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether results are equal; numbers up to rounding."""
    return all(map(_equal, given, wanted))


def _equal(one: Any, other: Any) -> bool:
    try:
        return np.shape(one) == np.shape(other) and bool(np.allclose(one, other))
    except TypeError:  # not numbers
        return bool(one == other)


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
