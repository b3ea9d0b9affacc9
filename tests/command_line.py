"""Runs the real command line, in a process of its own or in this one."""

from __future__ import annotations

import atexit
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

from derain.cli import main

# Commands run in forks of a server that has imported what most of them need: half of the time of a small
# command is the start of Python and PyTorch.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["torch", "derain.cli", "derain.restore", "derain.evaluation", "derain.training"]
)


def derain(
    *arguments: str | Path, cwd: Path | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`derain ARGUMENTS...`; what it printed and its exit code.

    With environment variables of its own, which Python and libraries read as they start, it starts anew.
    """
    command = [sys.executable, "-m", "derain", *map(str, arguments)]
    if variables is not None:
        env = {**environment(), **variables}
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ("output", "error")]
        process = FORKS.Process(target=_run, args=(command[3:], cwd or Path.cwd(), environment(), *said))
        process.start()
        process.join(timeout=600)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(command, 600)
        assert process.exitcode is not None
        return subprocess.CompletedProcess(command, process.exitcode, *(part.read_text() for part in said))


def _run(arguments: list[str], cwd: Path, variables: Mapping[str, str], output: Path, error: Path) -> None:
    """The command in a fork, with standard streams of its own."""
    for number, path in enumerate((Path(os.devnull), output, error)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["derain", *arguments]
    try:
        main()
    finally:
        atexit._run_exitfuncs()


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
