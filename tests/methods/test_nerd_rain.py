"""NeRD-Rain: the fast form against the plain one, recognition, gradients, bad input."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from derain import create_network
from derain.checkpoints import identify
from derain.errors import DerainError
from derain.methods.nerd_rain import fast
from derain.methods.nerd_rain.fast import FastNeRDRain
from derain.methods.nerd_rain.loss import NeRDRainLoss
from derain.methods.nerd_rain.network import ChannelAttention, FeedForward, ImplicitRepresentation, NeRDRain
from derain.nn import halo_windows
from derain.nn.resizing import Upsample
from derain.nn.transformer import TransformerBlock
from derain.nn.transformer_fast import BlockSequence
from methods.precision import assert_bfloat16_stays_close

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


def _network(config: dict[str, Any], dtype: torch.dtype = torch.float64) -> FastNeRDRain:
    """With biases and norms away from their neutral starting values."""
    network = FastNeRDRain(**config).to(dtype)
    _disturb(network)
    return network


@torch.no_grad()
def _disturb(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.dim() == 1 or "temperature" in name:
            parameter.add_(0.2 * torch.randn_like(parameter))


SQUARES, BANDS = 2000, 24000  # numbers in the buffers of a window of the tests below, by its shape


@pytest.mark.parametrize("numbers", [SQUARES, BANDS, halo_windows.CPU_NUMBERS])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("config", [TINY, UNUSUAL])
def test_fast_equals_plain(
    config: dict[str, Any], dtype: torch.dtype, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 by the library's convolutions, in float32 by oneDNN's, where they are."""
    monkeypatch.setattr(halo_windows, "CPU_NUMBERS", numbers)
    network = _network(config, dtype)
    rainy = torch.rand(1, 3, 80, 48, dtype=dtype)
    with torch.inference_mode():
        tolerance = 1e-10 if dtype == torch.float64 else 2e-5
        found, wanted = network.fast(rainy)["image"], network.plain(rainy)["image"]
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("numbers", [SQUARES, halo_windows.CPU_NUMBERS])
def test_bfloat16_stays_within_45_db_of_float32_in_windows_and_as_a_whole(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halo_windows, "CPU_NUMBERS", numbers)
    torch.manual_seed(0)
    network = FastNeRDRain(dim=16, num_blocks=(1, 1, 1))
    rainy = torch.rand(1, 3, 80, 48)
    assert_bfloat16_stays_close(network, rainy)


@pytest.mark.parametrize(("channels", "heads", "hidden"), [(8, 2, 21), (16, 4, 16), (48, 1, 127)])
@pytest.mark.parametrize("bias_free_norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_fast_block_equals_the_plain_one(
    channels: int, heads: int, hidden: int, bias: bool, bias_free_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halo_windows, "CPU_NUMBERS", SQUARES)
    parts = ChannelAttention(channels, heads, bias), FeedForward(channels, hidden, bias)
    block = TransformerBlock(channels, *parts, bias_free_norm).double()
    _disturb(block)
    x = torch.randn(2, channels, 40, 36, dtype=torch.float64)
    with torch.no_grad():
        prepared = BlockSequence.of(nn.Sequential(block), fast.Attention.of, fast.FeedForward.of)
        torch.testing.assert_close(prepared(x), block(x), rtol=1e-10, atol=1e-10)


def test_a_training_step_passes_every_leaf_and_reaches_every_parameter() -> None:
    network = _network(TINY)
    leaves = {name for name, module in network.named_modules() if not list(module.children())}
    called: set[str] = set()
    for name in leaves:
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: called.add(name))
    rainy, clean = torch.rand(2, 2, 3, 32, 32, dtype=torch.float64)
    sum(NeRDRainLoss()(network.outputs(rainy), clean, rainy).values()).backward()
    assert leaves - called == {DEAD}
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == name.startswith(DEAD), name


@pytest.mark.heavy
def test_plain_can_be_compiled() -> None:
    network = _network({**TINY, "num_blocks": (1, 1, 1)})
    rainy = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(rainy), network(rainy), rtol=1e-10, atol=1e-10)


def _loaded(network: FastNeRDRain) -> FastNeRDRain:
    network.load_state_dict(_network(TINY, torch.float32).state_dict())
    return network


