"""The house stays small: budgets in lines, and the trails that docs/architecture.md describes.

All lines count, those of docstrings, Lua and JavaScript included. A budget may only be lowered.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# Lines by part of the house. docs/decisions/0010-the-budgets-of-the-house.md says why some are not
# what was wanted.
BUDGETS = {
    "studyguide/*": 4_016,
    "studyguide/record/*": 1_567,
    "studyguide/machinery/*": 1_791,
    "studyguide/kubernetes/*": 842,
    "studyguide_course/**/*": 8_238,
    "studyguide_course/book/*": 131,
    "studyguide_course/chaos/*": 1_211,
    "studyguide_course/chapters/*": 455,
    "studyguide_course/exercises/n.py": 53,
    "studyguide_course/init.py": 141,
    "studyguide_course/learner/*": 510,
    "studyguide_course/ladder/*": 922,
    "studyguide_course/network/*": 266,
    "studyguide_course/view.*": 589,
}
NOT_COUNTED = ("studyguide/__main__.py",)  # the command line
MODULE, FUNCTION = 400, 40
TRAILS = {"b": 450, "f": 1_150}


def sources(pattern: str) -> list[Path]:
    """Files of a part of the house that people read."""
    kinds = (".py", ".lua", ".js")
    left_out = {ROOT / path for path in NOT_COUNTED}
    return [path for path in ROOT.glob(pattern) if path.suffix in kinds and path not in left_out]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("part", BUDGETS)
def test_a_part_of_the_house_stays_within_its_budget(part: str) -> None:
    assert sum(map(lines, sources(part))) <= BUDGETS[part]


def test_no_module_is_too_long() -> None:
    everything = [*sources("studyguide/**/*"), *sources("studyguide_course/**/*")]
    assert {path.name: lines(path) for path in everything if lines(path) > MODULE} == {}


def test_no_function_is_too_long() -> None:
    found = {}
    for path in ROOT.glob("studyguide*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
                length = (node.end_lineno or 0) - first.lineno + 1
                if length > FUNCTION:
                    found[f"{path.name} {node.name}"] = length
    assert found == {}


# --- the reading trails --------------------------------------------------------------------------

ROW = re.compile(r"^\| `([\w/]+\.(?:py|lua))` `([\w.]+)` \| (\d+) \|", re.MULTILINE)


def trail(letter: str) -> list[tuple[Path, str, int]]:
    """The rows of a trail: a file, what to read in it, and how many lines that is."""
    (section,) = re.findall(rf"^## Reading {letter}\n(.*?)(?=^## )", ARCHITECTURE, re.M | re.S)
    rows = ROW.findall(section)
    return [(ROOT / "studyguide" / file, name, int(number)) for file, name, number in rows]


def text_of(path: Path, name: str) -> str:
    """The source of a class or function, or of a command of protocol.lua."""
    whole = path.read_text(encoding="utf-8")
    if path.suffix == ".lua":
        return whole
    node: ast.AST = ast.parse(whole)
    for part in name.split("."):
        node = next(child for child in definitions(node) if child.name == part)
    assert isinstance(node, (ast.ClassDef, ast.FunctionDef))
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return "\n".join(whole.splitlines()[first - 1 : node.end_lineno])


def definitions(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
            yield child


@pytest.mark.parametrize("letter", ["b", "f"])
def test_a_trail_says_how_long_it_is(letter: str) -> None:
    rows = trail(letter)
    counted = [len(text_of(path, name).splitlines()) for path, name, _ in rows]
    assert [number for *_, number in rows] == counted
    said = f"{sum(counted):,} lines in {len({path for path, *_ in rows})} files"
    assert said in ARCHITECTURE
    assert sum(counted) <= TRAILS[letter]


def names_in(text: str) -> set[str]:
    """What a search for a name finds: names in code, and those that a docstring marks as code."""
    found = set(re.findall(r"`_?\w+`", text))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, (ast.arg, ast.FunctionDef)):
            annotation = node.annotation if isinstance(node, ast.arg) else node.returns
            found |= set(re.findall(r"\w+", ast.unparse(annotation))) if annotation else set()
    return {name.strip("`") for name in found}


@pytest.mark.parametrize("letter", ["b", "f"])
def test_a_search_finds_each_step_of_a_trail(letter: str) -> None:
    seen = {"protocol"}  # the script, which StreamQueue reads as a file
    for (path, name, _), (_, following, _) in pairwise(trail(letter)):
        seen |= names_in(textwrap.dedent(text_of(path, name))) if path.suffix == ".py" else set()
        assert following.rpartition(".")[2] in seen, following
