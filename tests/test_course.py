"""The course's files are found from wherever one starts, and copied whole."""

import errno
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from studyguide.__main__ import main
from studyguide.errors import StudyguideError, UsageError
from studyguide.machinery import places
from studyguide_course import init

ROOT = Path(__file__).resolve().parents[1]


def make_course(folder: Path) -> Path:
    for part in places.PARTS:
        (folder / part).mkdir(parents=True)
    (folder / places.MARK).touch()
    return folder


@pytest.mark.parametrize("part", places.PARTS)
def test_parts_are_found_from_any_folder_inside_the_course(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make_course(tmp_path) / "notebooks" / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert places.find(part) == tmp_path / part


@pytest.mark.parametrize("missing", [places.MARK, *places.PARTS])
@pytest.mark.parametrize("part", places.PARTS)
def test_folders_of_the_same_names_that_are_not_the_course_are_passed_over(
    part: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_course(tmp_path)
    (tmp_path / missing).rename(tmp_path / "away")
    monkeypatch.chdir(tmp_path)
    assert places.find(part) == ROOT / part


@pytest.mark.parametrize("part", places.PARTS)
def test_parts_are_found_around_the_package_from_outside_the_course(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert places.find(part) == ROOT / part


def test_parts_that_are_nowhere_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PACKAGE", tmp_path / "site-packages" / "studyguide")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"No folder with the course .*studyguide init DIR"):
        places.find("k8s")


def test_init_makes_a_folder_in_which_the_course_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "mine"
    assert main(["init", str(folder)]) == 0
    assert f"cd {folder} && jupyter lab" in capsys.readouterr().out
    monkeypatch.chdir(folder)
    for part in places.PARTS:
        names = {path.name for path in (ROOT / part).iterdir()} - {"__pycache__"}
        assert {path.name for path in places.find(part).iterdir()} == names - {".ipynb_checkpoints"}
        assert places.find(part) == folder / part
    assert (folder / init.GLOSSARY).read_bytes() == (ROOT / init.GLOSSARY).read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]


def test_init_touches_nothing_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert main(["init", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path} is there already. Name a folder that is not there yet" in told
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The course of an installed wheel, with a few files in each part."""
    monkeypatch.setattr(places, "PACKAGE", tmp_path / "site" / "studyguide")
    own = make_course(tmp_path / "site" / "studyguide" / "course")
    for part in places.PARTS:
        for name in "abc":
            (own / part / name).write_text(f"{part} {name}")
    (own / "docs").mkdir()
    (own / init.GLOSSARY).write_text("# Glossary")
    return own


def names(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if not name.endswith(init.GIVEN)}


def test_init_takes_the_files_of_the_package_and_not_of_the_folder_around(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make_course(tmp_path / "other") / "k8s" / "private").touch()
    monkeypatch.chdir(tmp_path / "other")
    init.copy(Path("mine"))
    assert names(tmp_path / "other" / "mine") == names(package)


def test_init_copies_no_link_and_nothing_that_a_link_leads_to(
    package: Path, tmp_path: Path
) -> None:
    before = names(package)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "diary").touch()
    (package / "k8s" / "folder").symlink_to(tmp_path / "private")
    (package / "k8s" / "file").symlink_to(tmp_path / "private" / "diary")
    (package / "k8s" / "loop").symlink_to(package)
    os.mkfifo(package / "k8s" / "pipe")
    init.copy(tmp_path / "mine")
    assert names(tmp_path / "mine") == before
    (package / "images" / "input").rename(tmp_path / "photos")
    (package / "images" / "input").symlink_to(tmp_path / "photos")
    with pytest.raises(UsageError, match="input is a link"):
        init.copy(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("part", places.PARTS)
def test_init_makes_no_copy_inside_of_what_it_copies(
    part: str, package: Path, tmp_path: Path
) -> None:
    before = names(package)
    (tmp_path / "way").symlink_to(package / part)
    for folder in (package / part / "deep" / "mine", tmp_path / "way" / "mine"):
        with pytest.raises(UsageError, match=r"lies inside .*Name a folder outside of it"):
            init.copy(folder)
    assert names(package) == before


def test_init_ends_at_the_first_file_for_which_there_is_no_room(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []

    def copy_one_file(source: Path, target: Path) -> None:
        copied.append(source)
        target.write_text("half of it")
        if len(copied) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", copy_one_file)
    monkeypatch.setattr(shutil, "copy2", copy_one_file)  # what `copytree` takes
    before = names(tmp_path)
    with pytest.raises(StudyguideError, match=r"mine cannot be made \(No space left on device\)"):
        init.copy(tmp_path / "mine")
    assert len(copied) == 2
    assert names(tmp_path) == before


def test_init_can_make_a_folder_with_as_long_a_name_as_the_system_allows(
    package: Path, tmp_path: Path
) -> None:
    init.copy(tmp_path / ("n" * 255))
    assert names(tmp_path / ("n" * 255)) == names(package)


# an update of a learner's folder


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture
def mine(package: Path, tmp_path: Path) -> Path:
    """A learner's folder, whose course changes afterwards."""
    init.copy(tmp_path / "mine")
    return tmp_path / "mine"


def test_without_a_new_version_nothing_changes(package: Path, mine: Path) -> None:
    (mine / "notebooks" / "a").write_text("my work")
    before = names(mine)
    assert init.update(mine) == {}
    assert names(mine) == before
    assert text(mine / "notebooks" / "a") == "my work"


def test_what_a_learner_changed_is_kept_and_the_new_version_comes_beside_it(
    package: Path, mine: Path
) -> None:
    before = names(mine)
    (mine / "notebooks" / "a").write_text("my work")
    for name in "ab":
        (package / "notebooks" / name).write_text("new")
    assert init.update(mine) == {"notebooks/a": "notebooks/a-new"}
    assert text(mine / "notebooks" / "a") == "my work"
    assert text(mine / "notebooks" / "a-new") == "new"
    assert text(mine / "notebooks" / "b") == "new"  # nobody had touched it
    assert names(mine) == before | {"notebooks/a-new"}
    assert init.update(mine) == {}
    (package / "notebooks" / "a").write_text("newer")  # the untouched version beside is replaced
    assert init.update(mine) == {"notebooks/a": "notebooks/a-new"}
    assert text(mine / "notebooks" / "a-new") == "newer"
    (mine / "notebooks" / "a-new").write_text("my other work")
    (package / "notebooks" / "a").write_text("newest")
    assert init.update(mine) == {"notebooks/a": "notebooks/a-new-2"}
    kept = [text(mine / "notebooks" / name) for name in ("a", "a-new", "a-new-2")]
    assert kept == ["my work", "my other work", "newest"]


def test_what_is_missing_comes_again_and_what_is_new_comes(package: Path, mine: Path) -> None:
    (mine / "k8s" / "a").unlink()
    (package / "k8s" / "deep").mkdir()
    (package / "k8s" / "deep" / "d").write_text("new")
    assert init.update(mine) == {}
    assert names(mine) == names(package)


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"notebooks/a": 5}'])
def test_without_its_record_everything_in_a_folder_counts_as_the_learners(
    record: str, package: Path, mine: Path
) -> None:
    (mine / init.GIVEN).write_text(record)
    (package / "notebooks" / "a").write_text("new")
    assert init.update(mine) == {"notebooks/a": "notebooks/a-new"}
    assert text(mine / "notebooks" / "a") == "notebooks a"


def test_a_link_of_a_learner_is_not_written_through(
    package: Path, mine: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("notebooks a")
    (mine / "notebooks" / "a").unlink()
    (mine / "notebooks" / "a").symlink_to(tmp_path / "elsewhere")
    (package / "notebooks" / "a").write_text("new")
    assert init.update(mine) == {"notebooks/a": "notebooks/a-new"}
    assert text(tmp_path / "elsewhere") == "notebooks a"


def lesson(source: str, output: str) -> str:
    cell = new_code_cell(source, outputs=[new_output("stream", text=output)])
    return nbformat.writes(new_notebook(cells=[cell]))


def test_a_lesson_that_was_only_executed_anew_is_no_new_version(package: Path) -> None:
    (package / places.MARK).write_text(lesson("run()", "1.0 s"))
    folder = package.parent / "mine"
    init.copy(folder)
    (folder / places.MARK).write_text(mine := lesson("run()  # mine", "3.0 s"))
    (package / places.MARK).write_text(lesson("run()", "2.0 s"))
    assert init.update(folder) == {}
    (package / places.MARK).write_text(lesson("run(2)", "2.0 s"))
    beside = "notebooks/01_a_sequential-new.ipynb"
    assert init.update(folder) == {places.MARK: beside}
    assert text(folder / places.MARK) == mine
    assert text(folder / beside) == text(package / places.MARK)


def test_init_says_what_came_beside_a_learners_work(
    package: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "notebooks" / "a").write_text("my work")
    (package / "notebooks" / "a").write_text("new")
    assert main(["init", str(mine)]) == 0
    told = capsys.readouterr().out
    assert "notebooks/a has your work and stays as it is; its new version: notebooks/a-new" in told
    assert f"cd {mine} && jupyter lab" in told


def test_a_full_disk_ends_an_update_and_costs_no_work(
    package: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine / "notebooks" / "a").write_text("my work")
    for name in "ab":
        (package / "notebooks" / name).write_text("new")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StudyguideError, match="cannot be updated"):
            init.update(mine)
    assert text(mine / "notebooks" / "a") == "my work"
    assert names(mine) == names(package)
    assert init.update(mine) == {"notebooks/a": "notebooks/a-new"}
    assert text(mine / "notebooks" / "b") == "new"
