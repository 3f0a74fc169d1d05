"""What `pip install studyguide` brings: built as a release is, installed where nothing else is."""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import studyguide

ROOT = Path(__file__).resolve().parents[1]
UV = str(Path(sys.executable).with_name("uv"))
OLDEST, NEWEST = 11, 15
CI = bool(os.environ.get("CI"))


def others() -> list[str]:
    """Return the other versions of Python that this machine has; looked for in CI only."""
    if not CI:
        return []
    versions = [f"3.{minor}" for minor in range(OLDEST, NEWEST) if minor != sys.version_info.minor]
    find = [UV, "python", "find", "--no-python-downloads"]
    return [
        version
        for version in versions
        if subprocess.run([*find, version], capture_output=True, check=False).returncode == 0
    ]


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


@pytest.fixture(scope="module", params=[sys.executable, *others()])
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


def test_the_source_distribution_has_what_the_tests_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"Makefile", "README.md", "tests/support.py", "k8s/Containerfile"} <= names
    assert not [name for name in names if name.startswith((".venv", "images/output"))]


def test_the_wheel_is_typed_and_brings_the_course(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert {"studyguide/py.typed", "studyguide/protocol.lua"} <= names
    lessons = [name for name in names if name.startswith("studyguide/course/notebooks/0")]
    assert len(lessons) == 7
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"studyguide"}


def test_an_installed_wheel_makes_a_course_and_blurs_its_images(
    installed: Run, tmp_path: Path
) -> None:
    assert installed("studyguide", "--version").strip() == studyguide.__version__
    course = tmp_path / "course"
    installed("studyguide", "init", str(course))
    said = installed("studyguide", "run", "a", "e", "--kernel-size=5", cwd=course)
    assert said.count("yes") == 2
    assert len(list((course / "images" / "output" / "e_distributed_queue").iterdir())) == 5


def test_the_import_of_an_installed_wheel_loads_nothing_heavy(installed: Run) -> None:
    heavy = "{'numba', 'matplotlib', 'numpy', 'PIL', 'redis'}"
    program = f"import studyguide, sys; print(sorted({heavy} & set(sys.modules)))"
    assert installed("python", "-c", program).strip() == "[]"
