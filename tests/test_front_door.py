"""What a visitor meets first: README, its two commands, the links that need a public address."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import numpy as np
import publish
import pytest
from draw_beside import PICTURE, beside
from link_glossary import pages
from pods import require
from promises import copy_to
from support import make_images

from studyguide.approaches import APPROACHES
from studyguide.images import load

ROOT = Path(__file__).resolve().parents[1]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_make_run_changes_no_file_that_git_tracks_and_adds_none(tmp_path: Path) -> None:
    require("git", "make")
    course = tmp_path / "course"
    copy_to(course)
    git(course, "init", "--quiet")
    git(course, "add", "--force", ".")
    few = make_images(tmp_path / "few")
    tools = [f"BIN={Path(sys.executable).parent}", "READY="]  # no environment is made
    command = [
        "make",
        "--no-print-directory",
        *tools,
        f"ARGS=--images {few} --kernel-size 5 --tile-size 16 --workers 2",
    ]
    done = subprocess.run([*command, "run"], cwd=course, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("make lab")
    assert git(course, "diff", "--name-only") == ""
    assert git(course, "ls-files", "--others", "--exclude-standard") == ""
    new = git(course, "ls-files", "--others").splitlines()
    charts = {Path(name).name for name in new if name.startswith("build/charts/")}
    assert charts == {path.name for path in (ROOT / "visualize").glob("*.png")}
    assert len({Path(name).parent for name in new if name.startswith("images/output/")}) == 7
    assert len([name for name in new if name.startswith("logs/") and name.endswith(".json")]) == 9


def test_the_blurred_image_beside_its_original_is_of_today() -> None:
    assert np.array_equal(load(PICTURE), beside()), "run: python tools/draw_beside.py"


def test_readme_describes_each_approach_and_links_its_lesson() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for letter, approach in APPROACHES.items():
        assert f"**{letter}. {approach.title}** (`{approach.stem}`)" in text
        assert re.search(rf"^\| {letter} \| .*notebooks/0\d_{approach.stem}\.ipynb", text, re.M)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_lessons_go_by_letters_and_never_by_numbers() -> None:
    require("git")
    titles = {}
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        titles[path.name[3]] = nbformat.read(path, as_version=4).cells[0].source[:10]
    assert titles == {letter: f"# Lesson {letter}" for letter in APPROACHES}
    number = re.compile(r"\b(?:lessons?|notebooks?) #?0?[1-9]\b(?! to \d+ minutes)", re.I)
    texts = {page.name: page.read_text(encoding="utf-8") for page in [*pages(), ROOT / "Makefile"]}
    assert {name: found for name, text in texts.items() if (found := number.findall(text))} == {}


# The repository's public address


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the files that name the address."""
    for name in ("README.md", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def published(folder: Path, address: str) -> None:
    """Set the address in a project's one place for it."""
    path = folder / "pyproject.toml"
    table = f'[project.urls]\nRepository = "{address}"\n[project.optional-dependencies]'
    path.write_text(path.read_text().replace("[project.optional-dependencies]", table))


def test_what_names_the_address_says_what_pyproject_does() -> None:
    for file, block in publish.blocks(publish.repository()).items():
        text = (ROOT / file).read_text(encoding="utf-8")
        assert publish.MARKED.search(text)
        assert publish.written(text, block) == text, "run: python tools/publish.py --write"


@pytest.mark.parametrize("placeholder", ["OWNER", "mybinder", "colab.research", "github.com"])
def test_readme_links_nothing_that_needs_an_address_before_it_is_set(placeholder: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert publish.repository() or placeholder not in readme


def test_one_variable_makes_the_links(project: Path) -> None:
    published(project, "https://github.com/ada/engine")
    assert publish.repository(project) == "https://github.com/ada/engine"
    text = (project / "README.md").read_text()
    written = publish.written(text, publish.blocks(publish.repository(project))["README.md"])
    assert "https://mybinder.org/v2/gh/ada/engine/HEAD?urlpath=lab/tree/notebooks/01_a" in written
    assert "https://colab.research.google.com/github/ada/engine/blob/main/notebooks/01_a" in written
    assert publish.written(written, "") == text


def test_every_notebook_that_a_link_of_the_address_names_is_there() -> None:
    assert (ROOT / publish.LESSON).is_file()
    assert (ROOT / ".github" / "workflows" / "test.yml").is_file()


class Half(BaseHTTPRequestHandler):
    """A site of which one page is there."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/here" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_check_names_what_is_not_set_not_written_and_dead(project: Path, site: str) -> None:
    readme = f"{site}/here [x]({site}/gone)\n<!-- published: -->\nold\n<!-- end -->\n"
    (project / "README.md").write_text(readme)
    assert list(publish.faults(project)) == [
        "pyproject.toml: [project.urls] Repository is not set, so nothing links to it",
        "README.md: run python tools/publish.py --write",
        f"README.md: {site}/gone: HTTP Error 404: Not Found",
    ]
