"""What holds for every network of the registry; a new method is covered once it is registered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import derain.methods
from derain.checkpoints import open_checkpoint, save_checkpoint
from derain.errors import DerainError, UsageError
from derain.methods import all_architectures, all_methods, create_network, folders, network_names
from derain.methods.contract import Architecture
from derain.nn.peak_bytes import PeakBytes
from derain.pictures import read_picture, to_tensor
from derain.restore import Derainer, Settings

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
ARCHITECTURES = [pytest.param(a, id=a.name) for a in all_architectures()]


def tiny(architecture: Architecture) -> Any:
    network = architecture.build(**architecture.tiny).eval()
    side = network.spec.multiple_of * -(-32 // network.spec.multiple_of)
    return network, torch.rand(2, 3, side, 2 * side)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_is_the_image_of_outputs(architecture: Architecture) -> None:
    network, rainy = tiny(architecture)
    with torch.no_grad():
        image, outputs = network(rainy), network.outputs(rainy)
    assert image.shape == rainy.shape
    torch.testing.assert_close(image, outputs["image"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_is_deterministic_and_samples_do_not_mix(architecture: Architecture) -> None:
    network, rainy = tiny(architecture)
    network, rainy = network.double(), rainy.double()
    with torch.no_grad():
        both = network(rainy)
        assert torch.equal(both, network(rainy))
        torch.testing.assert_close(network(rainy[1:]), both[1:], rtol=0, atol=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_learns_except_those_that_are_documented(architecture: Architecture) -> None:
    idle = documented = _without_gradient(architecture)
    for _ in range(8):  # a unit of a small network may be silent by chance
        documented = {name for name in idle if any(part in name for part in architecture.unused_parameters)}
        if idle == documented:
            break
        idle &= _without_gradient(architecture)
    assert idle == documented
    assert all(any(part in name for name in idle) for part in architecture.unused_parameters)


def _without_gradient(architecture: Architecture) -> set[str]:
    network, rainy = tiny(architecture)
    network.train()
    sum(value.square().mean() for value in _tensors(network.outputs(rainy))).backward()
    return {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}


@pytest.mark.parametrize("method", folders())
def test_the_readme_names_every_file(method: str) -> None:
    folder = Path(derain.methods.__file__).parent / method
    named = set(re.findall(r"`(\w+\.py)`", (folder / "README.md").read_text("utf-8")))
    assert named == {file.name for file in folder.glob("*.py")} - {"__init__.py"}


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() and value.requires_grad else []
    values = value.values() if isinstance(value, dict) else value
    return [tensor for part in values for tensor in _tensors(part)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hooks_fire_on_every_leaf_in_a_training_step(architecture: Architecture) -> None:
    network, rainy = tiny(architecture)
    leaves = {name: module for name, module in network.train().named_modules() if not any(module.children())}
    silent = set(leaves)
    for name, leaf in leaves.items():
        leaf.register_forward_hook(lambda _module, _inputs, _output, name=name: silent.discard(name))
    sum(value.square().mean() for value in _tensors(network.outputs(rainy))).backward()
    assert {n for n in silent if not any(part in f"{n}." for part in architecture.unused_parameters)} == set()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_checkpoint_round_trip_recognises_the_hyper_parameters(
    architecture: Architecture, tmp_path: Path
) -> None:
    network, rainy = tiny(architecture)
    save_checkpoint(tmp_path / "x.safetensors", network.state_dict(), {"step": 3})
    torch.save({"model": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "x.pt")
    for name in ("x.safetensors", "x.pt"):
        opened, checkpoint = open_checkpoint(tmp_path / name)
        assert checkpoint.architecture is architecture
        with torch.no_grad():
            assert torch.equal(opened(rainy), network(rainy))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_names_variants_are_recognised_from_shapes_alone(architecture: Architecture) -> None:
    for variant, config in architecture.variants.items():
        with torch.device("meta"):
            state = architecture.build(**config).state_dict()
        found = architecture.recognise(state)
        assert found is not None, variant
        with torch.device("meta"):
            again = architecture.build(**found).state_dict()
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in again.items()}
        others = [
            a.name for a in all_architectures() if a is not architecture and a.recognise(state) is not None
        ]
        assert not others


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (37, 70)])
def test_restores_any_size(architecture: Architecture, size: tuple[int, int], tmp_path: Path) -> None:
    network, _ = tiny(architecture)
    save_checkpoint(tmp_path / "x.safetensors", network.state_dict(), {})
    derainer = Derainer(open_checkpoint(tmp_path / "x.safetensors"), Settings(device="cpu"))
    image = derainer(torch.rand(3, *size))
    assert image.shape == (3, *size)
    assert torch.isfinite(image).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_the_memory_it_needs(architecture: Architecture) -> None:
    network, _ = tiny(architecture)
    side = network.spec.multiple_of * -(-128 // network.spec.multiple_of)
    rainy = torch.rand(1, 3, side, side).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), PeakBytes() as peak:
        network(rainy)
    stated = network.activation_bytes(side, side)
    assert peak.most <= 1.15 * stated
    assert stated <= 3 * peak.most


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_half_precision_is_close_or_refused(architecture: Architecture) -> None:
    torch.manual_seed(0)
    network, rainy = tiny(architecture)
    height, width = rainy.shape[2:]
    photograph = to_tensor(read_picture(SAMPLES / "temple.jpg"))[:, :, :height, :width]
    if "bfloat16" not in network.spec.refused_precisions:
        with torch.no_grad():
            exact = network(photograph)
            with torch.autocast("cpu", torch.bfloat16):
                half = network(photograph).float()
        away = (half - exact).square().mean()
        assert away < 10**-4, "less than 40 dB with fresh weights"
        assert away > 0 or torch.equal(exact, photograph)
    for precision, reason in network.spec.refused_precisions.items():
        assert precision in ("bfloat16", "float16")
        assert len(reason) > 20


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_wrong_sizes_are_refused_by_the_network(architecture: Architecture) -> None:
    network, _ = tiny(architecture)
    multiple = network.spec.multiple_of
    if multiple == 1:
        pytest.skip("takes any size")
    with pytest.raises(DerainError, match=str(multiple)), torch.no_grad():
        network(torch.rand(1, 3, multiple + 1, multiple))


def test_all_names_are_distinct_and_every_method_has_papers_and_networks() -> None:
    assert len({m.name for m in all_methods()}) == len(all_methods())
    assert all(m.title and m.paper and m.architectures for m in all_methods())
    assert len(network_names()) == sum(len(a.variants) for a in all_architectures())


def test_an_unknown_network_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'spanet'"):
        create_network("spannet")
