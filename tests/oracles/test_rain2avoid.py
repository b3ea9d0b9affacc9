"""Rain2Avoid against numbers that the published implementation produced."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.checkpoints import open_checkpoint, save_checkpoint
from derain.methods.rain2avoid.backbones import UNet

BACKBONES = ["unet", "unet_tiny", "resnet", "dncnn", "dncnn_tiny"]
TOLERANCE = {"unet": 5e-6, "unet_tiny": 5e-6, "resnet": 4e-5, "dncnn": 1.5e-4, "dncnn_tiny": 2e-5}
TRAIN_TOLERANCE = {"unet": 8e-5, "unet_tiny": 8e-5, "resnet": 1.6e-4, "dncnn": 9.5e-4, "dncnn_tiny": 7e-5}


def _oracle(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    base = shared / "oracles" / "rain2avoid" / name
    with np.load(base.with_suffix(".npz")) as arrays:
        return json.loads(base.with_suffix(".json").read_text()), dict(arrays)


def _state(facts: dict[str, Any], fill: ModuleType) -> dict[str, Tensor]:
    like = {n: torch.zeros(shape, dtype=getattr(torch, dtype)) for n, shape, dtype in facts["state"]}
    state = fill.fill_state_dict(like)
    gain = facts["weight_gain_after_fill"]
    return {n: t * gain if t.dim() == 4 else t for n, t in state.items()}


def _network(name: str, facts: dict[str, Any], fill: ModuleType, folder: Path) -> nn.Module:
    """Through a file and its recognition; the U-Net's levels leave no trace in a file."""
    state = _state(facts, fill)
    save_checkpoint(folder / "x.safetensors", state, {})
    checkpoint = open_checkpoint(folder / "x.safetensors")
    assert checkpoint.architecture.name == f"rain2avoid_{name.removesuffix('_tiny')}"
    assert list(checkpoint.network.state_dict()) == [n for n, _, _ in facts["state"]]
    if name != "unet_tiny":
        return checkpoint.network
    network = UNet(levels=facts["config"]["layer_size"])
    network.load_state_dict(state, strict=True)
    return network.eval()


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_gives_the_published_outputs(
    name: str, shared: Path, fill: ModuleType, tmp_path: Path
) -> None:
    facts, arrays = _oracle(shared, name)
    network = _network(name, facts, fill, tmp_path)
    parameters = {id(p): p.numel() for p in network.parameters()}
    assert sum(parameters.values()) == facts["params"]
    seen: dict[str, Tensor] = {}
    modules = dict(network.named_modules(remove_duplicate=False))
    places = {"relu_0": "dncnn.1", **{f"block_{i}": f"dncnn.{3 * i + 1}" for i in range(1, 16)}}
    for point in arrays:
        place = places.get(point, point)
        if place in modules:
            modules[place].register_forward_hook(lambda _m, _i, out, point=point: seen.update({point: out}))
    with torch.no_grad():
        output = network(fill.test_image(**facts["input"]))
    _close(output, arrays["output"], TOLERANCE[name])
    for point, value in list(seen.items()):
        _close(value, arrays[point], TOLERANCE[name])
    assert set(arrays) - set(seen) == {
        a for a in arrays if a.startswith(("output", "train", "first_gradient"))
    }
    with torch.no_grad():
        large = network(fill.test_image(**facts["other_inputs"]["output_large"]))
    _close(large, arrays["output_large"], TOLERANCE[name])


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_in_training_mode_uses_and_tracks_the_statistics_of_the_picture(
    name: str, shared: Path, fill: ModuleType, tmp_path: Path
) -> None:
    facts, arrays = _oracle(shared, name)
    network = _network(name, facts, fill, tmp_path).train()
    with torch.no_grad():
        output = network(fill.test_image(**facts["input"]))
    _close(output, arrays["train_mode_output"], TRAIN_TOLERANCE[name])
    for entry in facts["measured"]["bn_checked"]:
        value = network.state_dict()[entry]
        _close(value, arrays["train_mode_" + entry.replace(".", "_")], TRAIN_TOLERANCE[name])


@pytest.mark.parametrize("name", BACKBONES)
def test_five_steps_of_adam_follow_the_published_losses(
    name: str, shared: Path, fill: ModuleType, tmp_path: Path
) -> None:
    facts, arrays = _oracle(shared, name)
    network = _network(name, facts, fill, tmp_path).train()
    rainy = fill.test_image(**facts["input"])
    target = fill.test_image(**facts["training"]["target"])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    losses = []
    for step in range(5):
        optimizer.zero_grad()
        loss = F.mse_loss(network(rainy), target)
        loss.backward()
        if step == 0:
            norms = [p.grad.norm().item() if p.grad is not None else 0 for p in network.parameters()]
            assert [n for n, _ in network.named_parameters()] == facts["gradient_norm_order"]
            np.testing.assert_allclose(norms, arrays["first_gradient_norms"], rtol=2e-3, atol=1e-6)
        optimizer.step()
        losses.append(loss.item())
    wanted, exact = arrays["training_losses"], arrays["training_losses_float64"]
    assert (np.abs(losses - wanted) <= 3 * np.abs(wanted - exact) + 1e-5).all(), (losses, wanted, exact)


def _close(value: Tensor, wanted: np.ndarray, tolerance: float) -> None:
    assert value.shape == wanted.shape
    assert np.abs(value.numpy() - wanted).max() <= tolerance
