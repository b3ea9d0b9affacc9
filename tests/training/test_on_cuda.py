"""Training on an NVIDIA card; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from derain.checkpoints import read_tensors
from derain.training import train
from training.conftest import recipe


@pytest.fixture(autouse=True)
def _on_the_processor() -> None:
    """Replaces the fixture of the same name: here, training is on the card."""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_resumed_run_is_the_whole_run(photos: Path, tmp_path: Path, precision: str) -> None:
    """Sums of gradients on a card have no fixed order, so the weights agree closely, not bit by bit."""
    options = {"precision": precision, "ema": 0.9}
    train(recipe(photos, **options), tmp_path / "whole")
    train(recipe(photos, **options, steps=4), tmp_path / "parts")
    train(recipe(photos, **options), tmp_path / "parts")
    whole, parts = (read_tensors(tmp_path / run / "last.safetensors").state for run in ("whole", "parts"))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-2, atol=1e-4)
