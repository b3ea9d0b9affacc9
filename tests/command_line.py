"""Runs the real command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def derain(
    *arguments: str | Path, cwd: Path | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`derain ARGUMENTS...` with environment variables of its own; what it printed and its exit code."""
    command = [sys.executable, "-m", "derain", *map(str, arguments)]
    env = {**environment(), **(variables or {})}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


def environment() -> dict[str, str]:
    """The environment of a process that uses one core and finds this package."""
    source = Path(__file__).resolve().parents[1] / "src"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}
