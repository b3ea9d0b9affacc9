"""The front door is light: what a command or an import does not need is not loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

import derain
from command_line import environment

HEAVY = {"torch", "numpy", "cv2", "PIL", "av", "accelerate", "safetensors"}


def loaded_by(program: str) -> set[str]:
    """What of `HEAVY` a program has loaded when it ends, in a process of its own."""
    ending = f"import atexit, sys\natexit.register(lambda: print(*({HEAVY!r} & sys.modules.keys())))\n"
    command = [sys.executable, "-c", ending + program]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_importing_loads_nothing_heavy() -> None:
    assert loaded_by("import derain; dir(derain); derain.__version__; derain.DerainError") == set()
    assert "torch" in loaded_by("import derain; derain.load")


@pytest.mark.parametrize("arguments", ["--help", "run --help", "train --help", "data check --help"])
def test_help_loads_nothing_heavy(arguments: str) -> None:
    program = f"import sys; sys.argv = ['derain', *{arguments.split()}]; from derain.cli import main; main()"
    assert loaded_by(program) == set()


def test_every_public_name_is_there() -> None:
    for name in derain.__all__:
        assert getattr(derain, name).__doc__, name
    assert set(derain.__all__) <= set(dir(derain))
    with pytest.raises(AttributeError, match="no attribute 'rainbow'"):
        _ = derain.rainbow
