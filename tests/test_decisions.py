"""Every decision is a record: title, date, context, decision, consequences; the list names all."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "decisions"
PAGES = sorted(FOLDER.glob("0*.md"))
WALKS = "0011-three-walks.md"  # a report of walks, not a choice


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem[:4])
def test_a_decision_has_its_parts_in_order(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(page.name[:4])}. ")
    assert re.search(r"^Date: 20\d\d-\d\d-\d\d", text, re.MULTILINE) or page.name == WALKS
    found = re.findall(r"^## (Context|Decision|Consequences)$", text, re.MULTILINE)
    assert found == ([] if page.name == WALKS else ["Context", "Decision", "Consequences"])


def test_the_list_names_every_decision_by_its_title() -> None:
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        number, title = (
            page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split(". ", 1)
        )
        assert f"{number}. [{title}]({page.name})" in listed