def _trained(network: FastNeRDRain) -> FastNeRDRain:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    with torch.enable_grad():
        network(torch.rand(1, 3, 16, 16)).sum().backward()
    optimizer.step()
    return network


def _replaced(network: FastNeRDRain) -> FastNeRDRain:
    network.output_max.weight = nn.Parameter(torch.rand_like(network.output_max.weight))
    return network


CHANGES: list[Callable[[FastNeRDRain], FastNeRDRain]] = [
    _loaded,
    _trained,
    _replaced,
    lambda network: network.double(),
    lambda network: network.to(memory_format=torch.channels_last),
    lambda network: _trained(copy.deepcopy(network)),
    lambda network: pickle.loads(pickle.dumps(network)),
]


@pytest.mark.parametrize("change", CHANGES)
def test_fast_notices_changed_weights(change: Callable[[FastNeRDRain], FastNeRDRain]) -> None:
    network = _network(TINY, torch.float32)
    rainy = torch.rand(1, 3, 16, 16)
    names = list(network.state_dict())
    with torch.no_grad():
        before = network(rainy)
        changed = change(network)
        rainy = rainy.to(changed.output_max.weight.dtype)
        wanted = changed.plain(rainy)["image"]
        torch.testing.assert_close(changed(rainy), wanted, rtol=2e-5, atol=2e-5)
        if changed is not network:
            torch.testing.assert_close(network(rainy), before, rtol=2e-5, atol=2e-5)
    assert list(changed.state_dict()) == names


@settings(max_examples=12)
@given(height=st.integers(2, 10), width=st.integers(2, 10), channels=st.integers(1, 9))
def test_inr_is_the_local_implicit_function(height: int, width: int, channels: int) -> None:
    inr = ImplicitRepresentation(channels).double()
    first, second = Upsample(4 * channels).double(), Upsample(2 * channels).double()
    deepest = torch.randn(2, 4 * channels, height, width, dtype=torch.float64)
    with torch.no_grad():
        features = second(first(deepest))
        wanted = _local_implicit_function(inr, features)
        torch.testing.assert_close(inr(features), wanted, rtol=1e-10, atol=1e-10)
        found = fast.ImplicitRepresentation.of(first, second, inr)(deepest)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def _local_implicit_function(inr: ImplicitRepresentation, features: Tensor) -> Tensor:
    """As published: one row of 9 C + 20 numbers per pixel, the mean of four queries."""
    batch, _, height, width = features.shape
    centres = [-1 + (2 * torch.arange(n, dtype=features.dtype) + 1) / n for n in (height, width)]
    positions = torch.stack(torch.meshgrid(*centres, indexing="ij"), -1).view(-1, 2)
    queries = positions  # those shifted by half a cell are never used
    sizes = torch.tensor([height, width], dtype=features.dtype)
    coordinates = torch.cat(
        [
            (queries - positions) * sizes,
            _encoding(queries) - _encoding(positions),
            (2 / sizes * sizes).expand(height * width, 2),
        ],
        1,
    )
    neighbourhood = F.unfold(features, 3, padding=1).transpose(1, 2)
    rows = torch.cat([neighbourhood, coordinates.expand(batch, -1, -1)], 2)
    mean = sum(inr.imnet["layers"](rows) * 0.25 for _ in range(4))
    assert isinstance(mean, Tensor)
    return mean.transpose(1, 2).reshape(batch, 3, height, width)


def _encoding(positions: Tensor) -> Tensor:
    """(N, 2) -> (N, 16): for each axis four sines, then four cosines."""
    angles = positions[:, :, None] * (2 ** torch.arange(4, dtype=positions.dtype) * math.pi)
    return torch.cat([angles.sin(), angles.cos()], 2).flatten(1)


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


@pytest.mark.parametrize(
    ("name", "published", "inr"), [("nerd_rain", 156.32, 20.28), ("nerd_rain-s", 79.28, 17.26)]
)
def test_operation_count_is_the_published_one_with_one_inr_evaluation(
    name: str, published: float, inr: float
) -> None:
    with torch.device("meta"):
        count = create_network(name).multiply_adds(256, 256) / 1e9
    assert count == pytest.approx(published - 0.75 * inr, abs=0.02)
