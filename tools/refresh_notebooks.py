"""Make the lessons' skeletons, execute them, and store their outputs in one canonical form.

Usage: ``python tools/refresh_notebooks.py [notebook ...]``, by default all of notebooks/.

The form leaves out what says nothing to a reader and differs from one execution to the next:
timestamps, random cell ids, widget state, paths in tracebacks. The time of the execution is written
into the notebook's head. A notebook is replaced only when all of its cells have succeeded.
"""

import math
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from make_skeletons import make_skeletons
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode

from studyguide.machinery.files import atomic

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
CELL_TIMEOUT_S = 120
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = ("jupyter", "tags")  # folding, and marks for nbval
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"  # a random id, of no use without a kernel


def canonical_text(notebook: NotebookNode) -> str:
    """Return the text under which a notebook is stored; changes `notebook` itself."""
    notebook.update(metadata=METADATA, nbformat=4, nbformat_minor=5)
    for number, cell in enumerate(notebook.cells):
        kept = {key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata}
        cell.update(id=f"cell-{number:02d}", metadata=kept)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
    return f"{nbformat.writes(notebook)}\n"


def state_run_all(notebook: NotebookNode, seconds: float) -> None:
    """Write into the head how long the execution took, rounded up to five seconds."""
    said = f"*Run All*: {5 * math.ceil(seconds / 5)} s on {os.cpu_count()} cores"
    head = notebook.cells[0]
    head.source = re.sub(r"\*Run All\*: .*? cores", said, head.source)


def refresh(path: Path) -> None:
    """Execute one notebook in its own folder and replace its file; exit if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    make_skeletons(notebook)
    started: list[int] = []
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # no warning about its unencrypted local ports
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_execute=lambda cell, cell_index: started.append(cell_index),
    )
    client.comm_open_handlers = {}  # with nbclient's own, cells with an Output widget may stall
    start = time.perf_counter()
    try:
        client.execute()
    except (CellControlSignal, DeadKernelError) as error:
        sys.exit(f"{path}, cell-{started[-1]:02d}: {error}")
    state_run_all(notebook, time.perf_counter() - start)
    with atomic(path) as file:
        file.write(canonical_text(notebook).encode())


if __name__ == "__main__":
    for lesson in [Path(name) for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        start = time.perf_counter()
        refresh(lesson)
        print(f"{lesson.name}: {time.perf_counter() - start:.1f} s", flush=True)
