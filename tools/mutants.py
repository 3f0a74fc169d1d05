"""Change a module in every small way, one at a time, and see whether its tests notice.

python tools/mutants.py studyguide/tiles.py tests/test_tiles.py [...]

Prints the mutants that survive. Changed are comparisons, sums, `and`/`or`, `not`, numbers, the
conditions of `if` and `while`, what is returned, and calls whose value nobody takes, which go.
"""

import ast
import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SWAPS: dict[type[ast.AST], Any] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult},
}


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    changed: Any = copy.deepcopy(node)
    if isinstance(changed, ast.Compare) and type(changed.ops[0]) in SWAPS:
        changed.ops[0] = SWAPS[type(changed.ops[0])]()
        yield changed
    elif isinstance(changed, (ast.BinOp, ast.BoolOp)) and type(changed.op) in SWAPS:
        changed.op = SWAPS[type(changed.op)]()
        yield changed
    elif isinstance(changed, ast.UnaryOp) and isinstance(changed.op, ast.Not):
        yield changed.operand
    elif isinstance(changed, ast.Constant) and type(changed.value) in (int, float):
        number: Any = changed.value
        yield ast.Constant(number + 1)
    elif isinstance(changed, (ast.If, ast.While, ast.IfExp)):
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
        yield changed
    elif isinstance(changed, ast.Return) and changed.value:
        changed.value = ast.Constant(None)
        yield changed
    elif isinstance(changed, ast.Expr) and isinstance(changed.value, ast.Call):
        yield ast.Pass()


class Put(ast.NodeTransformer):
    """Puts another node in the place of the nth."""

    def __init__(self, nth: int, other: ast.AST) -> None:
        self.left, self.other = nth, other

    def visit(self, node: ast.AST) -> ast.AST:
        """Count nodes in the order of `ast.walk`'s depth-first twin."""
        self.left -= 1
        return self.other if self.left == -1 else self.generic_visit(node)


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, depth first, as `Put` meets them."""
    yield node
    for child in ast.iter_child_nodes(node):
        yield from nodes(child)


def mutants(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, the mutant's code there, the whole mutant)."""
    tree = ast.parse(text)
    for n, node in enumerate(nodes(tree)):
        for other in changes(node):
            mutant = ast.fix_missing_locations(Put(n, other).visit(copy.deepcopy(tree)))
            said = f"{ast.unparse(node)} -> {ast.unparse(other)}".replace("\n", " ")
            yield getattr(node, "lineno", 0), said[:100], ast.unparse(mutant)


def main(module: str, *tests: str) -> None:
    """Try every mutant of a module on these tests."""
    total, survivors = 0, 0
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree("studyguide", Path(name, "studyguide"))
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTHONSAFEPATH"] = "1"  # the copy is imported, not the folder we are in
        for line, said, text in mutants(Path(module).read_text(encoding="utf-8")):
            Path(name, module).write_text(text, encoding="utf-8")
            total += 1
            try:
                code = subprocess.run(
                    command, env=environment, capture_output=True, timeout=120
                ).returncode
            except subprocess.TimeoutExpired:
                continue  # it hangs: noticed
            if code == 0:
                survivors += 1
                print(f"{module}:{line}: {said}", flush=True)
    print(f"{module}: {total} mutants, {survivors} survive")


if __name__ == "__main__":
    main(*sys.argv[1:])
