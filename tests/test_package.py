"""What `pip install studyguide` brings: built as a release is, installed where nothing else is."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import studyguide

ROOT = Path(__file__).resolve().parents[1]
UV = str(Path(sys.executable).with_name("uv"))
OLDEST, NEWEST = 11, 15  # the first that we support, and the first that numba does not
LESSON, CELLS = "01_a_sequential.ipynb", 5  # as far as the first blur
CI = bool(os.environ.get("CI"))


def others() -> list[Any]:
    """Return the other versions of Python that this machine has; looked for in CI only."""
    minors = [minor for minor in range(OLDEST, NEWEST) if minor != sys.version_info.minor]
    found = [python for minor in minors if (python := find_python(minor))] if CI else []
    return [pytest.param(python, marks=pytest.mark.verify) for python in found]


def find_python(minor: int) -> str | None:
    """Return a Python that works: pyenv has one of each name on PATH, and most of them do not."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [shutil.which(f"python3.{minor}"), *versions.glob(f"3.{minor}.*/bin/python")]
    for python in filter(None, candidates):
        if subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0:
            return str(python)
    return None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    hatch = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run([*hatch, "--target", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    subprocess.run([*hatch, "--target", "wheel"], cwd=source, check=True, capture_output=True)
    return folder


Run = Callable[..., str]


@pytest.fixture(
    scope="module", params=[sys.executable, *others()], ids=lambda python: Path(python).name
)
def installed(
    built: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Run:
    """Install the wheel in an environment of its own; return what runs programs of it."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    environment = folder / "venv"
    uv = [UV, "--quiet", "--no-config", "--system-certs"]
    subprocess.run([*uv, "venv", "--python", request.param, environment], check=True)
    install = [*uv, "pip", "install", "--python", environment, wheel]
    subprocess.run(install, check=True)

    def run(program: str, *arguments: str, cwd: Path = folder) -> str:
        done = subprocess.run(
            [environment / "bin" / program, *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_source_distribution_has_what_the_tests_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"Makefile", "README.md", "tests/support.py", "k8s/Containerfile"} <= names
    assert not [name for name in names if name.startswith((".venv", "images/output"))]


@pytest.mark.slow
def test_the_wheel_is_typed_and_brings_the_course(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert {"studyguide/py.typed", "studyguide/protocol.lua"} <= names
    assert "studyguide/course/docs/glossary.md" in names
    lessons = [name for name in names if name.startswith("studyguide/course/notebooks/0")]
    assert len(lessons) == 7
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {
        "studyguide",
        "studyguide_course",
    }


@pytest.mark.slow
def test_an_installed_wheel_makes_a_course_and_blurs_its_images(
    installed: Run, tmp_path: Path
) -> None:
    assert installed("studyguide", "--version").strip() == studyguide.__version__
    course = tmp_path / "course"
    installed("studyguide", "init", str(course))
    said = installed("studyguide", "run", "a", "e", "--kernel-size=5", cwd=course)
    assert said.count("yes") == 2
    assert len(list((course / "images" / "output" / "e_distributed_queue").iterdir())) == 5


@pytest.fixture(scope="module")
def beside(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python with the wheel, which finds all else where the tests do."""
    environment = tmp_path_factory.mktemp("beside") / "venv"
    uv = [UV, "--quiet", "--no-config"]
    subprocess.run([*uv, "venv", "--python", sys.executable, environment], check=True)
    install = [*uv, "pip", "install", "--offline", "--no-deps", "--python", environment]
    subprocess.run([*install, *built.glob("*.whl")], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "rest.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin" / "python"


@pytest.mark.slow
def test_a_lesson_that_init_made_runs_from_the_installed_wheel(
    beside: Path, tmp_path: Path
) -> None:
    def run(*arguments: str, cwd: Path = tmp_path) -> str:
        done = subprocess.run([beside, *arguments], cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "studyguide", "init", "course")
    where = run("-c", "import studyguide; print(studyguide.__file__)").strip()
    assert Path(where).is_relative_to(beside.parents[1])
    lesson = tmp_path / "course" / "notebooks" / LESSON
    beginning = json.loads(lesson.read_text())
    beginning["cells"] = beginning["cells"][:CELLS]
    for cell in beginning["cells"]:
        cell |= {"outputs": []} if "outputs" in cell else {}
    lesson.write_text(json.dumps(beginning))
    run(str(ROOT / "tools" / "refresh_notebooks.py"), str(lesson))
    cells = [cell for cell in json.loads(lesson.read_text())["cells"] if "outputs" in cell]
    assert len(cells) >= 2
    assert all(cell["outputs"] for cell in cells)


@pytest.mark.slow
def test_the_import_of_an_installed_wheel_loads_nothing_heavy(installed: Run) -> None:
    heavy = "{'numba', 'matplotlib', 'numpy', 'PIL', 'redis'}"
    program = f"import studyguide, sys; print(sorted({heavy} & set(sys.modules)))"
    assert installed("python", "-c", program).strip() == "[]"


def test_every_public_name_can_be_had_is_documented_and_listed() -> None:
    documented = (ROOT / "docs" / "api.md").read_text()
    assert studyguide.__all__ == sorted(studyguide.__all__)
    for name in studyguide.__all__:
        thing = getattr(studyguide, name)
        assert name in dir(studyguide)
        if name != "__version__":
            assert thing.__doc__
            assert f"studyguide.{name}" in documented or thing.__module__ in documented
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = studyguide.nothing
