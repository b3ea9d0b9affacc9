"""Nothing is lost when a command is killed: a few moments in every test run, all of them by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERIES = ("training", "training with workers", "folder", "video", "temporal video", "evaluate")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")


def killed(*arguments: str) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.kills", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_killed_at_a_few_moments() -> None:
    killed("folder", "evaluate", "--moments", "2")


@pytest.mark.heavy
@pytest.mark.parametrize("name", SERIES)
def test_killed_at_many_moments(name: str) -> None:
    killed(name)
