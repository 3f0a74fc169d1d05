"""Write and check the links that need the repository's public address: Binder, Colab, the book.

The address is set in one place, pyproject.toml::

    [project.urls]
    Repository = "https://github.com/OWNER/NAME"

``python tools/publish.py --write`` writes what follows from it between the marks in README.md and
CITATION.cff: nothing, as long as it is not set. ``make publish-check`` reports what is not set,
what is not written, and which links of these two files are dead.
"""

import re
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"^((?:<!--|#) published: .*\n)(?:.*\n)*?((?:<!--|#) end\b.*)$", re.MULTILINE)
URL = re.compile(r"https?://[^\s)\"'`<>|]+")
TIMEOUT_S = 10
LESSON = "notebooks/01_a_sequential.ipynb"


def repository(root: Path = ROOT) -> str:
    """Return the address from pyproject.toml, "" if it is not set."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project.get("urls", {}).get("Repository", "")).removesuffix("/")


def blocks(address: str) -> dict[str, str]:
    """Return what stands between the marks of each file."""
    if not address:
        return {"README.md": "", "CITATION.cff": ""}
    owner, name = address.split("/")[-2:]
    tests = f"{address}/actions/workflows/test.yml"
    binder = f"https://mybinder.org/v2/gh/{owner}/{name}/HEAD?urlpath=lab/tree/{LESSON}"
    colab = f"https://colab.research.google.com/github/{owner}/{name}/blob/main/{LESSON}"
    readme = f"""[![tests]({tests}/badge.svg)]({tests})
[![Binder](https://mybinder.org/badge_logo.svg)]({binder})
[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})

Read [the course](https://{owner}.github.io/{name}/) as a site. Run it without installing anything:
Binder opens lesson a in JupyterLab, and so does Colab, after this in a cell of its own:
`%pip install "studyguide[fast,lab] @ git+{address}"`.
"""
    return {"README.md": readme, "CITATION.cff": f"repository-code: {address}\n"}


def faults(root: Path = ROOT) -> Iterator[str]:
    """Yield what is not set, what is not written, and which links are dead."""
    address = repository(root)
    if not address:
        yield "pyproject.toml: [project.urls] Repository is not set, so nothing links to it"
    for file in blocks(address):
        text = (root / file).read_text(encoding="utf-8")
        if text != written(text, blocks(address)[file]):
            yield f"{file}: run python tools/publish.py --write"
        for url in sorted(set(URL.findall(text))):
            if problem := dead(url):
                yield f"{file}: {url}: {problem}"


def written(text: str, block: str) -> str:
    """Return a file's text with `block` between its marks."""
    return MARKED.sub(lambda marks: f"{marks[1]}{block}{marks[2]}", text)


def dead(url: str) -> str:
    """Return why a page cannot be read, "" if it can."""
    request = urllib.request.Request(url, headers={"User-Agent": "studyguide"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return ""
    except OSError as error:  # among them what HTTP answers: 404
        return str(error)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        for file, block in blocks(repository()).items():
            path = ROOT / file
            path.write_text(written(path.read_text(encoding="utf-8"), block), encoding="utf-8")
    else:
        found = list(faults())
        print("\n".join(found) or "All is set, and every link answers.")
        sys.exit(bool(found))
