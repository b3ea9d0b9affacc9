"""A small folder of pictures and a small recipe on it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from derain.training import Recipe
from derain.training.recipe import checked

SOURCE = str(Path(__file__).parents[2] / "src")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of 40x48 with smooth shapes and edges."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(10):
        picture = cv2.resize(rng.integers(0, 200, (5, 6, 3)).astype(np.uint8), (48, 40))
        cv2.circle(picture, (24, 20), 9, rng.integers(0, 255, 3).tolist(), -1)
        cv2.imwrite(str(folder / f"photo{number}.png"), picture)
    return folder


@pytest.fixture(autouse=True)
def _on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are compared bit by bit, and a graphics card adds numbers up in no fixed order."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def _left_as_found() -> Iterator[None]:
    """Fails if the state of accelerate, one for the process, is left behind: it fixes the precision."""
    yield
    assert not AcceleratorState._shared_state


def content(photos: Path, **changes: Any) -> dict[str, Any]:
    """A recipe as a dictionary: SPANet of width 4, six steps on 24-pixel patches."""
    small: dict[str, Any] = {
        "network": "spanet",
        "options": {"width": 4},
        "data": {"clean": str(photos), "rain": "light"},
        "steps": 6,
        "stages": [{"patch": 16, "batch": 4, "steps": 3}, {"patch": 24, "batch": 2}],
        "optimizer": {"rate": 1e-3, "clip": 0.5},
        "schedule": {"name": "cosine", "length": 6},
        "workers": 0,
        "log_every": 1,
        "save_every": 2,
    }
    return small | changes


def recipe(photos: Path, **changes: Any) -> Recipe:
    """The same, validated."""
    return checked(content(photos, **changes), "test")


@contextlib.contextmanager
def own_code(folder: Path, module: str, code: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of the user's own in the working folder, forgotten afterwards."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / f"{module}.py").write_text(code)
    yield
    sys.modules.pop(module, None)


def python(arguments: list[str], **variables: str) -> subprocess.Popen[str]:
    """A Python process with this project on its path, in a group of its own."""
    mine = {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment = os.environ | mine | variables
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
