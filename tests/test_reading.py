"""The course reads well without a kernel: captions, alt texts, links to the glossary."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from link_glossary import LINK, entries
from nbformat import NotebookNode
from refresh_notebooks import NOTEBOOKS

LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
TERMS = list(entries())
HTML_TAG = re.compile(r"<(?!br>|/?su[bp]>|https?:)/?[a-z][^>]*>")
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)

every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)


def cells(path: Path) -> list[NotebookNode]:
    return list(nbformat.read(path, as_version=4).cells)


def prose(path: Path) -> str:
    texts = [cell.source for cell in cells(path) if cell.cell_type == "markdown"]
    return CODE.sub("", "\n\n".join(texts))


def figures(path: Path) -> Iterator[tuple[NotebookNode, NotebookNode | None]]:
    """Yield each picture in an output, and the cell that follows its own."""
    found = cells(path)
    for cell, following in zip(found, [*found[1:], None], strict=True):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield output, following


def normal(words: str) -> str:
    return words.lower().replace("-", " ").removeprefix("the ")


def shows(shown: str, term: str) -> bool:
    """Tell whether a link shows this term: as it is, in the plural or with a word beside it."""
    return normal(term)[:5] in normal(shown) or normal(shown) == "glossary"


def linked_words(path: Path) -> list[str]:
    return [
        link["text"].strip("`*").removeprefix("docs/").removesuffix(".md")
        for link in LINK.finditer(prose(path))
    ]


@every_lesson
def test_every_figure_says_in_words_what_it_shows(path: Path) -> None:
    for output, following in figures(path):
        alt = output.metadata.get("image/png", {}).get("alt", "")
        assert len(alt) > 20, output.data.get("text/plain")
        assert following is not None
        assert following.cell_type == "markdown", f"no caption after: {alt}"


@every_lesson
def test_no_html_that_a_code_host_strips_and_no_empty_widget(path: Path) -> None:
    assert HTML_TAG.findall(prose(path)) == []
    for cell in cells(path):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert not any("widget" in kind for kind in data)
            assert "text/html" not in data or "text/plain" in data


@every_lesson
def test_every_link_to_the_glossary_shows_one_of_its_terms(path: Path) -> None:
    for shown in linked_words(path):
        assert any(shows(shown, term) for term in TERMS), f"{shown} is not in docs/glossary.md"


def test_every_term_of_the_glossary_is_linked_from_a_lesson() -> None:
    assert TERMS
    linked = [shown for path in LESSONS for shown in linked_words(path)]
    assert [term for term in TERMS if not any(shows(shown, term) for shown in linked)] == []
