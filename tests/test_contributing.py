"""What CONTRIBUTING.md promises is true."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pods import require

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
def test_the_eighth_approach_takes_no_more_than_the_diff_that_is_shown(
    tmp_path: Path, two_images: Path
) -> None:
    require("git")
    (diff,) = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    shutil.copytree(ROOT / "studyguide", tmp_path / "studyguide")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff, text=True, check=True)
    command = [sys.executable, "-m", "studyguide", "run", "a", "h", "--json", "--workers=2"]
    folders = ["--images", two_images, "--output", "out", "--logs", "logs", "--tile-size=16"]
    done = subprocess.run([*command, *folders], cwd=tmp_path, capture_output=True, check=True)
    a, h = json.loads(done.stdout)
    assert (h["approach"], h["lost_tiles"]) == ("h", 0)
    assert h["tiles"] == h["ledger"]["assembled"] > 0
    digests = [[item["pixels_sha256"] for item in report["outputs"]] for report in (a, h)]
    assert digests[0] == digests[1]


TESTED = r"(?<!for )\b(approach|letter|name)\)?\s*(==|!=|in|not in)\s*"
LETTER = re.compile(TESTED + r"""[("']+[a-g]{1,7}["']""")


def test_nothing_but_the_table_tests_the_letter_of_an_approach() -> None:
    assert LETTER.search('if role.approach == "e":')
    assert LETTER.search('chaos = [probe] if approach in "efg" else []')
    sources = [
        path for part in ("studyguide", "benchmarks") for path in ROOT.glob(f"{part}/**/*.py")
    ]
    found = {path.name: LETTER.findall(path.read_text()) for path in sources}
    assert {name: hits for name, hits in found.items() if hits} == {}
