"""SPANet equals the published network: sweeps, activations, losses, samples, released weights."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from derain.checkpoints import open_checkpoint
from derain.data.patches import rectangle, resized
from derain.methods.spanet.loss import SPANetLoss
from derain.methods.spanet.network import SPANet
from derain.nn.irnn import sweep


@pytest.fixture(scope="module")
def oracles(shared: Path) -> Path:
    return shared / "oracles" / "spanet"


def filled(fill: ModuleType, meta: dict[str, Any]) -> dict[str, Tensor]:
    """The oracle's weights; the sweep weights are halved, as its README says."""
    empty = {name: torch.empty(shape) for name, shape, _ in meta["state"]}
    state: dict[str, Tensor] = fill.fill_state_dict(empty)
    return {name: t * 0.5 if name.endswith("_weight.weight") else t for name, t in state.items()}


def assert_close(ours: Tensor, oracle: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(ours, torch.from_numpy(oracle), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["full", "tiny"])
def test_network_opened_from_a_file(name: str, oracles: Path, fill: ModuleType, tmp_path: Path) -> None:
    meta = json.loads((oracles / f"{name}.json").read_text())
    wanted = np.load(oracles / f"{name}.npz")
    save_file(filled(fill, meta), tmp_path / "x.safetensors")
    opened, checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    assert checkpoint.config == meta["config"]
    assert list(opened.state_dict()) == [entry[0] for entry in meta["state"]]
    for given in [meta["input"], *meta["more_inputs"]]:
        picture = fill.test_image(given["name"], given["height"], given["width"]).flip(1)
        seen = record(opened)
        with torch.no_grad():
            outputs, fast = opened.plain(picture), opened.fast(picture)
        seen |= {"out": outputs["image"].flip(1), "mask1": outputs["mask"]}
        torch.testing.assert_close(fast, outputs, rtol=0, atol=1e-5)
        compared = 0
        for activation, ours in seen.items():
            key = f"{given['name']}/{activation}"
            if key in wanted:
                assert_close(ours, wanted[key], 3e-6 if activation.startswith("mask") else 3e-5)
                compared += 1
        assert compared >= (16 if given["name"] == meta["intermediates_input"] else 5)


def record(network: nn.Module) -> dict[str, Tensor]:
    """A dictionary that the next forward pass fills with activations, named as in the oracle."""
    seen: dict[str, Tensor] = {}
    sam = network.get_submodule("SAM1")

    def masks(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        call = 1 + sum(key.startswith("features_before") for key in seen)
        seen[f"features_before_sam_call{call}"], seen[f"mask{call}"] = inputs[0], output

    def once(name: str, module: str) -> None:
        def store(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> None:
            seen.setdefault(name, output.clone())

        network.get_submodule(module).register_forward_hook(store)

    sam.register_forward_hook(masks)
    once("conv_in", "conv_in")
    once("res_block1_branch", "res_block1")
    once("sam_call1_conv_in", "SAM1.conv_in")
    once("sam_call1_logits", "SAM1.conv_out")
    for number, direction in itertools.product((1, 2), ("up", "down", "left", "right")):
        once(f"sam_call1_irnn{number}_{direction}", f"SAM1.irnn{number}.{direction}_weight")

    def last(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen["features_last"] = inputs[0]

    network.get_submodule("conv_out").register_forward_pre_hook(last)
    return seen


def test_sweeps_and_their_gradients(oracles: Path) -> None:
    wanted = np.load(oracles / "irnn.npz")
    cases = sorted({key.split("/")[0] for key in wanted})
    assert len(cases) == 6
    for case in cases:
        values = {
            key.split("/")[1]: torch.from_numpy(wanted[key]) for key in wanted if key.startswith(f"{case}/")
        }
        for direction in ("up", "right", "down", "left"):
            axes = (0, 2, 3, 1) if direction in ("up", "down") else (0, 3, 2, 1)

            def lines(x: Tensor, axes: tuple[int, ...] = axes) -> Tensor:
                return x.permute(axes)

            inputs = [
                lines(values["x"]).clone().requires_grad_(),
                values[f"weight_{direction}"].flatten().clone().requires_grad_(),
                values[f"bias_{direction}"].clone().requires_grad_(),
            ]
            out = sweep(*inputs, reverse=direction in ("up", "left"))
            gradients = torch.autograd.grad(out, inputs, lines(values[f"grad_out_{direction}"]))
            assert_close(out.detach(), lines(values[f"out_{direction}"]).numpy(), 1e-10)
            assert_close(gradients[0], lines(values[f"grad_x_from_{direction}"]).numpy(), 1e-10)
            assert_close(gradients[1], values[f"grad_weight_{direction}"].flatten().numpy(), 1e-10)
            assert_close(gradients[2], values[f"grad_bias_{direction}"].numpy(), 1e-10)


def test_loss_and_gradients(oracles: Path, fill: ModuleType) -> None:
    meta = json.loads((oracles / "loss_tiny.json").read_text())
    wanted = np.load(oracles / "loss_tiny.npz")
    network = SPANet(**meta["config"])
    state = fill.fill_state_dict(network.state_dict())
    network.load_state_dict({n: t * 0.5 if n.endswith("_weight.weight") else t for n, t in state.items()})
    # In float64, as the oracle: in float32 a ReLU near zero may flip and move a gradient by 1e-4.
    network.double()
    # The oracle's pictures are in the order that the first convolution sees.
    rainy, clean = (
        torch.from_numpy(wanted[key]).permute(0, 3, 1, 2).flip(1).double() / 255
        for key in ("rain_u8", "clean_u8")
    )
    terms = SPANetLoss()(network.outputs(rainy), clean, rainy)
    total = sum(terms.values())
    total.backward()
    for name, key in {"l1": "l1", "dissimilarity": "ssim", "mask": "mask"}.items():
        published = 1 - meta["losses_float64"][key] if key == "ssim" else meta["losses_float64"][key]
        assert terms[name].item() == pytest.approx(published, abs=3e-5)
    assert total.item() == pytest.approx(meta["losses_float64"]["total"], abs=3e-5)
    for name, parameter in network.named_parameters():
        if name in meta["parameters_without_gradient"]:
            assert parameter.grad is None
        else:
            assert_close(parameter.grad.float(), wanted[f"grad/{name}"], 1e-5)


def test_training_samples(oracles: Path) -> None:
    meta = json.loads((oracles / "data.json").read_text())
    for draw in meta["crop_draws"]:
        generator = random.Random(draw["seed"])
        found = rectangle(*draw["picture_hw"], generator.uniform, generator.randrange)
        assert found == tuple(draw[key] for key in ("top", "left", "height", "width"))
        assert generator.random() == draw["next_random"]
    wanted = np.load(oracles / "data.npz")
    for sample in meta["samples"]:
        files = [wanted["file_rain_bgr"], wanted["file_clean_bgr"]]
        generator = random.Random(sample["seed"])
        place = rectangle(*files[0].shape[:2], generator.uniform, generator.randrange)
        pair = resized(256, place, files)
        for ours, key in zip(pair, ("rain_u8", "clean_u8"), strict=True):
            published = wanted[f"seed{sample['seed']}/{key}"].transpose(1, 2, 0)
            assert np.abs(ours.astype(int) - published).max() <= 1


@pytest.mark.parametrize("file", ["latest.pth", "official.safetensors"])
def test_released_weights_on_photographs(file: str, oracles: Path) -> None:
    opened, checkpoint = open_checkpoint(oracles / file)
    assert (checkpoint.architecture.name, checkpoint.variant) == ("spanet", "published")
    if file == "latest.pth":
        assert (checkpoint.nest, checkpoint.facts["clock"]) == ("net", 40000)
    for name in ("deck", "barn", "garden"):
        wanted = np.load(oracles / f"official_{name}.npz")
        pixels = np.asarray(Image.open(oracles / f"official_{name}.png").convert("RGB"))
        rainy = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
        with torch.no_grad():
            outputs = opened.outputs(rainy)
        assert_close(outputs["image"].flip(1), wanted["out"], 1e-5)
        assert_close(outputs["mask"], wanted["mask"], 5e-5)
        bytes_bgr = (outputs["image"].clamp(0, 1) * 255).round().byte().flip(1)[0].permute(1, 2, 0).numpy()
        off = np.abs(bytes_bgr.astype(int) - wanted["out_u8_bgr"])
        assert off.max() <= 1
        assert (off > 0).mean() <= 2e-4
