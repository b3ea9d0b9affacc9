"""DRSformer against numbers that the published network gave with deterministic weights."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain import create_network
from derain.checkpoints import Checkpoint
from derain.methods.drsformer.loss import AbsoluteError
from derain.methods.drsformer.network import Block, DRSformer
from derain.methods.drsformer.selection import blended_attention, kept
from methods.drsformer_plain import PlainDRSformer
from oracles.stored import Opened, Read, open_oracle, read_oracle

TOLERANCE_64 = 1e-9
TOLERANCE_INTERMEDIATE = 2e-4
STAGE = r"(encoder|decoder)_level\d(\.0(\.attn|\.ffn)?)?|latent(\.0)?|refinement|patch_embed|(up|down)\d_\d"


@pytest.fixture(scope="module")
def read(shared: Path) -> Read:
    return functools.cache(lambda name: read_oracle(shared / "oracles" / "drsformer", name))


@pytest.fixture(scope="module")
def opened(read: Read, fill: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return functools.cache(lambda name: open_oracle(read(name), fill, tmp_path_factory.mktemp(name)))


def _difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def _input(fill: ModuleType, facts: dict[str, Any]) -> Tensor:
    picture = facts["input"]
    return fill.test_image(picture["name"], picture["height"], picture["width"])


@pytest.mark.parametrize("name", ["tiny", "tiny_biasfree", "light", "full"])
def test_output(name: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read(name)
    checkpoint = opened(name)
    assert checkpoint.config == facts["config"]
    assert checkpoint.variant == (name if name in ("full", "light") else None)
    assert sum(p.numel() for p in checkpoint.network.parameters()) == facts["params"]
    with torch.no_grad():
        y = checkpoint.network(_input(fill, facts))
    assert _difference(y, arrays["output"]) <= facts["tolerance"]["output_float32_max_abs"]


def test_output_128(read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read("full_128")
    with torch.no_grad():
        y = opened("full").network(_input(fill, facts))
    assert _difference(y, arrays["output"]) <= facts["tolerance"]["output_float32_max_abs"]


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("tiny", "tiny"),
        ("tiny_biasfree", "tiny_biasfree"),
        pytest.param("light", "light", marks=pytest.mark.heavy),
        ("full", "full"),
        pytest.param("full_128", "full", marks=pytest.mark.heavy),
    ],
)
def test_output_in_float64(name: str, weights: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read(name)
    network = _in_float64(opened(weights))
    with torch.no_grad():
        y = network(_input(fill, facts).double())
    assert _difference(y, arrays["output_f64"]) <= TOLERANCE_64


def _in_float64(checkpoint: Checkpoint) -> DRSformer:
    network = DRSformer(**checkpoint.config).double().eval()
    network.load_state_dict(checkpoint.network.state_dict())
    return network


@pytest.mark.usefixtures("upsampling_seen")
@pytest.mark.parametrize("name", ["tiny", "tiny_biasfree", "light", "full"])
def test_stages(name: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    """The modules that exist in our form; the output of attention and feed-forward without the skip."""
    facts, arrays = read(name)
    network = opened(name).network
    seen: dict[str, Tensor] = {}

    def keep(module: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[module] = output - inputs[0] if module.endswith((".attn", ".ffn")) else output

        return hook

    stages = [key for key in arrays if re.fullmatch(STAGE, key)]
    hooks = [network.get_submodule(key).register_forward_hook(keep(key)) for key in stages]
    with torch.no_grad():
        network(_input(fill, facts))
    for hook in hooks:
        hook.remove()
    assert len(stages) >= 12
    for key in stages:
        stride = facts["arrays"][key]["stride"]
        assert _difference(seen[key][:, :, ::stride, ::stride], arrays[key]) <= TOLERANCE_INTERMEDIATE, key


@pytest.mark.parametrize("name", ["tiny", "tiny_biasfree", "light", "full"])
def test_attention_and_expert_weights(name: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read(name)
    network = opened(name).network
    checked = []
    for key in arrays:
        if not key.endswith(".attn.logits"):
            continue
        block = network.get_submodule(key.removesuffix(".attn.logits"))
        logits: list[Tensor] = []

        def keep(block: Block, inputs: tuple[Tensor, ...], logits: list[Tensor] = logits) -> None:
            logits.append(block.attn.values_and_logits(inputs[0], block.norm1)[1])

        hook = block.register_forward_pre_hook(keep)
        with torch.no_grad():
            outputs = network.outputs(_input(fill, facts))
            combined = blended_attention(logits[0], block.attn.scales())
        hook.remove()
        base = key.removesuffix("logits")
        assert _difference(logits[0], arrays[key]) <= TOLERANCE_INTERMEDIATE
        assert _difference(combined, arrays[base + "combined"]) <= TOLERANCE_INTERMEDIATE
        for k, mask in zip(kept(combined.shape[-1]), arrays[base + "masks"], strict=True):
            smallest = logits[0].topk(k).values[..., -1:]
            assert torch.equal(logits[0] >= smallest, mask.bool())
        assert torch.equal(combined > 0, arrays[base + "masks"][-1].bool())
        checked.append(key)
        for output, module in (("encoder_experts", "encoder_level0"), ("refinement_experts", "refinement")):
            if network.mefc:
                wanted = arrays[f"{module}.expert_weights"]
                assert _difference(outputs[output], wanted) <= TOLERANCE_INTERMEDIATE
    assert checked


@pytest.mark.parametrize("name", ["tiny", "tiny_biasfree", pytest.param("light", marks=pytest.mark.heavy)])
def test_plain_form(name: str, read: Read, fill: ModuleType) -> None:
    """The truth that the fast form is compared with elsewhere is the published network."""
    facts, arrays = read(name)
    network = PlainDRSformer(**facts["config"])
    network.load_state_dict(fill.fill_state_dict(network.state_dict()))
    seen: dict[str, Tensor] = {}
    for key, module in network.named_modules():
        if key in arrays and key != "output":
            module.register_forward_hook(lambda _module, _inputs, output, key=key: seen.update({key: output}))
    with torch.no_grad():
        y = network(_input(fill, facts))
        y64 = network.double()(_input(fill, facts).double())
    assert _difference(y64, arrays["output_f64"]) <= TOLERANCE_64
    assert _difference(y, arrays["output"]) <= facts["tolerance"]["output_float32_max_abs"]
    assert len(seen) >= 15
    for key, value in seen.items():
        stride = facts["arrays"][key]["stride"]
        assert _difference(value[:, :, ::stride, ::stride], arrays[key]) <= TOLERANCE_INTERMEDIATE, key


@pytest.mark.parametrize("case", ["whole", "tiled", "tiled_even", "multiple_of_8", "tile_is_clipped"])
def test_protocol(case: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    """The published test: reflection to multiples of 8, square tiles at fixed strides, plain averages."""
    facts, arrays = read("tiny_protocol")
    spec = next(c for c in facts["cases"] if c["case"] == case)
    checkpoint = opened("tiny")
    for network, key, tolerance in (
        (checkpoint.network, case, facts["tolerance"]["output_float32_max_abs"]),
        (_in_float64(checkpoint), f"{case}_f64", facts["tolerance"]["output_float64_max_abs"]),
    ):
        wanted = arrays[key]
        height, width = wanted.shape[2:]
        x = F.pad(_input(fill, spec).to(wanted.dtype), (0, -width % 8, 0, -height % 8), mode="reflect")
        assert list(x.shape[2:]) == spec["padded"]
        with torch.no_grad():
            y = _tiled(network, x, spec["tile"], spec["tile_overlap"]) if spec["tile"] else network(x)
        assert _difference(y[:, :, :height, :width], wanted) <= tolerance


def _tiled(network: nn.Module, x: Tensor, tile: int, overlap: int) -> Tensor:
    height, width = x.shape[2:]
    tile = min(tile, height, width)
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    for top in [*range(0, height - tile, tile - overlap), height - tile]:
        for left in [*range(0, width - tile, tile - overlap), width - tile]:
            here = (..., slice(top, top + tile), slice(left, left + tile))
            total[here] += network(x[here])
            count[here] += 1
    return total / count


def test_training(read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read("tiny_train")
    network = _in_float64(opened("tiny")).train()
    size = facts["height"], facts["width"]
    rainy = torch.cat([fill.test_image(name, *size) for name in facts["inputs"]]).double()
    clean = torch.cat([fill.test_image(name, *size) for name in facts["targets"]]).double()
    recipe = {key: value for key, value in facts["optimizer"].items() if key != "type"}
    optimizer = torch.optim.AdamW(network.parameters(), **recipe)
    parameters = dict(network.named_parameters())
    allowed = facts["tolerance"]
    for row in facts["rows"]:
        optimizer.zero_grad()
        loss = sum(AbsoluteError()(network.outputs(rainy), clean, rainy).values())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 0.01)
        assert loss.item() == pytest.approx(row["loss"], rel=allowed["loss_rel"])
        assert norm.item() == pytest.approx(row["grad_norm_before_clipping"], rel=allowed["grad_norm_rel"])
        if row["iteration"] == 1:
            for name in (key.removeprefix("clipped_grad/") for key in arrays if "clipped_grad/" in key):
                grad = parameters[name].grad
                assert _difference(grad, arrays[f"clipped_grad/{name}"]) <= allowed["parameters_abs"]
        optimizer.step()
        for key in arrays:
            if key.startswith(f"after_{row['iteration']}/"):
                after = parameters[key.split("/", 1)[1]]
                assert _difference(after.detach(), arrays[key]) <= allowed["parameters_abs"]


def test_operation_count() -> None:
    """The figures measured on the published network at 256x256."""
    with torch.device("meta"):
        for name, wanted in (("drsformer", 242.980), ("drsformer-light", 175.372)):
            assert create_network(name).multiply_adds(256, 256) / 1e9 == pytest.approx(wanted, abs=5e-4)
