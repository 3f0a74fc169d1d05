"""The ladder: references pass, wrong solutions fail with their hint, nothing is left behind."""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from support import processes_with

from studyguide.__main__ import main
from studyguide.errors import StudyguideError, UsageError
from studyguide_course.ladder import TILES, climb
from studyguide_course.ladder.climb import Attempt, attempt, progress
from studyguide_course.ladder.rungs import RUNGS, Row
from studyguide_course.ladder.trial import Record
from studyguide_course.ladder.verdict import Problem, problems, story

FOLDER = Path(__file__).parent / "ladder"
sys.path.insert(0, str(FOLDER))
from wrong import WRONG, Wrong  # noqa: E402


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of other programs on this machine are not taken for ours."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def judged(folder: Path, text: str, rung: int = 1) -> Attempt:
    """Judge a solution; nothing of it may be left."""
    file = folder / "my_queue.py"
    file.write_text(text)
    done = attempt(file, rung)
    assert processes_with(str(folder)) == []
    return done


def reference(rung: int) -> str:
    return (FOLDER / f"reference_{rung}.py").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("rung", RUNGS)
def test_a_reference_passes_its_rung(rung: int, tmp_path: Path) -> None:
    assert judged(tmp_path, reference(rung), rung).problem is None


@pytest.mark.parametrize(
    ("solution", "rung"),
    [
        pytest.param(solution, rung, marks=[pytest.mark.slow] * ((solution, rung) != (8, 1)))
        for solution in RUNGS
        for rung in RUNGS
        if rung < solution
    ],
)
def test_a_reference_passes_the_rungs_before_its_own(
    solution: int, rung: int, tmp_path: Path
) -> None:
    assert judged(tmp_path, reference(solution), rung).problem is None


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.rung} {wrong.name}")
def test_a_wrong_solution_fails_with_the_hint_of_its_rung(wrong: Wrong, tmp_path: Path) -> None:
    done = judged(tmp_path, wrong.text(), wrong.rung)
    assert done.problem
    assert wrong.found in done.problem.text
    assert list(done.lines())[-1] == f"hint: {RUNGS[wrong.rung].hint}"


def test_every_rung_has_three_wrong_solutions_at_least() -> None:
    counts = Counter(wrong.rung for wrong in WRONG)
    assert all(counts[rung] >= 3 for rung in RUNGS)


# --- code that misbehaves ------------------------------------------------------------------------

WORK = "def work(redis, name, blur):\n"
FORK = """    import os, subprocess, sys, time
    if not os.fork():
        os.setsid()
        time.sleep(600)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
"""
MISBEHAVING = {
    "hangs": (WORK + "    import time\n    time.sleep(600)\n", "in which nothing happened"),
    "leaves": (WORK + "    import sys\n    sys.exit(0)\n", "SystemExit"),
    "leaves at once": (WORK + "    import os\n    os._exit(0)\n", "exit code 0"),
    "raises": (WORK + "    1 / 0\n", "ZeroDivisionError"),
    "floods": (WORK + "    while True:\n        print('x' * 999)\n", "printed more than 4 MiB"),
    "blurs nonsense": (WORK + "    blur('nonsense')\n", "nonsense"),
    "collects nonsense": ("def collect(redis):\n    return 7\n", "collect returned int"),
    "invents results": (
        f"def collect(redis):\n    return dict.fromkeys(range({TILES}), 'x')\n",
        "not what blur returned",
    ),
    "is no Python": ("def work(:\n", "SyntaxError"),
    "ignores signals": (
        WORK + "    import signal\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    while True:\n        pass\n",
        "not all tiles were settled",
    ),
    "empties Redis": (WORK + "    while True:\n        redis.flushall()\n", "not all tiles"),
    "blocks Redis": (WORK + "    redis.eval('while true do end', 0)\n", "not all tiles"),
    "stops Redis": (WORK + "    redis.shutdown(nosave=True)\n", "ended by itself"),
}


QUICK = ("raises", "floods", "collects nonsense")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in MISBEHAVING],
)
def test_misbehaving_code_ends_in_a_verdict(name: str, tmp_path: Path) -> None:
    text, found = MISBEHAVING[name]
    done = judged(tmp_path, reference(1) + "\n\n" + text)
    assert done.problem
    assert any(found in problem.text for problem in problems(done.records[-1]))
    assert list(done.lines())[-1].startswith("hint: ")


def test_processes_that_the_code_starts_end_with_the_trial(tmp_path: Path) -> None:
    forking = reference(1).replace(WORK, WORK + FORK)
    assert judged(tmp_path, forking).problem is None


def test_a_missing_function_is_named(tmp_path: Path) -> None:
    done = judged(tmp_path, "def submit(redis, tiles):\n    pass\n")
    assert done.problem
    assert "my_queue.py does not define work, collect" in done.problem.text


