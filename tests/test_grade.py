"""A teacher grades thirty notebooks in one command, whatever is in them."""

import csv
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from make_skeletons import OWN_NAME, tagged
from refresh_notebooks import NOTEBOOKS
from support import processes_with

from studyguide.__main__ import main
from studyguide_course.learner import cage
from studyguide_course.learner.grade import Graded, cells, grade, table

LESSON = NOTEBOOKS / "01_a_sequential.ipynb"
LIMIT_S = 5.0
COUNT = len(tagged(nbformat.read(LESSON, as_version=4), "exercise"))
ALL, ALL_BUT_ONE = str(COUNT), str(COUNT - 1)
# What stands in place of the body of a learner's function `clamp` of exercise a2.
WRONG = "return min(max(i, 0), n)"
HANGS = "while True: pass"
SLEEPS = "import time; time.sleep(600)"
DELETES = "import shutil; shutil.rmtree({victim!r}, ignore_errors=True); raise OSError"
PLANTS = "open({victim!r} + '/planted', 'w'); return 0"
READS = "raise ValueError(open({victim!r} + '/secret').read())"
TELLS = "import os; raise ValueError(str(sorted(os.environ.items())))"
CALLS = "import socket; socket.create_connection(('127.0.0.1', {port}), 1).send(b'x'); return 0"
HOARDS = "return len(bytearray(1 << 36))"
FLOODS = "import os\n    while True: os.write(1, b'x' * 65536); print('x' * 65536)"
FILLS = "import os; f = open('/tmp/full', 'wb')\n    while True: f.write(os.urandom(65536))"
LEAVES = (
    "import subprocess, sys\n"
    "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    " start_new_session=True)\n    return min(max(i, 0), n - 1)"
)
FORKS = "import os, time\n    [os.fork() for _ in range(6)]\n    time.sleep(600)"  # 64 processes
EXITS = "import os; os._exit(0)"
KILLS = "import os; os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"
QUITS = "raise SystemExit"


def solved() -> Any:
    """The lesson with its solutions as the learner's answers, as a right submission has them."""
    notebook = nbformat.read(LESSON, as_version=4)
    solutions = tagged(notebook, "solution")
    for exercise, solution in zip(tagged(notebook, "exercise"), solutions, strict=True):
        exercise.source = OWN_NAME.sub("", solution.source)
    return notebook


def answering(body: str) -> Any:
    """A right submission, but for the function of exercise a2."""
    notebook = solved()
    clamp = next(cell for cell in tagged(notebook, "exercise") if '"a2"' in cell.source)
    head, check = clamp.source.split("def clamp(i, n):")[0], 'check("a2", clamp)'
    clamp.source = f"{head}def clamp(i, n):\n    {body}\n\n\n{check}"
    return notebook


def submit(folder: Path, notebooks: dict[str, Any]) -> Path:
    folder.mkdir()
    for name, notebook in notebooks.items():
        (folder / name).mkdir()
        nbformat.write(notebook, folder / name / LESSON.name)
    return folder


