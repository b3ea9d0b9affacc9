"""DRSformer: the fast form against the plain one, ties, sizes, recognition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from derain import DerainError, create_network, open_checkpoint
from derain.checkpoints import save_checkpoint
from derain.methods.drsformer import METHOD, DRSformer
from derain.methods.drsformer.loss import AbsoluteError
from derain.methods.drsformer.recognition import recognise
from derain.methods.drsformer.selection import blended_attention, by_four_selections, kept
from derain.nn import windows
from methods.drsformer_plain import PlainDRSformer

SMALL = {"dim": 16, "num_blocks": (1, 1, 1, 1), "heads": (1, 2, 2, 4)}
# Odd and even numbers of hidden channels, biases, both norms, with and without compensators.
CONFIGS: list[dict[str, Any]] = [
    {**SMALL},
    {**SMALL, "dim": 8, "ffn_expansion_factor": 2.0, "bias": True, "mefc": False},
    {**SMALL, "dim": 8, "heads": (2, 1, 4, 2), "LayerNorm_type": "BiasFree", "bias": True},
]


def _pair(config: dict[str, Any]) -> tuple[DRSformer, PlainDRSformer]:
    """Both forms in float64 with the same random parameters, none of them at a special value."""
    fast, plain = DRSformer(**config).double(), PlainDRSformer(**config).double()
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    plain.load_state_dict(fast.state_dict())
    return fast, plain


def _picture(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", [(16, 40), (64, 24)])
def test_equals_the_plain_form(config: dict[str, Any], size: tuple[int, int]) -> None:
    fast, plain = _pair(config)
    x = _picture(1, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", CONFIGS)
def test_gradients_equal_those_of_the_plain_form(config: dict[str, Any]) -> None:
    fast, plain = _pair(config)
    x, clean = _picture(2, 3, 16, 24), _picture(2, 3, 16, 24)
    gradients = []
    for network in (fast, plain):
        rainy = x.clone().requires_grad_()
        AbsoluteError()({"image": network(rainy)}, clean, rainy)["l1"].backward()
        assert rainy.grad is not None
        gradients.append({"input": rainy.grad, **{n: p.grad for n, p in network.named_parameters()}})
    for name, wanted in gradients[1].items():
        assert wanted.abs().max() > 0, f"{name} has no influence"
        torch.testing.assert_close(gradients[0][name], wanted, rtol=1e-6, atol=1e-10, msg=name)


@pytest.mark.parametrize("config", CONFIGS)
def test_windows_equal_the_whole(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 16 pixels a side, interior ones among them."""
    fast, _ = _pair(config)
    x = _picture(1, 3, 56, 72)
    with torch.no_grad():
        whole = fast(x)
        monkeypatch.setattr(windows, "CPU_NUMBERS", 1)
        torch.testing.assert_close(fast(x), whole, rtol=0, atol=1e-10)


def test_recording_gradients_changes_nothing() -> None:
    fast, _ = _pair(SMALL)
    x = _picture(2, 3, 24, 16)
    with torch.no_grad():
        still = fast(x)
    torch.testing.assert_close(fast(x), still, rtol=0, atol=1e-10)


def test_input_and_parameters_stay_as_they_were() -> None:
    fast, _ = _pair(SMALL)
    x = _picture(1, 3, 16, 16)
    before, state = x.clone(), {name: value.clone() for name, value in fast.state_dict().items()}
    with torch.no_grad():
        fast(x)
    assert torch.equal(x, before)
    assert all(torch.equal(value, state[name]) for name, value in fast.state_dict().items())


def test_pictures_of_a_batch_do_not_meet() -> None:
    fast, _ = _pair(SMALL)
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
    with pytest.raises(DerainError, match=rf"multiples of 8.*{size[1]}x{size[0]}"):
        DRSformer(**SMALL)(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dim": 8, "heads": (8, 2, 2, 4)}, "heads of 2 channels or more"),
        ({"dim": 8, "heads": (3, 2, 2, 4)}, "must divide 8 channels"),
        ({"dim": 7}, "even"),
        ({"heads": (1, 2, 4)}, "four levels"),
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
def test_selection_equals_four_top_ks(kind: str, channels: int) -> None:
    logits, scales = _rows(kind, channels), torch.tensor([0.3, -0.2, 0.5, 0.1])
    once, four = blended_attention(logits, scales), by_four_selections(logits, scales)
    torch.testing.assert_close(once, four, rtol=1e-5, atol=1e-6)
    # With positive scales the entries above zero are those of the largest selection.
    once, four = (f(logits, scales.abs()) for f in (blended_attention, by_four_selections))
    assert torch.equal(once > 0, four > 0)


@pytest.mark.parametrize("kind", ["random", "quantised"])
def test_gradients_of_the_selection(kind: str) -> None:
    logits = _rows(kind, 8).double()
    results = []
    for form in (blended_attention, by_four_selections):
        x = logits.clone().requires_grad_()
        scales = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
        form(x, scales).square().sum().backward()
        results.append((x.grad, scales.grad))
    torch.testing.assert_close(results[0], results[1])


@given(st.integers(2, 200))
@settings(max_examples=50, deadline=None)
def test_numbers_kept(channels: int) -> None:
    assert kept(channels) == tuple(int(channels * share) for share in (1 / 2, 2 / 3, 3 / 4, 4 / 5))
    assert all(1 <= k < channels for k in kept(channels))


# Recognition


@settings(max_examples=15, deadline=None)
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
    checkpoint = open_checkpoint(tmp_path / "w.safetensors")
    assert checkpoint.architecture.name == "drsformer"
    assert checkpoint.variant is None
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(checkpoint.network(x), network(x))


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
