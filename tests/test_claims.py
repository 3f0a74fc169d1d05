"""Outcomes that a lesson states are checked by its code, and each check can fail."""

import ast
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from test_notebooks import IGNORED, LESSONS, code_cells, tags

from studyguide_course.lesson import Lesson

ALL_OR_NONE = r"nothing|nobody|none|neither|never|only|always|all|both|each|every\w*|no \w+|not one"
FATE = r"saved|lost|missing|gone|left over|kept|redelivered|overlaps?|survives?|dies?|died|failed"
SPEED = r"faster|slower|shorter|longer|gains?|as fast|in parallel|idle"
OUTCOME = re.compile(
    rf"\b(?:{ALL_OR_NONE})\b[^.;:]{{0,60}}\b(?:{FATE}|can pass)\b"  # nothing is saved
    rf"|\b(?:{FATE})\b[^.;:]{{0,30}}\b(?:nothing|nobody|none|no \w+)\b"
    rf"|\b(?:{ALL_OR_NONE})\b[^.;:]{{0,60}}\b(?:{SPEED})\b"  # only the third gains
    rf"|\b(?:{SPEED})\b[^.;:]{{0,30}}\b(?:nothing|nobody|none|no \w+|at all)\b"
    r"|\b(?:is|are|was|were)(?: not)? (?:lost|gone|missing|saved|dead)\b"
    r"|\bhangs?\b|\bfor ?ever\b|\bno error\b|\bwithout any\b|\bbit for bit\b|\bsame pixels\b",
    re.IGNORECASE,
)
# The comment stands behind a sentence that defines, advises or quotes.
DEFINITION = "<!-- not an outcome -->"
SENTENCE_END = re.compile(r"(?:(?<=[.!?])[*_)”\"]*|(?<=-->))\s+(?!<!--)")
# These have no runs: what they sum up is claimed above, and answers are judged by `check`.
UNCLAIMED = re.compile(r"Lesson |Side by side|Predict|Exercise|Keypoints|Glossary|The words")


