"""Examples in docstrings do what they say, and the first program of the docs is short."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
    for path in sorted((ROOT / "src").rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name: str) -> None:
    done = doctest.testmod(importlib.import_module(name))
    assert done.attempted
    assert not done.failed


def test_the_public_functions_have_examples() -> None:
    assert {"derain.front", "derain.restore.derainer", "derain.checkpoints.models"} <= set(MODULES)


def test_the_first_program_has_at_most_25_lines() -> None:
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    program = re.search(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert program is not None
    assert len(program[1].splitlines()) <= 25
    for name in ("list_models", "load", "video", "score", "evaluate", "train"):
        assert name in program[1]
