"""What a visitor meets first: README, its two commands, the links that need a public address."""

import subprocess
import sys
from pathlib import Path

import pytest
from pods import require
from promises import copy_to
from support import make_images

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
    command = ["make", *tools, f"ARGS=--images {few} --kernel-size 5 --tile-size 16 --workers 2"]
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
