"""A learner's progress is kept and shown, and errors that say nothing take two lines."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from test_notebooks import times

from studyguide.__main__ import main
from studyguide.errors import StudyguideError
from studyguide.machinery import places
from studyguide_course.exercises import check
from studyguide_course.learner import kernel, progress

TEACHING = Path(__file__).parents[1] / "docs" / "teaching.md"
STARTUP = Path(kernel.__file__).with_name("startup.py")


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A learner's notebooks, in which a kernel works."""
    (tmp_path / places.MARK).parent.mkdir()
    (tmp_path / places.MARK).touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path / "notebooks"


def clamp(i: int, n: int) -> int:
    return min(max(i, 0), n - 1)


def wrong(i: int, n: int) -> int:
    return min(max(i, 0), n)


def blank(i: int, n: int) -> int: ...  # type: ignore[empty-body]


def test_a_right_answer_is_noted_and_the_lesson_says_what_is_left(
    notebooks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check("a2", clamp)
    said = capsys.readouterr().out
    count = len(progress.split("a", notebooks)[1]) + 1
    assert said == f"a2 right: an index beyond the edge\nlesson a: 1 of {count} right, next: a1\n"
    assert progress.known(notebooks, "exercises")["a2"]["passed"] is True
    check("a2", wrong)
    assert capsys.readouterr().out.count("\n") == 1
    assert progress.known(notebooks, "exercises")["a2"]["passed"] is False


@pytest.mark.parametrize(("key", "answer"), [("a2", blank), ("a2", ...), ("a2_solution", clamp)])
def test_a_blank_answer_and_a_solution_are_not_noted(
    key: str, answer: Any, notebooks: Path
) -> None:
    check(key, answer)
    assert not (notebooks / progress.PROGRESS).exists()


def test_an_answer_outside_of_a_learners_notebooks_is_not_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check("a2", clamp)
    assert list(tmp_path.iterdir()) == []


def test_progress_shows_exercises_and_rungs(
    notebooks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.note(notebooks, "exercises", "b1", True)
    progress.note(notebooks, "exercises", "b3", False)
    (notebooks / "my_queue.py").touch()
    progress.note(notebooks, "my_queue.py", "1", True, **{"tiles lost": "0"})
    progress.note(notebooks, "my_queue.py", "2", False)
    for folder in (notebooks, notebooks.parent):
        assert main(["progress", str(folder)]) == 0
        said = capsys.readouterr().out
        assert "| b: Tile parallel | b1 | b2 b3" in said
        assert "| g: Multithreaded service |  | g1 g2 g3" in said
        assert "| s: Side by side |  | s1 |\n" in said
        assert "| my_queue.py | rungs 1 of 1 to 8 | |\n" in said
    assert main(["progress", str(notebooks / "nowhere")]) == 2


def test_nothing_is_lost_when_kernels_note_at_once(notebooks: Path) -> None:
    keys = [f"x{n}" for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: progress.note(notebooks, "exercises", key, True), keys))
    assert progress.known(notebooks, "exercises").keys() == set(keys)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"exercises": 5}', '{"exercises": {"a1": 5}}'])
def test_a_damaged_record_counts_as_none_and_is_replaced(damage: str, notebooks: Path) -> None:
    (notebooks / progress.PROGRESS).write_text(damage)
    assert progress.split("a", notebooks)[0] == []
    progress.note(notebooks, "exercises", "a1", True)
    assert progress.split("a", notebooks)[0] == ["a1"]
    assert json.loads((notebooks / progress.PROGRESS).read_text())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(notebooks: Path) -> None:
    notebooks.chmod(0o500)
    with pytest.raises(StudyguideError, match="Put your files into a folder"):
        progress.note(notebooks, "exercises", "a1", True)


def test_an_interrupt_and_a_cell_before_setup_take_two_lines_and_others_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", str(STARTUP))
    monkeypatch.setenv("PYTHONPATH", str(places.PACKAGE.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    cells = {
        "lesson.run()": list(kernel.NO_SETUP),
        "def deep(): os.kill(os.getpid(), signal.SIGINT); time.sleep(60)": None,
        "import os, signal, time; deep()": list(kernel.INTERRUPTED),
        "reference": None,
        "1 / 0": None,
    }
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    options = {"extra_arguments": ["--log-level=ERROR"], "kernel_name": "python3"}
    NotebookClient(notebook, allow_errors=True, timeout=60, **options).execute()
    shown = [cell.outputs[0].traceback if cell.outputs else None for cell in notebook.cells]
    assert shown[:3] == list(cells.values())[:3]
    for others, name in zip(shown[3:], ("'reference' is not defined", "division by"), strict=True):
        assert len(others) > 2
        assert name in "".join(others)


# docs/teaching.md


def tables() -> list[list[str]]:
    """The rows of its tables, as cells."""
    rows = re.findall(r"^\| (.*) \|$", TEACHING.read_text(encoding="utf-8"), re.MULTILINE)
    return [row.split(" | ") for row in rows]


def test_a_teachers_plans_have_time_for_their_lessons() -> None:
    stated = {re.sub(r"^0\d_(.)_.*", r"\1", name[:-6]): times()[name] for name in times()}
    plans = [row for row in tables() if row[1].isdigit()]
    assert [plan[0] for plan in plans] == ["half a day", "a day", "a term"]
    for _, minutes, lessons, exercises in plans:
        needed = [stated[name][exercises == "all"] for name in lessons.split(", ")]
        assert sum(needed) <= int(minutes)


def test_a_teachers_misconceptions_are_of_all_lessons() -> None:
    rows = [row for row in tables() if row[-1].startswith("that ")]
    assert {row[0] for row in rows} == set("abcdefg")
