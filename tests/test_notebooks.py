"""Stored outputs are honest: each lesson was executed whole, and nbval has enough to compare."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from refresh_notebooks import NOTEBOOKS, canonical_text, refresh, state_run_all
from support import MACHINE_PATH

# How many cells of each lesson nbval compares. A number may grow, and never shrink.
COMPARED: dict[str, int] = {
    "01_a_sequential.ipynb": 36,
    "02_b_tile_parallel.ipynb": 38,
    "03_c_tile_image_parallel.ipynb": 38,
    "04_d_distributed_sequential.ipynb": 30,
    "05_e_distributed_queue.ipynb": 28,
    "06_f_fault_tolerant_queue.ipynb": 46,
    "07_g_multithreaded_service.ipynb": 39,
    "compare.ipynb": 16,
    "network.ipynb": 13,
    "write_your_own.ipynb": 16,
}

LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
IGNORED = {"nbval-ignore-output", "nbval-skip"}
FAILING = {"raises-exception", "nbval-raises-exception"}


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(output: NotebookNode) -> Iterator[str]:
    """Yield what a reader can read in an output; pictures are left out."""
    if output.output_type == "stream":
        yield output.text
    elif output.output_type == "error":
        yield from (output.evalue, *output.traceback)
    else:
        for kind, data in output.data.items():
            if kind not in ("image/png", "image/jpeg"):
                yield str(data)


def is_compared(cell: NotebookNode) -> bool:
    """Tell whether nbval would notice a change: figures and stderr do not count."""
    return not tags(cell) & IGNORED and any(map(is_comparable, cell.outputs))


def is_comparable(output: NotebookNode) -> bool:
    has_picture = any(kind.startswith("image/") for kind in output.get("data", {}))
    return output.get("name") != "stderr" and not has_picture


def faults(notebook: NotebookNode) -> Iterator[str]:
    """Yield what is wrong with the stored outputs of a notebook."""
    if "widgets" in notebook.metadata:
        yield "the notebook holds widget state"
    for cell in code_cells(notebook):
        if cell.execution_count is None:
            yield f"{cell.id} was never executed"
        if "NBVAL_" in cell.source:
            yield f"{cell.id} is marked for nbval by a comment: use a tag"
        for output in cell.outputs:
            if output.output_type == "error" and not tags(cell) & FAILING:
                yield f"{cell.id} stores an error"
            if any(map(MACHINE_PATH.search, texts(output))):
                yield f"{cell.id} shows a path of the machine it ran on"


@pytest.fixture
def notebook() -> NotebookNode:
    """Return a notebook in good order, with two outputs of which nbval compares one."""
    number = new_output("execute_result", {"text/plain": "2"}, execution_count=1)
    figure = new_output("display_data", {"image/png": "/tmp/aaa="})
    cells = [
        new_markdown_cell("# A lesson"),
        new_code_cell("1 + 1", execution_count=1, outputs=[number]),
        new_code_cell("plot()", execution_count=2, outputs=[figure]),
    ]
    return new_notebook(cells=cells)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_lesson_is_stored_as_it_was_executed(path: Path) -> None:
    assert list(faults(nbformat.read(path, as_version=4))) == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_lesson_is_stored_in_its_canonical_form(path: Path) -> None:
    stored = path.read_text(encoding="utf-8")
    assert canonical_text(nbformat.reads(stored, as_version=4)) == stored, "run make notebooks"


def test_every_lesson_states_how_many_of_its_cells_are_compared() -> None:
    lessons = {path.name: code_cells(nbformat.read(path, as_version=4)) for path in LESSONS}
    assert {name: sum(map(is_compared, cells)) for name, cells in lessons.items()} == COMPARED


TIME = re.compile(
    r"^\| Time \| (\d+) minutes; (?:(\d+) with the exercises|there are no exercises); "
    r"\*Run All\*: (\d+) s on (?:\d+|two) cores \|$",
    re.MULTILINE,
)


def times() -> dict[str, tuple[int, int]]:
    """Minutes without and with the exercises, as each lesson states them."""
    found = {}
    for path in LESSONS:
        match = TIME.search(nbformat.read(path, as_version=4).cells[0].source)
        assert match, f"{path.name} does not state its times in the form that CONTRIBUTING names"
        alone, exercises, _ = match.groups()
        found[path.name] = (int(alone), int(exercises or alone))
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_lessons_state_their_times_and_the_front_pages_their_sums(page: str) -> None:
    alone, exercises = (sum(column) for column in zip(*times().values(), strict=True))
    hours = f"{alone / 60:.0f} hours to read and run, {exercises / 60:.0f} with the exercises"
    text = (NOTEBOOKS.parent / page).read_text(encoding="utf-8")
    assert hours in " ".join(text.split())


def test_front_page_of_the_book_states_the_times_of_each_lesson() -> None:
    text = (NOTEBOOKS.parent / "docs" / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*/(\w+\.ipynb)\) .*\| (\d+)(?: \((\d+)\))? \|$", text, re.MULTILINE)
    stated = {name: (int(alone), int(both or alone)) for name, alone, both in rows}
    assert stated == times(), "docs/index.md has to say what the lessons say"


def test_time_of_run_all_is_measured_and_not_typed(notebook: NotebookNode) -> None:
    notebook.cells[0].source = "| Time | 5 minutes; *Run All*: 99 s on two cores |"
    state_run_all(notebook, 11.2)
    assert re.search(r"\*Run All\*: 15 s on \d+ cores \|$", notebook.cells[0].source)


def never_executed(notebook: NotebookNode) -> None:
    notebook.cells[1].execution_count = None


def error(notebook: NotebookNode) -> None:
    notebook.cells[1].outputs = [new_output("error", ename="E", evalue="why", traceback=[])]


def machine_path(notebook: NotebookNode) -> None:
    notebook.cells[1].outputs = [new_output("stream", text="saved /home/ada/blurred.png")]


def widget_state(notebook: NotebookNode) -> None:
    notebook.metadata["widgets"] = {}


def comment(notebook: NotebookNode) -> None:
    notebook.cells[1].source = "# NBVAL_IGNORE_OUTPUT"


@pytest.mark.parametrize("spoil", [never_executed, error, machine_path, widget_state, comment])
def test_spoiled_notebook_is_noticed(
    notebook: NotebookNode, spoil: Callable[[NotebookNode], None]
) -> None:
    assert list(faults(notebook)) == []
    spoil(notebook)
    assert len(list(faults(notebook))) == 1


def test_figures_and_ignored_cells_do_not_count_as_compared(notebook: NotebookNode) -> None:
    number, figure = code_cells(notebook)
    assert is_compared(number)
    assert not is_compared(figure)
    number.metadata["tags"] = ["nbval-ignore-output"]
    assert not is_compared(number)


def test_canonical_form_of_a_canonical_notebook_is_itself(notebook: NotebookNode) -> None:
    error(notebook)
    text = canonical_text(notebook)
    assert canonical_text(nbformat.reads(text, as_version=4)) == text


@pytest.mark.slow
def test_refresh_stores_outputs_and_repeats_itself_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "lesson.ipynb"
    slider = "import ipywidgets\nwith ipywidgets.Output():\n    print(1)\nipywidgets.IntSlider()"
    source = new_notebook(cells=[new_code_cell("print(6 * 7)"), new_code_cell(slider)])
    nbformat.write(source, path)
    refresh(path)
    first = path.read_bytes()
    refresh(path)
    assert path.read_bytes() == first
    executed = nbformat.read(path, as_version=4)
    assert executed.cells[0].outputs[0].text == "42\n"
    assert list(faults(executed)) == []


def test_refresh_names_the_cell_that_fails_and_keeps_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lesson.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1"), new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    with pytest.raises(SystemExit, match=r"lesson\.ipynb, cell-01: [\s\S]*ZeroDivisionError"):
        refresh(path)
    assert path.read_bytes() == before
