"""The course's files are found from wherever one starts, and copied whole."""

from pathlib import Path

import pytest

from studyguide import course
from studyguide.__main__ import main
from studyguide.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("part", course.PARTS)
def test_parts_are_found_from_any_folder_inside_the_course(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / part).mkdir(parents=True)
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert course.find(part) == tmp_path / part


@pytest.mark.parametrize("part", course.PARTS)
def test_parts_are_found_around_the_package_from_outside_the_course(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert course.find(part) == ROOT / part


def test_parts_that_are_nowhere_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "PACKAGE", tmp_path / "site-packages" / "studyguide")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"No folder k8s is to be found\. .*studyguide init DIR"):
        course.find("k8s")


def test_init_makes_a_folder_in_which_the_course_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "mine"
    assert main(["init", str(folder)]) == 0
    assert f"cd {folder} && jupyter lab notebooks" in capsys.readouterr().out
    monkeypatch.chdir(folder)
    for part in course.PARTS:
        names = {path.name for path in (ROOT / part).iterdir()} - {"__pycache__"}
        assert {path.name for path in course.find(part).iterdir()} == names - {".ipynb_checkpoints"}
        assert course.find(part) == folder / part
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]


def test_init_touches_nothing_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert main(["init", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path} is there already. Name a folder that is not there yet" in told
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_copy_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "PARTS", ("notebooks", "nowhere"))
    with pytest.raises(UsageError, match="nowhere"):
        course.copy(tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []
