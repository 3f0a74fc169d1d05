"""Break each promise of SECURITY.md in a copy of the project, and see whether its test notices.

python tools/promises.py [WORD]     (only those whose test has that word in its name)
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
BREACHES = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))


def notices(folder: Path, file: str, breach: dict[str, str]) -> bool:
    """Whether the test fails while the promise is broken."""
    path = folder / file
    whole = path.read_text(encoding="utf-8")
    if breach["line"] not in whole:
        sys.exit(f"{file} does not say {breach['line']!r} any more")
    path.write_text(whole.replace(breach["line"], breach["instead"]), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "tests"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["CI"] = "true"  # a test that is skipped would not notice
    ended = subprocess.run(
        [*command, "-k", breach["test"]], cwd=folder, env=environment, capture_output=True
    )
    path.write_text(whole, encoding="utf-8")
    if ended.returncode not in (0, 1):
        sys.exit(f"{breach['test']}: {ended.stdout.decode()[-2000:]}")
    return ended.returncode == 1


def copy_to(folder: Path) -> None:
    """Copy what git tracks, and what it would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for file in filter(None, listed.decode().split("\0")):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, folder / file)


def main(word: str = "") -> None:
    """Break what the tests with this word in their names are for."""
    tried, unnoticed = 0, 0
    with tempfile.TemporaryDirectory() as name:
        copy_to(Path(name))
        for file, breaches in BREACHES.items():
            for breach in (breach for breach in breaches if word in breach["test"]):
                seen = notices(Path(name), file, breach)
                tried, unnoticed = tried + 1, unnoticed + (not seen)
                print(f"{'red' if seen else 'GREEN'}  {file}: {breach['test']}", flush=True)
    print(f"{tried} promises broken, {unnoticed} unnoticed")
    sys.exit(unnoticed > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
