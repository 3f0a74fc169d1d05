"""Make the exercises' skeletons from their solutions, so that the two cannot disagree.

In a lesson, a cell tagged `exercise` is followed by one tagged `solution`. The skeleton is the
solution with each part between ``# BEGIN SOLUTION`` and ``# END SOLUTION`` taken out. Of variables
that are given values there, outside of any function, the names are kept. Names that a solution
defines end in ``_solution``, so that they replace none of the learner's; the skeleton has them
without it.
"""

import re

from nbformat import NotebookNode

SOLVED = re.compile(
    r"^(?P<indent> *)# BEGIN SOLUTION\n(?P<lines>.*?)^ *# END SOLUTION$", re.MULTILINE | re.DOTALL
)
OWN_NAME = re.compile(r"_solution\b")


def skeleton(solution: str) -> str:
    """Return the source of a solution with its parts replaced by what is left to the reader."""
    return OWN_NAME.sub("", SOLVED.sub(_left, solution))


def _left(solved: re.Match[str]) -> str:
    names = re.findall(r"^\w+(?= = )", solved["lines"], re.MULTILINE)
    if names:
        return "\n".join(f"{name} = ...  # your turn" for name in names)
    return f"{solved['indent']}# your turn\n{solved['indent']}..."


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    """Return the cells that have a tag, in their order."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def make_skeletons(notebook: NotebookNode) -> None:
    """Write the skeletons into `notebook`, and fold its solutions."""
    solutions = tagged(notebook, "solution")
    for exercise, solution in zip(tagged(notebook, "exercise"), solutions, strict=True):
        exercise.source = skeleton(solution.source)
        solution.metadata["jupyter"] = {"source_hidden": True}
