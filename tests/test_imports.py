"""Which room of the package may look into which: arrows point down, and nothing goes in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import derain

ROOT = Path(derain.__file__).parent
METHODS = sorted(folder.name for folder in (ROOT / "methods").iterdir() if (folder / "__init__.py").exists())

# From the ground up; a room sees what lies below it. Files beside the rooms are the ground, but for
# those that start the program, which lie on top.
FLOORS: tuple[set[str], ...] = (
    set(),
    {"nn", "pictures", "background"},
    {"methods"},
    {"checkpoints", "data"},
    {"restore", "training", "evaluation", "export"},
    {"serve", "scale", "bench", "front"},
    {"cli", "__main__", ""},
)


def modules() -> dict[str, Path]:
    """{dotted name below `derain`: file}; a package by its own name."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(name: str) -> Iterator[str]:
    """Modules of the package that a module imports anywhere, inside functions and for types as well."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "derain":
            assert node.level == 0
            base = (node.module or "").partition(".")[2]
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in MODULES else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "derain":
                    yield alias.name.partition(".")[2]


def at_import(name: str) -> Iterator[str]:
    """Those that are imported when the module is, or for types."""
    for node in ast.parse(MODULES[name].read_text()).body:
        inner = node.body if isinstance(node, ast.If) else [node]
        for statement in inner:
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("derain"):
                base = (statement.module or "").partition(".")[2]
                for alias in statement.names:
                    module = f"{base}.{alias.name}".lstrip(".")
                    yield module if module in MODULES else base


def floor(name: str) -> int:
    room = name.split(".")[0]
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), 0)


def test_every_room_has_a_floor() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} <= set().union(*FLOORS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_arrows_point_down(name: str) -> None:
    if not name:
        pytest.skip("the Python door shows names of every floor")
    upward = [other for other in imported(name) if other and floor(other) > floor(name)]
    assert not upward, f"{name} must not import {', '.join(upward)}"


@pytest.mark.parametrize("method", METHODS)
def test_a_method_knows_no_other(method: str) -> None:
    own = f"methods.{method}"
    for name in MODULES:
        if name == own or name.startswith(f"{own}."):
            others = {other for other in imported(name) if other.startswith("methods.")}
            foreign = {
                other for other in others if other.split(".")[1] in METHODS and other.split(".")[1] != method
            }
            assert not foreign, f"{name} imports {foreign}"


def circles(after: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """{name: those that it imports}, of what is left when all that leads into no circle is taken away."""
    left = dict(after)
    while True:
        used = set().union(*left.values())
        fewer = {name: others & left.keys() for name, others in left.items() if name in used}
        fewer = {name: others for name, others in fewer.items() if others}
        if fewer == left:
            return fewer
        left = fewer


def test_no_circles_of_modules() -> None:
    """Among the modules that must be there for each other to load, and among types."""
    assert circles({name: {o for o in at_import(name) if o and o != name} for name in MODULES if name}) == {}


def test_no_circles_of_rooms() -> None:
    """Wherever in them the imports stand."""
    after: dict[str, set[str]] = {}
    for name in filter(None, MODULES):
        room = name.split(".")[0]
        others = {other.split(".")[0] for other in imported(name)}
        after[room] = after.get(room, set()) | others - {room, ""}
    assert circles(after) == {}


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == {"b": {"c"}, "c": {"b"}}
