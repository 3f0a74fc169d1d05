"""The short chapters of lessons a and b, and the two sittings of b."""

import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from refresh_notebooks import NOTEBOOKS

from studyguide.blur import blur_whole
from studyguide_course.chapters import below, processes
from studyguide_course.lesson import Spent

IMAGE = np.random.default_rng(1).integers(0, 256, (300, 270), np.uint8)  # four tiles
JOBS = ("pure Python", "separable", "direct")

# --- below Python --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 7, 64])
@pytest.mark.parametrize("shape", [(1, 1), (9, 5), (64, 128)])
def test_an_image_is_turned_whole_whatever_the_side(shape: tuple[int, int], side: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    turned = np.zeros(shape[::-1], np.uint8)
    below.turn(image, side, turned)
    assert np.array_equal(turned, image.T)


@pytest.mark.parametrize("apart", [1, below.LINE])
def test_two_threads_count_right_in_one_line_and_in_two(apart: int) -> None:
    assert below.count_in_two_threads(apart, rounds=3).tolist() == [3000, 3000]


def test_calls_that_measure_do_what_they_are_counted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(below, "BYTES", 1000)
    calls: dict[str, Any] = below.copy_and_multiply()
    for call in calls.values():
        call()
    target, source = calls["copy"].args
    assert target.nbytes == 1000
    assert np.array_equal(target, source)
    numbers, rounds = calls["multiply"].args
    assert rounds == below.ROUNDS
    assert numbers.tolist() == [2.0] * below.FLOATS  # where v / 2 + 1 settles


@pytest.fixture
def roof() -> below.Roofline:
    """Return the roof of a core that copies 8 GB/s and multiplies 16 G/s."""
    multiplying = below.CHAIN * below.FLOATS * below.ROUNDS / 16e9
    spent = {"copy": 2 * below.BYTES / 8e9, "multiply": multiplying, "add": 1.0, "blur": 2.0}
    work = {"add": below.Work(1, 8, 500_000_000), "blur": below.Work(441, 2, 10_000_000)}
    return below.Roofline({name: Spent(9 * s, s) for name, s in spent.items()}, work)


def test_roof_is_the_lower_of_two_limits(roof: below.Roofline) -> None:
    assert roof.ridge == pytest.approx(2)
    assert [roof.limit(at) for at in (0.5, 2, 100)] == pytest.approx([4e9, 16e9, 16e9])


def test_calls_are_compared_with_the_limit_at_their_intensity(roof: below.Roofline) -> None:
    assert roof.part("add") == pytest.approx(0.5)  # 0.5 of 1 G/s
    assert roof.part("blur") == pytest.approx(441 * 10e6 / 2 / 16e9)


def test_roofline_says_in_words_what_it_shows(roof: below.Roofline) -> None:
    chart = roof.chart()
    assert "copies 8.0 GB/s, multiplies 16.0 G/s; add: 50% of the roof, blur: 14%" in chart.alt
    assert chart.png().startswith(b"\x89PNG")


# --- processes -----------------------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads, to which windows are handed as to processes, and without a wait for their start."""
    pool = ThreadPoolExecutor(2)
    yield pool
    processes.end(pool)


@pytest.mark.parametrize("way", [processes.by_value, processes.by_name])
@pytest.mark.parametrize("job", processes.BLURS)
def test_tiles_from_a_pool_make_the_blurred_image(
    job: str, way: Callable[..., Any], pool: ThreadPoolExecutor
) -> None:
    assert np.array_equal(way(pool, job, IMAGE), blur_whole(IMAGE, processes.BLURS[job]))


def test_lines_in_pure_python_are_blurred_along_them(pool: ThreadPoolExecutor) -> None:
    image = np.tile(np.arange(200, dtype=np.uint8), (30, 1))  # a slope keeps its middle
    done = processes.by_value(pool, "pure Python", image)
    inner = slice(processes.RADIUS, -processes.RADIUS)
    off = done[: processes.LINES, inner].astype(int) - image[: processes.LINES, inner]
    assert set(off.ravel().tolist()) <= {-1, 0}  # rounded down
    assert not done[processes.LINES :].any()


def test_shared_memory_is_given_back_when_a_tile_fails(pool: ThreadPoolExecutor) -> None:
    names: list[str] = []

    class Failing(ThreadPoolExecutor):
        def map(self, call: Any, *tiles: Any, **_: Any) -> Any:
            names.extend(call.args[1])
            raise ValueError("a tile failed")

    with Failing(1) as failing, pytest.raises(ValueError, match="a tile failed"):
        processes.by_name(failing, "direct", IMAGE)
    assert len(names) == 2
    for name in names:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)


SCRIPT = """
import os
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from studyguide_course.chapters import processes

image = np.random.default_rng(1).integers(0, 256, (300, 270), np.uint8)
pool = processes.start(2)
print(len(pool._processes))
for job in ("pure Python", "separable", "direct"):
    wanted = processes.by_value(ThreadPoolExecutor(2), job, image)
    for way in (processes.by_value, processes.by_name):
        print(np.array_equal(way(pool, job, image), wanted))
processes.end(pool)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no process is left")
"""


@pytest.mark.slow
def test_processes_make_the_same_pixels_and_leave_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.stderr == ""  # multiprocessing would complain here about what is left over
    assert done.stdout.split("\n") == ["2", *["True"] * 6, "no process is left", ""]


# --- the two sittings of lesson b ----------------------------------------------------------------

LESSON_B = NOTEBOOKS / "02_b_tile_parallel.ipynb"
SECOND = "## Second sitting"


def second_sitting(path: Path) -> list[Any]:
    cells = nbformat.read(path, as_version=4).cells
    (first,) = (n for n, cell in enumerate(cells) if cell.source.startswith(SECOND))
    return cells[first:]


def names(source: str) -> tuple[set[str], set[str]]:
    """Return the names that a cell makes, and those that it reads and does not make."""
    made, read = set[str](), set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (made if isinstance(node.ctx, ast.Store) else read).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            made |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            made.add(node.name)
    return made, read - made


def test_second_sitting_needs_no_cell_of_the_first() -> None:
    known, missing = {*dir(builtins), "display"}, {}
    for cell in second_sitting(LESSON_B):
        if cell.cell_type == "code":
            made, read = names(cell.source)
            missing |= dict.fromkeys(read - known, cell.id)
            known |= made
    assert missing == {}


def test_a_name_of_the_first_sitting_would_be_noticed() -> None:
    made, read = names("import a.b as c\ndef f(x):\n    y = x + z\n    return y")
    assert (made, read) == ({"c", "f", "x", "y"}, {"z"})


def test_times_of_the_sittings_add_up() -> None:
    head = nbformat.read(LESSON_B, as_version=4).cells[0].source
    whole = re.search(r"^\| Time \| (\d+) minutes; (\d+) with", head, re.MULTILINE)
    first = re.search(r"^\| Two sittings \| (\d+) minutes .*then (\d+), or (\d+) with", head, re.M)
    then = re.search(
        r"^\| Time \| (\d+) minutes; (\d+) with", second_sitting(LESSON_B)[0].source, re.M
    )
    assert whole
    assert first
    assert then
    assert first.groups()[1:] == then.groups()
    assert [int(first[1]) + int(each) for each in then.groups()] == [int(n) for n in whole.groups()]
