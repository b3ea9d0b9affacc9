"""The container file and the systemd unit, as far as they can be checked without either."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import derain

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "integrations" / "serve"


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of the container file, lines joined."""
    text = (FOLDER / "Containerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_the_container_copies_what_there_is_and_starts_what_there_is() -> None:
    found = instructions()
    sources = [name for kind, rest in found if kind == "COPY" for name in rest.split()[:-1]]
    assert sources
    assert all((ROOT / name).exists() for name in sources), sources
    assert [rest for kind, rest in found if kind == "USER"] == ["derain"]
    (command,) = [json.loads(rest) for kind, rest in found if kind == "CMD"]
    assert command[0] == "derain"
    refused = derain(*command[1:])  # which needs a token there
    assert refused.returncode == 2
    assert "needs a token" in refused.stderr
    (check,) = [json.loads(rest.partition("CMD ")[2]) for kind, rest in found if kind == "HEALTHCHECK"]
    compile(check[-1], "HEALTHCHECK", "exec")
    assert "/ready" in check[-1]


def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    text = (FOLDER / "derain.service").read_text("utf-8")
    assert text.count("/opt/derain/bin/derain serve\n") == 1
    unit = tmp_path / "derain.service"
    unit.write_text(text.replace("/opt/derain/bin/derain", sys.executable))
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
