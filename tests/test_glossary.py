"""Words have one meaning, in docs/glossary.md, and a lesson links them where it first uses them."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from refresh_notebooks import NOTEBOOKS

GLOSSARY = NOTEBOOKS.parent / "docs" / "glossary.md"
LESSONS = sorted(NOTEBOOKS.glob("0[1-4]*.ipynb"))
LINK = "](../docs/glossary.md)"
# Not prose: code, formulas, headings, tables, links' targets.
OTHER = re.compile(r"```.*?```|\$\$.*?\$\$|`[^`\n]*`|^[#|][^\n]*|\]\([^)]*\)", re.M | re.S)


def terms() -> list[str]:
    rows = GLOSSARY.read_text(encoding="utf-8").splitlines()[4:]
    return [row.split("|")[1].strip() for row in rows]


def pattern(term: str) -> re.Pattern[str]:
    """A term as it stands in prose, its plural included; its case counts if it has capitals."""
    return re.compile(rf"\b{re.escape(term)}s?\b", 0 if term != term.lower() else re.I)


def unlinked(prose: str, known: list[str]) -> Iterator[str]:
    """Yield the terms whose first use in the prose of a lesson is no link to the glossary."""
    plain = OTHER.sub(lambda found: found[0] if found[0] == LINK else "\0" * len(found[0]), prose)
    for term in known:
        first = pattern(term).search(plain)
        if first and not plain[first.end() :].lstrip("*").startswith(LINK):
            yield term


def test_terms_are_in_order_and_none_is_twice() -> None:
    words = [term.lower() for term in terms()]
    assert words == sorted(set(words))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_lesson_links_each_term_where_it_first_uses_it(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert list(unlinked(prose, terms())) == []


def test_first_use_counts_and_code_does_not() -> None:
    known = ["halo", "GIL", "tile"]
    assert list(unlinked(f"# Halos\n| halo |\n`halo` [halo{LINK}, halo", known)) == []
    assert list(unlinked(f"halo, [halo{LINK}; many tiles", known)) == ["halo", "tile"]
