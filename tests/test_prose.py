"""The prose linter of `make lint` finds what is on its list, in every kind of text."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import prose  # noqa: E402

LINE = "It looks " + "whether the queue is empty."  # apart, so that the linter passes this file


@pytest.mark.parametrize("name", ["page.md", "module.py", "lesson.ipynb"])
def test_a_phrase_is_found_with_its_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    lesson = json.dumps({"cells": [{"source": ["fine\n"]}, {"source": ["so.\n", LINE]}]})
    (tmp_path / name).write_text(lesson if name.endswith("ipynb") else f"fine\n{LINE}\n")
    place = "cell 1" if name.endswith("ipynb") else "2"
    (found,) = prose.stumbles(tmp_path / name)
    assert found.startswith(f"{name}:{place}: 'looks " + "whether'; write: checks whether")


def test_every_phrase_of_the_list_is_a_pattern_with_advice() -> None:
    assert all(prose.PATTERNS.values())
    assert len(prose.PATTERNS) >= 20


def test_pages_lessons_and_source_are_read() -> None:
    read = {path.relative_to(ROOT).as_posix() for path in prose.files()}
    assert {"README.md", "notebooks/compare.ipynb", "studyguide/streams.py", "Makefile"} <= read
