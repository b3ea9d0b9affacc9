"""DRSformer: the fast form against the plain one, hooks, selections, sizes, recognition."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from derain import DerainError, create_network, open_checkpoint
from derain.checkpoints import save_checkpoint
from derain.methods.contract import AbsoluteError
from derain.methods.drsformer import METHOD
from derain.methods.drsformer.fast import FastDRSformer as DRSformer
from derain.methods.drsformer.network import kept, sparse_attentions
from derain.methods.drsformer.recognition import recognise
from derain.nn import halo_windows
from methods.precision import assert_bfloat16_stays_close

SMALL = {"dim": 16, "num_blocks": (1, 1, 1, 1), "heads": (1, 2, 2, 4)}
# Odd and even numbers of hidden channels, biases, both norms, with and without compensators.
CONFIGS: list[dict[str, Any]] = [
    {**SMALL},
    {**SMALL, "dim": 8, "ffn_expansion_factor": 2.0, "bias": True, "mefc": False},
    {**SMALL, "dim": 8, "heads": (2, 1, 4, 2), "LayerNorm_type": "BiasFree", "bias": True},
]


def _network(config: dict[str, Any]) -> DRSformer:
    """In float64, with random parameters, none of them at a special value."""
    network = DRSformer(**config).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def _picture(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def _assert_forms_agree(network: DRSformer, x: Tensor) -> None:
    with torch.no_grad():
        fast, plain = network.fast(x), network.plain(x)
    assert list(fast) == list(plain)
    for name, value in fast.items():
        torch.testing.assert_close(value, plain[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", [(16, 40), (64, 24)])
def test_fast_equals_plain(config: dict[str, Any], size: tuple[int, int]) -> None:
    _assert_forms_agree(_network(config), _picture(2, 3, *size))


@pytest.mark.parametrize("config", CONFIGS)
def test_windows_equal_the_whole(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 16 pixels a side, interior ones among them."""
    monkeypatch.setattr(halo_windows, "CPU_NUMBERS", 1)
    _assert_forms_agree(_network(config), _picture(1, 3, 56, 72))


@pytest.mark.parametrize("numbers", [20_000, halo_windows.CPU_NUMBERS])
def test_bfloat16_stays_within_45_db_of_float32_in_windows_and_as_a_whole(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halo_windows, "CPU_NUMBERS", numbers)
    torch.manual_seed(0)
    network = DRSformer(dim=16, num_blocks=(1, 1, 1, 1))
    rainy = torch.rand(1, 3, 72, 56)
    assert_bfloat16_stays_close(network, rainy)


@pytest.mark.parametrize("config", [{}, {"bias": True, "LayerNorm_type": "BiasFree", "mefc": False}])
def test_many_pairs_of_channels_in_float32(config: dict[str, Any]) -> None:
    """Hidden channels in several parts, 127 and 255 to 1021 of them, by the vendor's kernels."""
    network = DRSformer(**config, num_blocks=(1, 0, 0, 0), heads=(1, 1, 1, 1))
    x = torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        wanted = network.double().plain(x.double())["image"]
        found = network.float().fast(x)["image"]
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4)


def test_gradients_are_those_of_plain_and_recording_them_changes_nothing() -> None:
    network = _network(SMALL)
    x = _picture(2, 3, 24, 16)
    with torch.no_grad():
        still = network(x)
    recorded = network(x)
    assert recorded.requires_grad
    torch.testing.assert_close(recorded, still, rtol=0, atol=1e-10)


def test_hooks_see_every_leaf_in_a_training_step() -> None:
    network = DRSformer(**SMALL)
    leaves = {name for name, module in network.named_modules() if not list(module.children())}
    seen: set[str] = set()
    for name in leaves:
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.add(name))
    x = torch.rand(1, 3, 16, 16)
    AbsoluteError()(network.outputs(x), x, x)["l1"].backward()
    assert seen == leaves


def _scaled_in_place(network: DRSformer) -> DRSformer:
    with torch.no_grad():
        network.latent[0].ffn.project_in.weight.mul_(1.5)
    return network


