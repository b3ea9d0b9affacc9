"""Broken inputs of every kind give a result or one line: a few in every test run, thousands by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.kinds import KINDS
from fuzz.trial import judged

FEW = {"pictures": 100, "clips": 25, "checkpoints": 40, "recipes": 50, "folders": 6, "requests": 15}
ONCE_WRONG = {"pictures": (7774, 9624)}
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", KINDS)
def test_a_few_broken_inputs(name: str, tmp_path: Path) -> None:
    kind, verdicts = KINDS[name], []
    with kind.around():
        for number in (*range(FEW[name]), *ONCE_WRONG.get(name, ())):
            folder = tmp_path / str(number)
            folder.mkdir()
            verdicts.append(judged(kind, number, folder))
    assert [verdict for verdict in verdicts if not verdict.is_right] == []
    assert "done" in {verdict.outcome for verdict in verdicts}


@pytest.mark.heavy
@pytest.mark.parametrize("name", KINDS)
def test_thousands_of_broken_inputs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--report", str(tmp_path / "report.jsonl")]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
