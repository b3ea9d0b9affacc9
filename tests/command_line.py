"""Runs the real command line, in a process of its own or in this one."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import forks
from derain.cli import main


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
    with (
        Path(os.devnull).open() as nothing,
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as error,
    ):
        streams = [stream.fileno() for stream in (nothing, output, error)]
        code = forks.call(server(), command[3:], str(cwd or Path.cwd()), environment(), streams)
        output.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess(command, code, output.read(), error.read())


def server() -> str:
    """The address of the server of `forks` that this process has; it ends with it."""
    return str(_server()[0])


@functools.cache
def _server() -> tuple[Path, tempfile.TemporaryDirectory[str], subprocess.Popen[bytes]]:
    folder = tempfile.TemporaryDirectory()
    address = Path(folder.name, "server")
    command = [sys.executable, forks.__file__, "--serve", str(address)]
    pipe = subprocess.PIPE
    running = subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, start_new_session=True)
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    return address, folder, running


def environment() -> dict[str, str]:
    """The environment of a process that uses one core and finds this package."""
    source = Path(__file__).resolve().parents[1] / "src"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}


def derain_here(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As `derain`, in this process and so without its start; what native code prints is not caught."""
    command = ["derain", *map(str, arguments)]
    before, sys.argv = sys.argv, command
    said, complained = io.StringIO(), io.StringIO()
    try:
        with chdir(cwd or Path.cwd()), redirect_stdout(said), redirect_stderr(complained):
            main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(command, code, said.getvalue(), complained.getvalue())
