"""Every exercise accepts its solution, and tells the usual wrong answers from it."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
import pytest
from make_skeletons import skeleton, tagged
from nbformat import NotebookNode
from refresh_notebooks import NOTEBOOKS

from studyguide.errors import UsageError
from studyguide_course.exercises import EXERCISES, answered, check, find, is_blank

FOLDER = Path(__file__).parent / "wrong_answers"
WRONG: dict[str, list[tuple[Any, str]]] = {}
for module in sorted(FOLDER.glob("*.py")):
    WRONG.update(import_module(f"wrong_answers.{module.stem}").WRONG)
    find(f"{module.stem}1")

LESSONS = {path.name[3]: path for path in sorted(NOTEBOOKS.glob("0*.ipynb"))}
LESSONS |= {"n": NOTEBOOKS / "network.ipynb", "s": NOTEBOOKS / "compare.ipynb"}
CHAPTERS = "## Going deeper"  # each has an exercise of its own, and is optional
HEADING = re.compile(r"^### Exercise (\w\d) (★{1,3}): (.*)$", re.MULTILINE)
CHECK = re.compile(r'^check\("(\w\d)(?:_solution)?", .*\)$', re.MULTILINE)


def stored(letter: str) -> NotebookNode:
    return nbformat.read(LESSONS[letter], as_version=4)


def source(key: str, tag: str) -> str:
    """The source of an exercise's cell."""
    cells = (cell.source for cell in tagged(stored(key[0]), tag))
    return next(text for text in cells if key in CHECK.findall(text))


def headings(letter: str) -> Iterator[tuple[str, str, str]]:
    yield from HEADING.findall(text_of(letter))


def text_of(letter: str) -> str:
    return "\n\n".join(cell.source for cell in stored(letter).cells if cell.cell_type == "markdown")


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(WRONG))
def test_wrong_answers_get_their_hint(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(WRONG[key]) >= 3
    for number, (answer, hint) in enumerate(WRONG[key]):
        check(key, answer)
        said = capsys.readouterr().out
        assert said.startswith(f"{key} not yet: "), f"wrong answer {number} was accepted"
        assert hint in said


@pytest.mark.parametrize("key", sorted(WRONG))
def test_solution_in_the_lesson_is_accepted(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(source(key, "solution"), {"__name__": "__main__"})
    assert capsys.readouterr().out == f"{key}_solution right: {find(key).title}\n"


@pytest.mark.parametrize("key", sorted(WRONG))
def test_skeleton_in_the_lesson_is_its_solution_with_the_work_taken_out(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = source(key, "exercise")
    assert text == skeleton(source(key, "solution")), "run make notebooks"
    assert "# your turn" in text
    exec(text, {"__name__": "__main__"})
    said = capsys.readouterr().out
    assert said in (f"{key} not yet: {which}not answered yet\n" for which in ("", "`add` is "))


@pytest.mark.parametrize("key", sorted(WRONG))
def test_solution_in_the_lesson_replaces_nothing_of_the_learners(key: str) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(source(key, "exercise"), names)
    mine = {name: it for name, it in names.items() if f"{name}_solution" in source(key, "solution")}
    assert mine
    exec(source(key, "solution"), names)
    assert {name: names[name] for name in mine} == mine


def test_a_function_that_is_blank_is_stood_in_for_by_the_solution() -> None:
    assert answered(todo, len) is len
    assert answered(sum, len) is sum


def test_every_exercise_has_wrong_answers_and_a_heading_in_its_lesson() -> None:
    in_lessons = {key: (letter, title) for letter in LESSONS for key, _, title in headings(letter)}
    assert in_lessons == {key: (key[0], asked.title) for key, asked in EXERCISES.items()}
    assert set(WRONG) == set(EXERCISES)


@pytest.mark.parametrize("letter", sorted({key[0] for key in WRONG} - {"n", "s"}))
def test_exercises_of_a_lesson_are_three_or_more_from_easy_to_hard(letter: str) -> None:
    lesson = text_of(letter).partition(f"\n{CHAPTERS}")[0]
    stars = [len(stars) for _, stars, _ in HEADING.findall(lesson)]
    assert len(stars) >= 3
    assert stars == sorted(stars)
    assert stars[-1] > stars[0]


@pytest.mark.parametrize("letter", sorted({key[0] for key in WRONG}))
def test_solutions_are_folded(letter: str) -> None:
    assert all(cell.metadata.jupyter.source_hidden for cell in tagged(stored(letter), "solution"))


def test_answer_that_fails_is_told_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    check("a1", lambda size, sigma: 1 / 0)
    assert capsys.readouterr().out == (
        "a1 not yet: your answer fails for (21, 7) with ZeroDivisionError: division by zero\n"
    )


def test_a_pod_without_a_cpu_limit_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    memory = {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}}
    check("d4", memory)
    assert capsys.readouterr().out.startswith("d4 right: ")


def todo(a: int, b: int) -> None:
    """Say what is asked."""


class Todo:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None: ...


@pytest.mark.parametrize("answer", [None, ..., todo, Todo, (256, ...), {"workers": ...}])
def test_what_is_still_to_be_filled_in_is_blank(answer: object) -> None:
    assert is_blank(answer)


@pytest.mark.parametrize("answer", [0, False, lambda: 0, lambda x: x, "", [], check])
def test_a_wrong_answer_is_not_blank(answer: object) -> None:
    assert not is_blank(answer)


def test_unknown_exercise_is_refused() -> None:
    with pytest.raises(UsageError, match="no exercise 'a99'"):
        check("a99", 1)


def test_skeleton_keeps_what_is_around_the_work_and_the_names_of_values() -> None:
    solution = """
# BEGIN SOLUTION
size = 256
workers = 4
# END SOLUTION
def double(n):
    # BEGIN SOLUTION
    twice = 2 * n
    return twice
    # END SOLUTION
"""
    assert (
        skeleton(solution)
        == """
size = ...  # your turn
workers = ...  # your turn
def double(n):
    # your turn
    ...
"""
    )
