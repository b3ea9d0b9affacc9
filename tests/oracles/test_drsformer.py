"""DRSformer against numbers that the published network gave with deterministic weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain import create_network
from derain.checkpoints import Model
from derain.methods.contract import AbsoluteError
from derain.methods.drsformer import fast
from derain.methods.drsformer.fast import FastDRSformer
from derain.methods.drsformer.network import sparse_attentions
from derain.nn.transformer import TransformerBlock
from oracles.stored import Opened, Read, open_oracle, read_oracle

TOLERANCE_64 = 1e-9
TOLERANCE_INTERMEDIATE = 2e-4


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


def heavy(*values: str) -> Any:
    return pytest.param(*values, marks=pytest.mark.heavy)


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("name", ["tiny", "tiny_biasfree", "light", "full"])
def test_output(name: str, form: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read(name)
    network, checkpoint = opened(name)
    assert checkpoint.config == facts["config"]
    assert checkpoint.variant == (name if name in ("full", "light") else None)
    assert sum(p.numel() for p in network.parameters()) == facts["params"]
    y = _image(network, form, _input(fill, facts))
    assert _difference(y, arrays["output"]) <= facts["tolerance"]["output_float32_max_abs"]


def _image(network: Any, form: str, x: Tensor) -> Tensor:
    with torch.no_grad():
        image: Tensor = getattr(network, form)(x)["image"]
    return image


@pytest.mark.parametrize("form", [heavy("plain"), "fast"])
def test_output_128(form: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read("full_128")
    y = _image(opened("full").network, form, _input(fill, facts))
    assert _difference(y, arrays["output"]) <= facts["tolerance"]["output_float32_max_abs"]


@pytest.mark.parametrize(
    ("name", "weights", "form"),
    [
        *[(name, name, form) for name in ("tiny", "tiny_biasfree") for form in ("plain", "fast")],
        *[heavy("light", "light", form) for form in ("plain", "fast")],
        heavy("full", "full", "plain"),
        ("full", "full", "fast"),
        heavy("full_128", "full", "fast"),
    ],
)
def test_output_in_float64(
    name: str, weights: str, form: str, read: Read, opened: Opened, fill: ModuleType
) -> None:
    facts, arrays = read(name)
    y = _image(_in_float64(opened(weights)), form, _input(fill, facts).double())
    assert _difference(y, arrays["output_f64"]) <= TOLERANCE_64


def _in_float64(model: Model) -> FastDRSformer:
    network = FastDRSformer(**model.checkpoint.config).double().eval()
    network.load_state_dict(model.network.state_dict())
    return network


@pytest.mark.parametrize("name", ["tiny", "tiny_biasfree", "light", "full"])
def test_stages(name: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    """Every module whose output is stored."""
    facts, arrays = read(name)
    network = opened(name).network
    stages = [key for key, _ in network.named_modules() if key in arrays and key != "output"]
    seen: dict[str, Tensor] = {}

    def keep(key: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.update({key: output})

    hooks = [network.get_submodule(key).register_forward_hook(keep(key)) for key in stages]
    _image(network, "plain", _input(fill, facts))
    for hook in hooks:
        hook.remove()
    assert len(stages) >= 15
    for key in stages:
        stride = facts["arrays"][key]["stride"]
        assert _difference(seen[key][:, :, ::stride, ::stride], arrays[key]) <= TOLERANCE_INTERMEDIATE, key


@pytest.mark.parametrize("name", ["tiny", "tiny_biasfree", "light", "full"])
def test_attention(name: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read(name)
    network = opened(name).network
    blocks = {key.removesuffix(".attn.logits"): arrays[key] for key in arrays if key.endswith(".attn.logits")}
    entering: dict[str, Tensor] = {}

    def keep(key: str) -> Callable[..., None]:
        return lambda _module, inputs: entering.update({key: inputs[0]})

    hooks = [network.get_submodule(key).register_forward_pre_hook(keep(key)) for key in blocks]
    _image(network, "plain", _input(fill, facts))
    for hook in hooks:
        hook.remove()
    assert blocks
    for key, wanted in blocks.items():
        block, x = network.get_submodule(key), entering[key]
        assert isinstance(block, TransformerBlock)
        with torch.no_grad():
            forms = (
                block.attn.logits_and_values(block.norm1(x))[0],
                fast.Attention.of(block.norm1, block.attn).logits_and_values(x)[0],
            )
            for logits in forms:
                assert _difference(logits, wanted) <= TOLERANCE_INTERMEDIATE
                attentions = sparse_attentions(logits, block.attn.scales())
                combined = torch.stack(attentions).sum(0)
                assert _difference(combined, arrays[f"{key}.attn.combined"]) <= TOLERANCE_INTERMEDIATE
                masks = arrays[f"{key}.attn.masks"]
                for attention, mask in zip(attentions, masks, strict=True):
                    assert torch.equal(attention != 0, mask.bool())


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("name", ["tiny", "full"])
def test_expert_weights(name: str, form: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read(name)
    with torch.no_grad():
        outputs = getattr(opened(name).network, form)(_input(fill, facts))
    for output, module in (("encoder_experts", "encoder_level0"), ("refinement_experts", "refinement")):
        assert _difference(outputs[output], arrays[f"{module}.expert_weights"]) <= TOLERANCE_INTERMEDIATE


@pytest.mark.parametrize("case", ["whole", "tiled", "tiled_even", "multiple_of_8", "tile_is_clipped"])
def test_protocol(case: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    """The published test: reflection to multiples of 8, square tiles at fixed strides, plain averages."""
    facts, arrays = read("tiny_protocol")
    spec = next(c for c in facts["cases"] if c["case"] == case)
    model = opened("tiny")
    for network, key, tolerance in (
        (model.network, case, facts["tolerance"]["output_float32_max_abs"]),
        (_in_float64(model), f"{case}_f64", facts["tolerance"]["output_float64_max_abs"]),
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
