"""The sizes of this project's own network."""

from __future__ import annotations

from pathlib import Path

import torch

from derain.checkpoints import open_checkpoint, save_checkpoint
from derain.methods import create_network
from derain.restore import Derainer


def test_the_small_size_stays_within_what_cameras_can_pay() -> None:
    with torch.device("meta"):
        small = create_network("everyday-small")
    assert small.multiply_adds(480, 640) <= 8000 * 480 * 640


def test_each_size_is_recognised_as_itself(tmp_path: Path) -> None:
    for name, variant in (("everyday", "default"), ("everyday-small", "small")):
        save_checkpoint(tmp_path / f"{name}.safetensors", create_network(name).state_dict(), {})
        assert open_checkpoint(tmp_path / f"{name}.safetensors").checkpoint.variant == variant
        assert Derainer(open_checkpoint(tmp_path / f"{name}.safetensors")).name == name