def _trained(network: DRSformer) -> DRSformer:
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    with torch.enable_grad():
        network(_picture(1, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    return network


def _loaded(network: DRSformer) -> DRSformer:
    network.load_state_dict(_network(SMALL).state_dict())
    return network


@pytest.mark.parametrize(
    "changed",
    [
        _scaled_in_place,
        _trained,
        _loaded,
        lambda network: network.float().double(),
        copy.deepcopy,
        lambda network: _scaled_in_place(copy.deepcopy(network)),
        lambda network: pickle.loads(pickle.dumps(network)),
    ],
)
def test_fast_follows_the_weights(changed: Callable[[DRSformer], DRSformer]) -> None:
    network = _network(SMALL)
    names = list(network.state_dict())
    x = _picture(1, 3, 16, 24)
    with torch.no_grad():
        network(x)
    network = changed(network)
    assert list(network.state_dict()) == names
    _assert_forms_agree(network, x)


def test_input_and_parameters_stay_as_they_were() -> None:
    fast = _network(SMALL)
    x = _picture(1, 3, 16, 16)
    before, state = x.clone(), {name: value.clone() for name, value in fast.state_dict().items()}
    with torch.no_grad():
        fast(x)
    assert torch.equal(x, before)
    assert all(torch.equal(value, state[name]) for name, value in fast.state_dict().items())


def test_pictures_of_a_batch_do_not_meet() -> None:
    fast = _network(SMALL)
    batch = _picture(3, 3, 16, 24)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            together = fast.outputs(batch)
            for number in range(3):
                alone = fast.outputs(batch[number : number + 1])
                for key, value in alone.items():
                    torch.testing.assert_close(together[key][number], value[0], rtol=0, atol=1e-10)


def test_outputs() -> None:
    network = DRSformer(**SMALL)
    x = torch.rand(2, 3, 16, 8)
    with torch.no_grad():
        outputs = network.outputs(x)
        assert torch.equal(outputs["image"], network(x))
    for key in ("encoder_experts", "refinement_experts"):
        assert outputs[key].shape == (2, 4, 8)
        torch.testing.assert_close(outputs[key].sum(-1), torch.ones(2, 4))
    assert list(DRSformer(**SMALL, mefc=False).outputs(x)) == ["image"]


def test_a_picture_of_8_by_8_is_finite_and_repeatable() -> None:
    """One pixel at the lowest level: most logits are exactly tied."""
    network = DRSformer(**SMALL)
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        first = network(x)
        assert first.isfinite().all()
        assert torch.equal(first, network(x))


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_flat_pictures_are_finite(value: float) -> None:
    with torch.no_grad():
        assert DRSformer(**SMALL)(torch.full((1, 3, 16, 16), value)).isfinite().all()


@pytest.mark.parametrize("size", [(12, 16), (16, 4), (1, 1)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(DerainError, match=rf"{size[1]}x{size[0]} pixels.*multiples of 8"):
        DRSformer(**SMALL)(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dim": 8, "heads": (8, 2, 2, 4)}, "heads of 2 channels or more"),
        ({"dim": 8, "heads": (3, 2, 2, 4)}, "must divide 8 channels"),
        ({"dim": 7}, "even"),
        ({"heads": (1, 2, 4)}, "four levels"),
        ({"LayerNorm_type": "withbias"}, "LayerNorm_type"),
        ({"inp_channels": 4}, "must be equal"),
    ],
)
def test_impossible_sizes_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(DerainError, match=message):
        DRSformer(**config)


# Selection


def _rows(kind: str, channels: int) -> Tensor:
    x = torch.randn(2, 3, channels, channels)
    if kind == "quantised":
        return (x * 2).round() / 2
    if kind == "equal":
        return torch.ones_like(x)
    if kind == "half zero":
        return x * (torch.rand_like(x) > 0.5)
    if kind == "signed zeros":
        return torch.where(torch.rand_like(x) > 0.5, 0.0, -0.0)
    if kind == "bfloat16 grid":
        return x.bfloat16().float()
    return x


@pytest.mark.parametrize("channels", [2, 3, 5, 16, 48, 96])
@pytest.mark.parametrize(
    "kind", ["random", "quantised", "equal", "half zero", "signed zeros", "bfloat16 grid"]
)
def test_selections(kind: str, channels: int) -> None:
    """Softmaxes over as many of the largest logits of each row as said, however many are equal."""
    logits, scales = _rows(kind, channels), torch.tensor([0.3, -0.2, 0.5, 0.1])
    for k, scale, attention in zip(kept(channels), scales, sparse_attentions(logits, scales), strict=True):
        survives = attention != 0
        assert (survives.sum(-1) == k).all()
        left_out = logits.masked_fill(survives, float("-inf")).amax(-1)
        assert (logits.masked_fill(~survives, float("inf")).amin(-1) >= left_out).all()
        wanted = scale * logits.masked_fill(~survives, float("-inf")).softmax(-1)
        torch.testing.assert_close(attention, wanted, rtol=1e-5, atol=1e-6)


@given(st.integers(2, 200))
@settings(max_examples=50)
def test_numbers_kept(channels: int) -> None:
    assert kept(channels) == tuple(int(channels * share) for share in (1 / 2, 2 / 3, 3 / 4, 4 / 5))
    assert all(1 <= k < channels for k in kept(channels))


# Recognition


@settings(max_examples=15)
@given(
    dim=st.sampled_from([6, 8, 10, 16]),
    blocks=st.tuples(*[st.integers(1, 2)] * 4),
    heads=st.tuples(*[st.sampled_from([1, 2])] * 4),
    factor=st.one_of(st.sampled_from([1.0, 2.0, 2.5, 2.66, 4.0]), st.floats(0.5, 5)),
    bias=st.booleans(),
    norm=st.sampled_from(["WithBias", "BiasFree"]),
    mefc=st.booleans(),
)
def test_any_size_is_recognised(
    dim: int,
    blocks: tuple[int, ...],
    heads: tuple[int, ...],
    factor: float,
    bias: bool,
    norm: str,
    mefc: bool,
) -> None:
    with torch.device("meta"):
        network = DRSformer(3, 3, dim, blocks, heads, factor, bias, norm, mefc)
        config = recognise(network.state_dict())
        assert config is not None
        again = DRSformer(**config)
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes
    assert (config["num_blocks"], config["heads"]) == (list(blocks), list(heads))


def test_published_names_and_shapes() -> None:
    with torch.device("meta"):
        full, light = create_network("drsformer").state_dict(), create_network("drsformer-light").state_dict()
    assert (len(full), len(light)) == (924, 730)
    assert {name for name in full if name not in light} == {
        name for name in full if name.startswith(("encoder_level0.", "refinement."))
    }
    assert full["latent.0.ffn.dwconv5x5_1.weight"].shape == (1021, 2, 5, 5)
    assert recognise(full) == {**_plain(METHOD.architectures[0].variants["full"])}
    assert recognise(light) == {**_plain(METHOD.architectures[0].variants["light"])}


def _plain(variant: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in variant.items()}


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    network = DRSformer(**SMALL).eval()
    save_checkpoint(tmp_path / "w.safetensors", network.state_dict(), {})
    opened, checkpoint = open_checkpoint(tmp_path / "w.safetensors")
    assert checkpoint.architecture.name == "drsformer"
    assert checkpoint.variant is None
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(opened(x), network(x))


def _open(tmp_path: Path, state: dict[str, Tensor]) -> nn.Module:
    save_checkpoint(tmp_path / "w.safetensors", state, {})
    return open_checkpoint(tmp_path / "w.safetensors").network


def test_an_early_checkpoint_without_scales_says_so(tmp_path: Path) -> None:
    state = {name: v for name, v in DRSformer(**SMALL).state_dict().items() if ".attn.attn" not in name}
    with pytest.raises(DerainError, match=r"drsformer.*encoder_level1\.0\.attn\.attn1 is missing"):
        _open(tmp_path, state)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("output.weight", None, r"output\.weight is missing"),
        ("latent.0.attn.temperature", None, r"latent\.0\.attn\.temperature is missing"),
        ("latent.0.attn.temperature", torch.ones(4), "not of 3 dimensions"),
        ("patch_embed.proj.weight", torch.ones(()), "not of 4 dimensions"),
        ("latent.0.ffn.project_out.weight", torch.ones(128, 6, 1, 1), "no expansion factor"),
        ("encoder_level1.0.attn.temperature", torch.ones(16, 1, 1), "heads of 2 channels or more"),
        ("decoder_level1.0.attn.qkv.weight", torch.ones(2, 2), "instead of"),
    ],
)
def test_damaged_checkpoints_say_what_is_wrong(
    tmp_path: Path, name: str, value: Tensor | None, message: str
) -> None:
    state = dict(DRSformer(**SMALL).state_dict())
    if value is None:
        del state[name]
    else:
        state[name] = value
    with pytest.raises(DerainError, match=message):
        _open(tmp_path, state)
