"""Words have one meaning, in docs/glossary.md, and a lesson links them where it first uses them."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from link_glossary import GLOSSARY, LINK, entries, linked, pages, rewritten, slug
from pods import require
from refresh_notebooks import NOTEBOOKS

LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
# Not prose: code, formulas, headings, tables, links' targets.
OTHER = re.compile(r"```.*?```|\$\$.*?\$\$|`[^`\n]*`|^[#|][^\n]*|\]\([^)]*\)", re.M | re.S)
RUN = "run: python tools/link_glossary.py"


def pattern(term: str) -> re.Pattern[str]:
    """A term as it stands in prose, its plural included; its case counts if it has capitals."""
    return re.compile(rf"\b{re.escape(term)}s?\b", 0 if term != term.lower() else re.I)


def prose_of(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def unlinked(prose: str, known: list[str]) -> Iterator[str]:
    """Yield the terms that the prose of a lesson uses before it links them to the glossary."""
    links: dict[str, int] = {}
    for link in LINK.finditer(prose):
        links.setdefault(link["anchor"], link.start())
    plain = re.sub(LINK, lambda found: "\0" * len(found[0]), prose)
    plain = OTHER.sub(lambda found: "\0" * len(found[0]), plain)
    for term in known:
        first = pattern(term).search(plain)
        if first and links.get(slug(term), len(prose)) > first.start():
            yield term


def test_terms_are_in_order_and_none_is_twice() -> None:
    words = [term.lower() for term in entries()]
    assert words == sorted(set(words))


def test_each_heading_of_the_glossary_is_an_entry_that_can_be_a_link_s_title() -> None:
    text = GLOSSARY.read_text(encoding="utf-8")
    assert text.count("\n## ") == len(entries())
    assert [
        term for term, meaning in entries().items() if re.search(r'["\\`*\[\]<>]', meaning)
    ] == []


def test_jupyterlab_finds_each_entry_under_the_anchor_of_the_book() -> None:
    text = GLOSSARY.read_text(encoding="utf-8")
    named = {slug(term) for term in entries() if f'## <a id="{slug(term)}"></a>{term}\n' in text}
    assert {slug(term) for term in entries() if term.replace(" ", "-") != slug(term)} == named


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_lesson_links_each_term_where_it_first_uses_it(path: Path) -> None:
    assert list(unlinked(prose_of(path), list(entries()))) == []


@pytest.mark.skipif(not (GLOSSARY.parents[1] / ".git").exists(), reason="not a clone")
def test_links_lead_to_their_terms_and_show_today_s_definitions() -> None:
    require("git")
    checked = list(pages())
    assert set(LESSONS) < set(checked)
    stale = [page.name for page in checked if rewritten(page) != page.read_text(encoding="utf-8")]
    assert stale == [], RUN


def test_first_use_counts_and_code_does_not() -> None:
    known = ["halo", "GIL", "tile"]
    link = "[halos](../docs/glossary.md#halo)"
    assert list(unlinked(f"# Halos\n| halo |\n`halo` {link}, halo", known)) == []
    assert list(unlinked(f"halo, {link}; many tiles", known)) == ["halo", "tile"]


def test_links_are_anchored_and_titled_and_a_second_time_left_alone() -> None:
    known = {"consumer": "a name", "consumer group": "readers (of one stream)", "GIL": "a lock"}
    prose = (
        "a **[Consumer groups](g/glossary.md)**, [it](g/glossary.md#gil), [glossary](glossary.md)"
    )
    once = linked(prose, known)
    assert once == (
        'a **[Consumer groups](g/glossary.md#consumer-group "readers (of one stream)")**, '
        '[it](g/glossary.md#gil "a lock"), [glossary](glossary.md)'
    )
    assert linked(once, known) == once
    assert linked(once, known | {"GIL": "another lock"}) == once.replace("a lock", "another lock")


@pytest.mark.parametrize("link", ["[nobody](glossary.md)", "[it](glossary.md#nothing)"])
def test_a_link_to_a_term_that_is_missing_is_refused(link: str) -> None:
    with pytest.raises(SystemExit, match="has no such term"):
        linked(link, entries())
