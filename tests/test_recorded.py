"""Logs and charts of the repository come from one recorded session of the present code."""

import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image
from support import MACHINE_PATH

from studyguide import __version__
from studyguide.record.report import RunReport, read_log

ROOT = Path(__file__).parents[1]
RECORDED = ("logs", "docs", "benchmarks/results")  # tests/test_notebooks.py reads the lessons
SESSION = timedelta(minutes=15)  # longer than `make record` takes


def tracked(pattern: str) -> list[Path]:
    command = ["git", "ls-files", pattern]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("not a checkout of git")
    return [ROOT / name for name in found.stdout.split() if (ROOT / name).exists()]


def logs() -> dict[str, RunReport]:
    return {path.name: read_log(path) for path in tracked(":(glob)logs/*.json")}


def test_logs_were_recorded_by_this_version_in_one_session() -> None:
    reports = logs()
    versions = {name: report.machine.get("studyguide") for name, report in reports.items()}
    assert versions == dict.fromkeys(reports, __version__), "run `make record`"
    starts = [datetime.fromisoformat(report.started) for report in reports.values()]
    assert max(starts) - min(starts) < SESSION, "run `make record`"


def test_charts_were_drawn_by_this_version_from_these_logs() -> None:
    known, charts = set(logs()), tracked(":(glob)visualize/*.png")
    assert charts
    for path in charts:
        with Image.open(path) as image:
            words = getattr(image, "text", {})
        assert words.get("Software") == f"studyguide {__version__}", f"{path.name}: `make record`"
        assert words.get("Source", ""), f"{path.name} names no log: run `make record`"
        assert set(words["Source"].split()) <= known, f"{path.name}: run `make record`"


def test_nothing_that_was_recorded_names_a_path_of_the_machine_it_ran_on() -> None:
    texts = [path for folder in RECORDED for path in tracked(folder) if path.suffix != ".png"]
    assert len(texts) > 50
    found = {path: MACHINE_PATH.search(path.read_text(encoding="utf-8")) for path in texts}
    assert {str(path): match[0] for path, match in found.items() if match} == {}