def prose(markdown: str) -> str:
    """Return what a reader reads as sentences: no code, no diagram, no table, no link's target."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$", "", markdown, flags=re.DOTALL)
    return re.sub(r"^\|.*$|\]\([^)]*\)", "", text, flags=re.MULTILINE)


def outcomes(text: str) -> list[str]:
    """Return the sentences that state an outcome: no questions, no definitions."""
    sentences = (" ".join(part.split()) for part in SENTENCE_END.split(text))
    return [s for s in sentences if OUTCOME.search(s) and not s.endswith(("?", DEFINITION))]


def unclaimed(notebook: NotebookNode) -> list[str]:
    """Return the outcome sentences of the sections in which no cell claims anything."""
    title, found, claimed, bare = "", list[str](), False, list[str]()
    for cell in [*notebook.cells, new_markdown_cell("# End")]:
        claimed |= "claim" in tags(cell)
        parts = re.split(r"^#+ (.*)$", prose(cell.source), flags=re.MULTILINE)
        for n, part in enumerate(parts if cell.cell_type == "markdown" else ()):
            if n % 2 == 0:
                found += outcomes(part)
                continue
            bare += found if not claimed and not UNCLAIMED.match(title) else []
            title, found, claimed = part, [], False
    return bare


def claimed_in(source: str) -> list[str]:
    """Return the sentences that a cell claims; one with a cell magic claims nothing."""
    if source.startswith("%%"):
        return []
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        ast.literal_eval(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "claim"
    ]


def claims() -> list[tuple[str, NotebookNode, str]]:
    """Return each claim: the letter of its lesson, its cell and its sentence."""
    return [
        (path.stem[3] if path.stem[0] == "0" else path.stem, cell, sentence)
        for path in LESSONS
        for cell in code_cells(nbformat.read(path, as_version=4))
        for sentence in claimed_in(cell.source)
    ]


CLAIMS = claims()
MODULES = {
    path.stem: import_module(f"false_claims.{path.stem}").CLAIMS
    for path in sorted((Path(__file__).parent / "false_claims").glob("*.py"))
}


def execute(cell: NotebookNode, lesson: SimpleNamespace, **values: Any) -> None:
    lesson.claim = Lesson.claim
    exec(cell.source, {"lesson": lesson, **values})


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_sections_that_state_an_outcome_check_one(path: Path) -> None:
    assert unclaimed(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize(
    ("letter", "cell", "sentence"), CLAIMS, ids=[f"{letter}: {s}" for letter, _, s in CLAIMS]
)
def test_claim_holds_for_true_values_and_fails_for_false_ones(
    letter: str, cell: NotebookNode, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    true, false = MODULES[letter][sentence]
    true = {"lesson": SimpleNamespace(), **true}
    execute(cell, **true)
    assert f"✓ {sentence}\n" in capsys.readouterr().out
    with pytest.raises(AssertionError, match=re.escape(f"False here: {sentence} (") + r"\w+ = "):
        execute(cell, **{**true, **false})


def test_every_claim_is_compared_and_has_its_false_values() -> None:
    assert {letter: set(claims) for letter, claims in MODULES.items()} == {
        letter: {s for other, _, s in CLAIMS if other == letter} for letter in MODULES
    }
    assert {letter for letter, _, _ in CLAIMS} <= set(MODULES)
    for _, cell, sentence in CLAIMS:
        assert "claim" in tags(cell), sentence
        assert not tags(cell) & IGNORED, f"nbval does not compare: {sentence}"


def test_cell_with_the_tag_claims_something() -> None:
    cells = [c for path in LESSONS for c in code_cells(nbformat.read(path, as_version=4))]
    assert [c.id for c in cells if "claim" in tags(c) and not claimed_in(c.source)] == []


@pytest.mark.parametrize(
    "sentence",
    [
        "Nothing is saved, and no error is shown.",
        "The first two gain nothing from more threads.",
        "Only the third gains.",
        "With two places no more can pass.",
        "The tile is gone all the same.",
        "*Caption: a silence, and all\nimages are saved.*",
    ],
)
def test_outcome_without_a_claim_is_noticed(sentence: str) -> None:
    text = f"## Run\n\nWe look. {sentence} It ends."
    cells = [new_markdown_cell(text), new_code_cell("1"), new_markdown_cell("## Look")]
    notebook = new_notebook(cells=cells)
    assert len(unclaimed(notebook)) == 1
    cells[1].metadata["tags"] = ["claim"]
    assert unclaimed(notebook) == []


@pytest.mark.parametrize(
    "text",
    [
        "Is nothing saved?",
        f"An image is done when all of its tiles are saved. {DEFINITION} We look.",
        "```text\nnothing is saved\n```",
        "| nothing | is saved |",
        "Both wait for a tile.",
    ],
)
def test_questions_definitions_and_code_need_no_claim(text: str) -> None:
    assert unclaimed(new_notebook(cells=[new_markdown_cell(f"## Run\n\n{text}")])) == []


def test_false_claim_names_its_values() -> None:
    with pytest.raises(AssertionError, match=r"^False here: Nothing is saved\. \(saved = 2\)$"):
        Lesson.claim("Nothing is saved.", False, saved=2)


TIMES = re.compile(r"\b(?:\w+_s|seconds|cores)\b")


def divided_times(source: str) -> list[str]:
    """Return what a cell divides by a time or by cores: the library computes such figures."""
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.BinOp))
    return [
        ast.unparse(node)
        for node in found
        if isinstance(node.op, ast.Div) and TIMES.search(ast.unparse(node.right))
    ]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_lessons_compute_no_speed_up_share_or_bound_themselves(path: Path) -> None:
    cells = code_cells(nbformat.read(path, as_version=4))
    mine = [cell for cell in cells if not tags(cell) & {"exercise", "solution"}]
    mine = [cell for cell in mine if not cell.source.startswith("%%")]
    assert [text for cell in mine for text in divided_times(cell.source)] == []


def test_speed_ups_and_bounds_in_a_cell_are_noticed() -> None:
    assert divided_times("gain = a.wall_s / b.wall_s; x = 1000 * a.wall_s") == [
        "a.wall_s / b.wall_s"
    ]
    assert divided_times("work / cores") == ["work / cores"]
    assert divided_times("size / 2 + whole_s / tiles") == []
