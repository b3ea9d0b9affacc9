"""NeRD-Rain: the fast network against the plain formulas, recognition, gradients, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from derain import create_network
from derain.checkpoints import identify
from derain.errors import DerainError
from derain.methods.nerd_rain.loss import NeRDRainLoss
from derain.methods.nerd_rain.network import Block, ImplicitRepresentation, NeRDRain
from derain.nn import windows
from methods.nerd_rain_plain import PlainNeRDRain, plain_block, plain_inr

TINY: dict[str, Any] = {"dim": 8, "num_blocks": (1, 2, 1), "heads": (1, 2, 4)}
UNUSUAL: dict[str, Any] = {
    "dim": 6,
    "num_blocks": (2, 1, 1),
    "heads": (2, 3, 6),
    "ffn_expansion_factor": 3.1,
    "bias": True,
    "LayerNorm_type": "BiasFree",
}
DEAD = "reduce_chan_level1_max3"


def _network(config: dict[str, Any]) -> NeRDRain:
    """In float64, with biases and norms away from their neutral starting values."""
    network = NeRDRain(**config).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() == 1 or "temperature" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return network


SQUARES, BANDS = 2000, 24000  # numbers in the buffers of a window of the tests below, by its shape


def _small_windows(monkeypatch: pytest.MonkeyPatch, numbers: int = SQUARES) -> None:
    monkeypatch.setattr(windows, "CPU_NUMBERS", numbers)


@pytest.mark.parametrize("config", [TINY, UNUSUAL])
def test_values_and_gradients_equal_the_plain_formulas(config: dict[str, Any]) -> None:
    fast = _network(config)
    plain = PlainNeRDRain(**config).double()
    plain.load_state_dict(fast.state_dict())
    rainy, clean = torch.rand(2, 2, 3, 32, 16, dtype=torch.float64)

    results = [network.outputs(rainy) for network in (fast, plain)]
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)
    for outputs in results:
        sum(NeRDRainLoss()(outputs, clean, rainy).values()).backward()
    for (name, ours), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        if name.startswith(DEAD):
            assert ours.grad is None
            continue
        assert ours.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9, msg=name)
        if "INR" not in name:
            assert ours.grad.abs().max() > 0, name


@pytest.mark.parametrize("numbers", [SQUARES, BANDS])
@pytest.mark.parametrize("config", [TINY, UNUSUAL])
def test_windows_equal_the_whole(
    config: dict[str, Any], numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _network(config)
    rainy = torch.rand(1, 3, 80, 48, dtype=torch.float64)
    whole = network(rainy)
    _small_windows(monkeypatch, numbers)
    with torch.inference_mode():
        in_windows = network(rainy)
    torch.testing.assert_close(in_windows, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("channels", "heads", "hidden"), [(8, 2, 21), (16, 4, 16), (48, 1, 127)])
@pytest.mark.parametrize("bias_free_norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_block_equals_the_plain_formulas(
    channels: int, heads: int, hidden: int, bias: bool, bias_free_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = Block(channels, heads, hidden, bias, bias_free_norm).double()
    state = {f"b.{name}": value for name, value in block.state_dict().items()}
    x = torch.randn(2, channels, 40, 36, dtype=torch.float64)
    _small_windows(monkeypatch)
    with torch.inference_mode():
        torch.testing.assert_close(block(x.clone()), plain_block(state, "b", x), rtol=1e-10, atol=1e-10)


@settings(max_examples=12, deadline=None)
@given(height=st.integers(2, 40), width=st.integers(2, 40), channels=st.integers(1, 9))
def test_inr_equals_the_local_implicit_function(height: int, width: int, channels: int) -> None:
    inr = ImplicitRepresentation(channels).double()
    state = {f"INR.{name}": value for name, value in inr.state_dict().items()}
    features = torch.randn(2, channels, height, width, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(inr(features), plain_inr(state, "INR", features), rtol=1e-10, atol=1e-10)


def test_float32_takes_the_same_way_in_both_modes() -> None:
    network = NeRDRain(**TINY)
    rainy = torch.rand(1, 3, 32, 48)
    with_gradients = network(rainy)
    with torch.inference_mode():
        without = network(rainy)
    torch.testing.assert_close(without, with_gradients.detach(), rtol=1e-4, atol=1e-4)
    with_gradients.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_pictures_of_a_batch_do_not_touch_each_other() -> None:
    network = _network(TINY).eval()
    rainy = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        one_by_one = torch.cat([network(picture) for picture in rainy.split(1)])
        torch.testing.assert_close(network(rainy), one_by_one, rtol=1e-10, atol=1e-10)


def test_same_picture_same_result() -> None:
    network = NeRDRain(**TINY).eval()
    rainy = torch.rand(1, 3, 48, 48)
    with torch.inference_mode():
        assert torch.equal(network(rainy), network(rainy))


@pytest.mark.parametrize("config", [TINY, UNUSUAL])
def test_hyper_parameters_are_read_off_the_state(config: dict[str, Any]) -> None:
    network = NeRDRain(**config)
    architecture, found = identify(network.state_dict())
    assert architecture.name == "nerd_rain"
    assert {key: found[key] for key in config} == config
    rebuilt = NeRDRain(**found)
    rebuilt.load_state_dict(network.state_dict(), strict=True)


def test_missing_hyper_parameter_is_named() -> None:
    state = dict(NeRDRain(**TINY).state_dict())
    del state["latent_small.0.attn.temperature"]
    with pytest.raises(DerainError, match=r"latent_small\.0\.attn\.temperature"):
        identify(state)


@pytest.mark.parametrize(("name", "dim"), [("nerd_rain", 48), ("nerd_rain-s", 32)])
def test_names_that_users_type(name: str, dim: int) -> None:
    with torch.device("meta"):
        network = create_network(name)
    assert network.dim == dim
    assert len(network.state_dict()) == 947


@pytest.mark.parametrize("shape", [(1, 3, 24, 32), (1, 3, 32, 40)])
def test_sizes_that_are_no_multiple_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DerainError, match="multiples of 16"):
        NeRDRain(**TINY)(torch.rand(shape))


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (1, 4, 32, 32), (3, 32, 32)])
def test_other_than_rgb_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DerainError, match="RGB"):
        NeRDRain(**TINY)(torch.rand(shape))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"dim": 7}, "dim"),
        ({"heads": (1, 3, 4)}, "heads"),
        ({"heads": (1, 2)}, "heads"),
        ({"LayerNorm_type": "withbias"}, "LayerNorm_type"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(DerainError, match=named):
        NeRDRain(**{**TINY, **wrong})


@pytest.mark.parametrize(("config", "factor"), [(TINY, 2), (UNUSUAL, 8 / 3)])
def test_operation_count_is_what_runs(config: dict[str, Any], factor: float) -> None:
    """With hidden widths that need no channels of zeros; those are not counted."""
    network = NeRDRain(
        **{**config, "ffn_expansion_factor": factor}
    ).double()  # float64 runs through operators that the counter knows
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.rand(1, 3, 64, 48, dtype=torch.float64))
    merging = sum(
        block.attn.channels**3 // block.attn.heads for block in network.modules() if isinstance(block, Block)
    )
    # A reduction (c, 2c) with an upsampling (4c, 2c, 3, 3), at two sizes in each of six passes.
    merging += 6 * sum(72 * width**3 for width in (network.dim, 2 * network.dim))
    assert counter.get_total_flops() == 2 * (network.multiply_adds(64, 48) + merging)


def _count(name: str) -> float:
    with torch.device("meta"):
        return create_network(name).multiply_adds(256, 256) / 1e9


def test_operation_count_of_the_published_sizes() -> None:
    """The published counts less three of four INR evaluations, A V and the reductions of what was
    enlarged; what `forward` leaves out of the coordinates, the fusions and the smaller scales'
    pictures is another 0.2 G."""

    def reductions(dim: int) -> float:
        return 2 * dim**2 * (3 + 2 / 4 + 1 / 16) * 256**2 / 1e9

    assert _count("nerd_rain") == pytest.approx(156.32 - 0.75 * 20.28 - 8.34 / 2 - reductions(48), abs=0.25)
    assert _count("nerd_rain-s") == pytest.approx(79.28 - 0.75 * 17.26 - 3.71 / 2 - reductions(32), abs=0.25)
