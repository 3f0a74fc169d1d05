"""Every link to a file or heading of this project leads somewhere, in pages and lessons."""

import json
import re
from pathlib import Path

import pytest
from link_glossary import GLOSSARY, pages
from pods import require

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(<?([^)\s>]+)")
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    if page.suffix != ".ipynb":
        return FENCE.sub("", page.read_text())
    cells = json.loads(page.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors(page: Path) -> set[str]:
    """What a code host calls the headings of a page."""
    headings = re.findall(r"^#+ +(.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"<[^>]*>|[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


def broken(page: Path) -> list[str]:
    found = []
    for target in LINK.findall(text_of(page)):
        name, _, anchor = target.partition("#")
        there = (page.parent / name) if name else page
        if re.match(r"\w+:", target):
            continue
        if not there.exists() or (anchor and anchor not in anchors(there)):
            found.append(target)
    return found


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_links_lead_to_files_and_headings_that_exist() -> None:
    require("git")
    checked = [GLOSSARY, *pages()]
    assert {"README.md", "06_f_fault_tolerant_queue.ipynb"} <= {page.name for page in checked}
    assert {str(page): links for page in checked if (links := broken(page))} == {}


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, long\n[a](#a-title-long) [b](#nowhere) ![c](no.png) [d](https://x)\n"
    )
    assert broken(page) == ["#nowhere", "no.png"]
