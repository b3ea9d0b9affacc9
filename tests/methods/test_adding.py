"""The example in docs/method.md as a method of another distribution: nothing but it is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DIST = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


def distribution(site: Path, name: str, code: str, value: str | None = None) -> None:
    """Installs a package by hand, with an entry point for its method."""
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text(code)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(DIST.format(name=name))
    (info / "entry_points.txt").write_text(f"[derain.methods]\n{name} = {value or name + ':METHOD'}\n")


def example() -> str:
    found = re.search(r"^```python\n(.*?)^```$", (ROOT / "docs" / "method.md").read_text(), re.M | re.S)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    distribution(site, "mymethod", example())
    return site


def run(site: Path, *command: str | Path) -> str:
    """What a Python module prints that sees the distributions in `site`."""
    path = os.pathsep.join([str(site), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_passes_lint_and_types(site: Path) -> None:
    file = site / "mymethod" / "__init__.py"
    options = ("--config", ROOT / "pyproject.toml")
    run(site, "-m", "ruff", "check", *options, file)
    run(site, "-m", "ruff", "format", "--check", *options, file)
    run(site, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", file)


def test_passes_the_tests_of_every_method(site: Path) -> None:
    registry = ROOT / "tests" / "methods" / "test_registry.py"
    told = run(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", registry, "-k", "mymethod")
    assert re.search(r"^1\d passed", told, re.M), told


def test_is_listed_by_the_command_line(site: Path) -> None:
    assert "mymethod-wide" in run(site, "-m", "derain", "models")


def test_one_that_cannot_be_used_is_left_out_with_a_warning(tmp_path: Path) -> None:
    site = tmp_path / "site"
    distribution(site, "broken", "import a_package_that_nobody_has")
    distribution(site, "mistaken", "METHOD = 3")
    distribution(site, "impostor", "from derain.methods.spanet import METHOD")
    told = run(
        site, "-c", "from derain.methods import all_methods; print(sorted(m.name for m in all_methods()))"
    )
    assert "'spanet'" in told
    assert "broken (broken:METHOD) is skipped: No module named 'a_package_that_nobody_has'" in told
    assert "mistaken (mistaken:METHOD) is skipped: it is not a derain.methods.contract.Method" in told
    assert "impostor (impostor:METHOD) is skipped: the name spanet is taken" in told
