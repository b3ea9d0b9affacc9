"""Killed, divided and stopped runs, as the command line starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from derain.checkpoints import read_tensors
from derain.training.log import read_log
from training.conftest import content, python


def start(recipe: Path, run: Path, processes: int = 1) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return python(
        [*(launcher if processes > 1 else []), "-m", "derain", "train", str(recipe), "-o", str(run)]
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return output


def once_at(step: int, run: Path, process: subprocess.Popen[str], act: Callable[[], None]) -> None:
    """Calls `act` as soon as the run's log has reached the step."""
    tick = threading.Event()
    while process.poll() is None:
        if any(event["step"] >= step for event in read_log(run)):
            act()
            return
        tick.wait(0.02)
    raise AssertionError(process.communicate()[1][-2000:])


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the process and all that it started, launchers and workers."""
    everyone = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in everyone:
        one.kill()
    psutil.wait_procs(everyone[:-1])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "last.safetensors").state


def write_recipe(photos: Path, folder: Path, **changes: Any) -> Path:
    stages = [{"patch": 16, "batch": 4, "steps": 13}, {"patch": 24, "batch": 2}]
    schedule = {"name": "cosine", "length": 30}
    long = {"steps": 30, "stages": stages, "schedule": schedule, "save_every": 3, "ema": 0.9}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content(photos, **long | changes)))
    return path


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs that nothing disturbed, {number of processes: folder}."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(photos, folder)
    for processes in (1, 2):
        finish(start(recipe, folder / str(processes), processes))
    return {processes: folder / str(processes) for processes in (1, 2)}


@pytest.mark.parametrize(("workers", "processes"), [(0, 1), (2, 1), (0, 2)])
def test_a_killed_run_goes_on_bit_for_bit(
    photos: Path, tmp_path: Path, whole: dict[int, Path], workers: int, processes: int
) -> None:
    recipe, killed = write_recipe(photos, tmp_path, workers=workers), tmp_path / "killed"
    process = start(recipe, killed, processes)
    once_at(8, killed, process, lambda: kill_all(process))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "last.safetensors").exists()
    finish(start(recipe, killed, processes))
    a, b = weights(whole[processes]), weights(killed)
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert [e["step"] for e in read_log(killed)] == list(range(1, 31))


def test_two_processes_equal_one_with_the_same_batch(whole: dict[int, Path]) -> None:
    for a, b in zip(read_log(whole[1]), read_log(whole[2]), strict=True):
        for name in ("rate", "l1", "dissimilarity", "mask"):
            assert a[name] == pytest.approx(b[name], rel=2e-4)
    a, b = weights(whole[1]), weights(whole[2])
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=5e-4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_says_how_to_go_on(
    photos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """As a terminal and a batch system send it: workers get it as well."""
    run = tmp_path / "run"
    process = start(write_recipe(photos, tmp_path, workers=2, steps=3000), run)
    once_at(2, run, process, lambda: os.killpg(process.pid, number))
    _, error = process.communicate(timeout=600)
    assert process.returncode == 128 + number
    assert error.strip().startswith("derain: stopped after step ")
    assert error.strip().endswith(f"continue with: derain train {run}/recipe.yaml -o {run}")
