"""Write the links to the glossary: each leads to its term and shows its definition on hovering.

Usage: ``python tools/link_glossary.py``. Write ``[tiles](../docs/glossary.md)`` in a page or a
lesson; this adds the anchor and the title, and renews titles when docs/glossary.md changes. A text
that is not a form of its term needs an anchor from you: ``[lent](../docs/glossary.md#lease)``.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from studyguide.machinery.files import atomic

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
ENTRY = re.compile(r"^## (?:<a id=\"[^\"]*\"></a>)?(.+)\n\n(.+)$", re.MULTILINE)
# In a notebook's JSON the quotes of a title are escaped.
LINK = re.compile(
    r"\[(?P<text>[^\][]*)\]\((?P<page>[^()\s#]*glossary\.md)(?:#(?P<anchor>[^)\s]*))?"
    r"(?: +(?P<quote>\\?\")(?P<title>[^\"]*?)\\?\")?\)"
)


def entries() -> dict[str, str]:
    """Return the definition of each term, in the order of the page."""
    return dict(ENTRY.findall(GLOSSARY.read_text(encoding="utf-8")))


def slug(term: str) -> str:
    """Return what a code host and the book call the heading of a term."""
    return re.sub(r"[^\w -]", "", term.lower()).replace(" ", "-")


def term_of(text: str, known: dict[str, str]) -> str | None:
    """Return the slug of the longest term that the words of a link begin or end with."""
    words = slug(text)
    found = [
        slug(term) for term in known if words.startswith(slug(term)) or words.endswith(slug(term))
    ]
    return max(found, key=len, default=None)


def linked(text: str, known: dict[str, str], quote: str = '"') -> str:
    """Return `text` with every link to a term anchored and titled; of the whole page, neither."""
    titles = {slug(term): definition for term, definition in known.items()}

    def write(link: re.Match[str]) -> str:
        anchor = link["anchor"] or term_of(link["text"], known)
        if anchor is None and "glossary" in link["text"]:
            return f"[{link['text']}]({link['page']})"
        if anchor not in titles:
            raise SystemExit(f"{link[0]}: docs/glossary.md has no such term; name one: #term")
        return f"[{link['text']}]({link['page']}#{anchor} {quote}{titles[anchor]}{quote})"

    return LINK.sub(write, text)


def pages() -> Iterator[Path]:
    """Yield the Markdown pages and notebooks that git knows, but the glossary."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "*.md", "*.ipynb"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = (ROOT / name for name in names.splitlines())
    return (page for page in found if page != GLOSSARY and page.exists())


def rewritten(page: Path) -> str:
    """Return a page as it has to read."""
    quote = '\\"' if page.suffix == ".ipynb" else '"'
    return linked(page.read_text(encoding="utf-8"), entries(), quote)


if __name__ == "__main__":
    for page in pages():
        text = rewritten(page)
        if text != page.read_text(encoding="utf-8"):
            with atomic(page) as file:
                file.write(text.encode())
            print(page.relative_to(ROOT))
