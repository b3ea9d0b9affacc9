"""Runs the real command line, in a process of its own or in this one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

from derain.cli import main


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


def derain_here(*arguments: str | Path) -> tuple[int, str]:
    """`derain ARGUMENTS...` in this process, which saves its start: its exit code, and what it printed."""
    before, sys.argv = sys.argv, ["derain", *map(str, arguments)]
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            main()
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    finally:
        sys.argv = before
    return 0, said.getvalue()
