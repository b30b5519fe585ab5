"""What a reader may rely on in every module: its size, its classes' attributes, and no circle of imports."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import grimp
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "root_packages"
]
MOST_LINES = 400
MOST_ATTRIBUTES = 15
FIRST = {"__init__", "__post_init__", "__new__"}
RECORDS = {"BaseModel", "NamedTuple", "Structure", "Union"}
"""Bases of models and of wire formats' records: as many fields as their formats have."""


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for path in modules():
        yield from ((path, node) for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef))


def methods(of: ast.ClassDef) -> list[ast.FunctionDef]:
    return [node for node in of.body if isinstance(node, ast.FunctionDef)]


def stored(method: ast.FunctionDef) -> set[str]:
    """The attributes of `self` that a method sets, however: `=`, `with … as`, `for`, a tuple's parts."""
    return {
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def names(nodes: list[ast.expr]) -> set[str]:
    """The last word of each base or decorator."""
    calls = [node.func if isinstance(node, ast.Call) else node for node in nodes]
    return {ast.unparse(node).rpartition(".")[2].partition("[")[0] for node in calls}


@cache
def declared() -> dict[str, set[str]]:
    """Of each class, by name: what it sets at first, or says in its body."""
    found: dict[str, set[str]] = {}
    for _, node in classes():
        own = {
            target.id
            for line in node.body
            for target in (line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)])
            if isinstance(target, ast.Name)
        }
        own |= set().union(*(stored(method) for method in methods(node) if method.name in FIRST), set())
        found.setdefault(node.name, set()).update(own)
    return found


def inherited(node: ast.ClassDef) -> set[str]:
    return set().union(*(declared().get(base, set()) for base in names(node.bases)), set())


def test_no_module_is_longer_than_a_reader_keeps_in_mind() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in modules()
        if (lines := len(path.read_text().splitlines())) > MOST_LINES
    }
    assert not long


def test_every_attribute_is_there_from_the_beginning() -> None:
    late = {
        f"{path.relative_to(ROOT)}: {node.name}": sorted(missing)
        for path, node in classes()
        if (
            missing := set().union(*(stored(method) for method in methods(node)), set())
            - declared()[node.name]
            - inherited(node)
        )
    }
    assert not late


def test_no_class_keeps_more_than_a_reader_does() -> None:
    large = {
        f"{path.relative_to(ROOT)}: {node.name}": len(own)
        for path, node in classes()
        if "dataclass" not in names(node.decorator_list)
        and not names(node.bases) & RECORDS
        and len(own := set().union(*(stored(method) for method in methods(node)), set())) > MOST_ATTRIBUTES
    }
    assert not large


@pytest.mark.parametrize(
    "method", ["self.a = 1", "with x as self.a: pass", "for self.a in x: pass", "b, self.a = x"]
)
def test_however_an_attribute_is_set_it_is_seen(method: str) -> None:
    function = ast.parse(f"def f(self):\n {method}").body[0]
    assert isinstance(function, ast.FunctionDef)
    assert stored(function) == {"a"}


def test_no_import_closes_a_circle_for_type_checking_neither() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    # Who imports nobody of those that are left can't be part of a circle.
    while free := [module for module, imported in imports.items() if not imported & imports.keys()]:
        for module in free:
            del imports[module]
    # Nor can who is imported by nobody of them.
    while free := [module for module in imports if not any(module in each for each in imports.values())]:
        for module in free:
            del imports[module]
    assert not imports
