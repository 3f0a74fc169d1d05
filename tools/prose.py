"""Look for the phrases of prose.toml in Markdown, notebooks and source; `make lint` runs it."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PHRASES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
READ = {".md", ".ipynb", ".py", ".lua", ".js", ".toml", ".yml", ".yaml", ".sh", ""}
PATTERNS = {re.compile(rf"\b(?:{key})\b", re.IGNORECASE): PHRASES[key] for key in PHRASES}


def texts(path: Path) -> list[tuple[str, str]]:
    """The lines of a file, or the cells of a notebook without outputs, each with its place."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return [(f"cell {n}", "".join(cell["source"])) for n, cell in enumerate(cells)]
    return [(str(n), line) for n, line in enumerate(text.splitlines(), 1)]


def stumbles(path: Path) -> Iterator[str]:
    """Each phrase of the list in a file, with its place and what to write instead."""
    for place, text in texts(path):
        for pattern, instead in PATTERNS.items():
            for found in pattern.finditer(text):
                yield f"{path.relative_to(ROOT)}:{place}: {found[0]!r}; write: {instead}"


def files() -> Iterator[Path]:
    """What git tracks and people read, but for the list itself."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.suffix in READ and path.is_file() and path.stem != "prose":
            yield path


def main() -> None:
    """Print all stumbles; exit code 1 if there is one."""
    found = [line for path in files() for line in stumbles(path)]
    print(*found, sep="\n", end="\n" * bool(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