def graded(folder: Path, *options: str) -> dict[str, dict[str, str]]:
    """Grade a folder, and return the rows of its table by the names of the learners."""
    out = folder.parent / "grades.csv"
    seconds = f"--seconds={LIMIT_S}"
    assert main(["grade", str(folder), "--csv", str(out), seconds, *options]) == 0
    with out.open(newline="", encoding="utf-8") as file:
        return {row["file"].partition("/")[0]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def caged(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not cage.available(tmp_path_factory.mktemp("cage")):
        pytest.skip("this system lets users make no namespaces")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.slow
def test_thirty_submissions_are_graded_in_one_command(
    caged: None, tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "teacher"
    victim.mkdir()
    (victim / "secret").write_text("exam-of-june")
    monkeypatch.setenv("TEACHERS_TOKEN", "exam-of-june")
    values = {"victim": str(victim), "port": listener.getsockname()[1]}
    bad = {
        name: answering(body.format(**values) if "{" in body else body)
        for name, body in {
            "wrong": WRONG, "hangs": HANGS, "sleeps": SLEEPS, "deletes": DELETES,
            "plants": PLANTS, "reads": READS, "tells": TELLS, "calls": CALLS,
            "hoards": HOARDS, "floods": FLOODS, "fills": FILLS, "forks": FORKS,
            "exits": EXITS, "kills": KILLS, "quits": QUITS,
        }.items()
    }  # fmt: skip
    listed = f"raise ValueError(__import__('os').listdir({str(tmp_path.parent)!r}))"
    bad["lists"] = answering(listed)
    good = {f"right-{n}": solved() for n in range(11)} | {"leaves": answering(LEAVES)}
    folder = submit(tmp_path / "handed in", {**bad, **good})
    (folder / "torn").mkdir()
    (folder / "torn" / LESSON.name).write_text(LESSON.read_text()[:5000])
    (folder / "other").mkdir()
    (folder / "other" / "list.ipynb").write_text("[]")
    start = time.monotonic()
    rows = graded(folder)
    print(f"{len(rows)} graded in {time.monotonic() - start:.0f} s")
    assert len(rows) == 30
    assert {name: row["right"] for name, row in rows.items() if name in good} == dict.fromkeys(
        good, ALL
    )
    for name in bad:  # one exercise that fails costs no other
        assert rows[name]["right"] == ALL_BUT_ONE, rows[name]
        assert rows[name]["a2"].startswith("not yet: "), rows[name]
    assert rows["wrong"]["a2"] == "not yet: the last pixel has the index n - 1, not n"
    for name in ("hangs", "sleeps", "forks"):
        assert rows[name]["a2"] == f"not yet: stopped after {LIMIT_S:g} s"
    for name in ("torn", "other"):
        assert rows[name]["note"].startswith("it cannot be read: ")
    assert [path.name for path in victim.iterdir()] == ["secret"]
    assert "exam-of-june" not in (tmp_path / "grades.csv").read_text()
    with pytest.raises(BlockingIOError):  # nobody has connected
        listener.accept()
    assert processes_with("time.sleep(600)") == []
    assert sum(1 for _ in folder.rglob("*.ipynb")) == 30


@pytest.mark.slow
def test_without_a_cage_limits_hold_and_nothing_is_left(tmp_path: Path) -> None:
    notebooks = {"hangs": answering(HANGS), "leaves": answering(LEAVES), "right": solved()}
    rows = graded(submit(tmp_path / "handed in", notebooks), "--no-cage")
    assert rows["hangs"]["a2"] == f"not yet: stopped after {LIMIT_S:g} s"
    assert [rows[name]["right"] for name in notebooks] == [ALL_BUT_ONE, ALL, ALL]
    if sys.platform.startswith("linux"):
        assert processes_with("time.sleep(600)") == []


def test_without_a_cage_nothing_is_graded_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cage, "available", lambda _: False)
    monkeypatch.chdir(tmp_path)
    assert main(["grade", str(submit(tmp_path / "handed in", {"right": solved()}))]) == 2
    assert "no cage" in capsys.readouterr().err
    assert not (tmp_path / "grades.csv").exists()


def test_a_key_that_the_course_does_not_have_is_no_exercise(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('check("z9", 1)')])
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    row = grade(tmp_path / "mine.ipynb", "mine.ipynb", LIMIT_S, 1 << 32, caged=False)
    assert (row.verdicts, row.note) == ({}, "there is no exercise in it")


def test_what_a_learner_added_counts_and_solutions_do_not(tmp_path: Path) -> None:
    notebook = nbformat.read(LESSON, as_version=4)
    notebook.cells.insert(5, nbformat.v4.new_code_cell("def helper(): ..."))
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    own = cells(tmp_path / "mine.ipynb")
    assert own[0] == "def helper(): ..."
    assert own[1:] == [cell.source for cell in tagged(notebook, "exercise")]


def test_a_table_holds_no_formula_and_nothing_that_controls_a_terminal() -> None:
    (row,) = csv.DictReader(
        table([Graded("=cmd()", {"a1": "+1\x1b"}, "@note")]).decode().splitlines()
    )
    assert row == {"file": "'=cmd()", "right": "0", "of": "1", "note": "'@note", "a1": "'+1\\x1b"}