# --- what is printed and kept --------------------------------------------------------------------


@pytest.fixture
def no_trials(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rungs pass up to the third, which fails, without a process; the rungs that were tried."""
    tried: list[int] = []

    def judge(file: Path, rung: int, seeds: int, first_seed: int) -> Attempt:
        tried.append(rung)
        record = Record(Row("a calm run"), (), stalled="it stood still" if rung == 3 else "")
        problem = next((p for p in problems(record) if rung == 3), None)
        return Attempt(file, rung, [record], problem)

    monkeypatch.setattr(climb, "attempt", judge)
    monkeypatch.setattr(Attempt, "figure", lambda self: type("", (), {"png": lambda self: b"x"})())
    return tried


def test_the_command_climbs_until_a_rung_fails(
    no_trials: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my_queue.py"
    file.write_text("# nothing\n\nx = 1\n")
    assert main(["chaos", "--approach", str(file)]) == 1
    assert no_trials == [1, 2, 3]
    assert (tmp_path / "my_queue-timeline.png").read_bytes() == b"x"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "rung 1, hand out and collect: passed"
    assert "lines of code             1    1,053" in printed
    assert printed[-1].startswith("hint: A worker that comes back")
    assert main(["chaos", "--approach", str(file), "--rung", "2"]) == 0


def test_the_seed_of_the_trial_that_failed_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Standing:
        """A trial that stands still with seed 6."""

        def __init__(self, file: Path, row: Row, seed: int) -> None:
            self.row, self.seed = row, seed

        def run(self) -> Record:
            return Record(self.row, (), stalled="it stood still" if self.seed == 6 else "")

    monkeypatch.setattr(climb, "Trial", Standing)
    monkeypatch.setattr(
        climb.verdict,
        "problems",
        lambda record: iter([Problem(record.stalled)] if record.stalled else []),
    )
    file = tmp_path / "my_queue.py"
    file.touch()
    done = attempt(file, 3, seeds=5, first_seed=4)
    assert len(done.records) == 5
    assert "a calm run, seed 6: it stood still" in done.lines()


def test_the_lines_of_f_are_those_of_its_trail() -> None:
    architecture = (FOLDER.parents[1] / "docs" / "architecture.md").read_text()
    assert f"{climb.F[-1]} lines in" in architecture


def test_the_command_prints_json_too(
    no_trials: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my_queue.py"
    file.touch()
    assert main(["chaos", "--approach", str(file), "--json", "--rung", "3"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["passed"] is False


@pytest.mark.parametrize("line", [["--rung", "9"], ["--rung", "0"]])
def test_there_is_no_such_rung(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my_queue.py"
    file.touch()
    assert main(["chaos", "--approach", str(file), *line]) == 2
    assert "The rung is" in capsys.readouterr().err


@pytest.mark.parametrize("line", [["--rung", "1"], ["--approach", "f", "--rung", "1"]])
def test_a_rung_needs_a_file(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", *line]) == 2
    assert "Name it with --approach my_queue.py" in capsys.readouterr().err


def test_there_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        attempt(tmp_path / "my_queue.py", 1)
    (tmp_path / "my_queue.py").touch()
    with pytest.raises(UsageError, match="There are 0 seeds"):
        attempt(tmp_path / "my_queue.py", 1, seeds=0)


@pytest.mark.parametrize("before", [None, "nonsense", '{"my_queue.py": 7}', '{"b.py": {}}'])
def test_progress_is_kept_whatever_was_there(before: str | None, tmp_path: Path) -> None:
    if before is not None:
        (tmp_path / "progress.json").write_text(before)
    record = Record(Row("a calm run"), ())
    file = tmp_path / "my_queue.py"
    file.touch()
    for rung in (1, 2):
        climb._note(Attempt(file, rung, [record], None))
    assert {rung: said["passed"] for rung, said in progress(file).items()} == {"1": True, "2": True}
    kept = json.loads((tmp_path / "progress.json").read_text())
    assert ("b.py" in kept) == (before == '{"b.py": {}}')


def test_progress_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "progress.json").mkdir()
    (tmp_path / "my_queue.py").touch()
    with pytest.raises(StudyguideError, match=r"progress\.json cannot be written"):
        climb._note(Attempt(tmp_path / "my_queue.py", 1, [Record(Row(""), ())], None))


def test_a_picture_marks_the_strikes_and_says_so_in_words(tmp_path: Path) -> None:
    done = judged(tmp_path, reference(2), 2)
    chart = done.figure()
    marks = [line for axes in chart.axes for line in axes.lines if line.get_gid() == "strike"]
    assert len(marks) == 3
    assert "the nemesis kills worker-" in chart.alt
    assert story(done.records[0], done.records[0].victims[0])
