"""NeRD-Rain against numbers that the published network gave with deterministic weights."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from derain.methods.nerd_rain import loss
from derain.methods.nerd_rain.fast import FastNeRDRain
from derain.methods.nerd_rain.network import ChannelAttention
from oracles.stored import Opened, Read, open_oracle, read_oracle

NETWORKS = ("tiny", "nerd_rain_s", "nerd_rain")
TOLERANCE = 1e-4
TOLERANCE_LARGE = 3e-4
TOLERANCE_64 = 1e-9


@pytest.fixture(scope="module")
def read(shared: Path) -> Read:
    return functools.cache(lambda name: read_oracle(shared / "oracles" / "nerd_rain", name))


@pytest.fixture(scope="module")
def opened(read: Read, fill: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return functools.cache(lambda name: open_oracle(read(name), fill, tmp_path_factory.mktemp(name)))


def _published(outputs: dict[str, Tensor], rainy: Tensor) -> list[Tensor]:
    """The seven tensors that the published network returns, in its order."""
    return [
        outputs["image"],
        outputs["half"],
        outputs["quarter"],
        outputs["inr_half"],
        outputs["half_input"] / 2,
        outputs["inr_quarter"],
        rainy[:, :, ::4, ::4],
    ]


def _error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference in units of the reference's standard deviation."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.std())


def _picture(fill: ModuleType, about: dict[str, Any]) -> Tensor:
    picture: Tensor = fill.test_image(about["name"], about["height"], about["width"])
    return picture


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpoint_is_recognised_with_its_hyper_parameters(name: str, read: Read, opened: Opened) -> None:
    (network, checkpoint), facts = opened(name), read(name).facts
    assert checkpoint.architecture.name == "nerd_rain"
    assert checkpoint.variant == {"tiny": None, "nerd_rain_s": "s", "nerd_rain": "base"}[name]
    for key, value in checkpoint.config.items():
        wanted = facts["config"][key]
        assert value == (tuple(wanted) if isinstance(wanted, list) else wanted)
    assert sum(p.numel() for p in network.parameters()) == facts["params"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("group", ["main", "main_large"])
def test_outputs(name: str, group: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read(name)
    rainy = _picture(fill, facts["inputs"][group])
    network = opened(name).network
    tolerance = TOLERANCE if group == "main" else TOLERANCE_LARGE
    with torch.inference_mode():
        results = _published(network.plain(rainy), rainy)
        assert _error(network.fast(rainy)["image"], arrays[f"{group}/out0"]) <= tolerance
    for index in range(7 if group == "main" else 3):
        assert _error(results[index], arrays[f"{group}/out{index}"]) <= tolerance, f"output {index}"


@pytest.mark.parametrize("name", NETWORKS)
def test_float64(name: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    """Tells a wrong epsilon or an approximate GELU from rounding."""
    facts, arrays = read(name)
    rainy = _picture(fill, facts["inputs"]["main"]).double()
    opened_network, checkpoint = opened(name)
    network = FastNeRDRain(**checkpoint.config).double()
    network.load_state_dict(opened_network.state_dict())
    with torch.inference_mode():
        results = _published(network.plain(rainy), rainy)
        assert _error(network.fast(rainy)["image"], arrays["main_f64/out0"]) <= TOLERANCE_64
    for index in (0, 1, 2, 3, 5):
        assert _error(results[index], arrays[f"main_f64/out{index}"]) <= TOLERANCE_64


@pytest.mark.parametrize("name", NETWORKS)
def test_intermediate_values(name: str, read: Read, opened: Opened, fill: ModuleType) -> None:
    facts, arrays = read(name)
    network = opened(name).network
    wanted = {key.removeprefix("act/"): value for key, value in arrays.items() if key.startswith("act/")}
    seen: dict[str, Tensor] = {}

    def watch(path: str) -> RemovableHandle:
        def keep(module: nn.Module, args: tuple[Any, ...], result: Tensor) -> None:
            seen[path] = result
            if isinstance(module, ChannelAttention):
                seen[f"{path}.softmax"] = module.attention_and_values(*args)[0]

        return network.get_submodule(path).register_forward_hook(keep)

    hooks = [watch(path) for path in {key.removesuffix(".softmax") for key in wanted}]
    with torch.inference_mode():
        network.plain(_picture(fill, facts["inputs"]["main"]))
    for hook in hooks:
        hook.remove()
    assert len(wanted) > 30
    for path, value in wanted.items():
        ours = seen[path] if path.endswith("softmax") else seen[path][:, : value.shape[1]]
        assert _error(ours, value) <= TOLERANCE, path


def _windows(height: int, width: int, size: int) -> Iterator[tuple[int, int]]:
    """Corners of the published windows, in the published order."""
    rows, columns = height // size, width // size
    yield from ((r * size, c * size) for r in range(rows) for c in range(columns))
    if width % size:
        yield from ((r * size, width - size) for r in range(rows))
    if height % size:
        yield from ((height - size, c * size) for c in range(columns))
    if height % size and width % size:
        yield height - size, width - size


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("tiny", "tiled0"),
        ("tiny", "tiled1"),
        ("tiny", "tiled2"),
        ("nerd_rain_s", "tiled"),
        ("nerd_rain", "tiled"),
    ],
)
def test_published_windows_one_by_one(
    name: str, group: str, read: Read, opened: Opened, fill: ModuleType
) -> None:
    """The published code runs all windows as one batch; one by one gives the same picture."""
    facts, arrays = read(name)
    about = facts["inputs"][group]
    rainy, size = _picture(fill, about), about["window"]
    network = opened(name).network
    restored = torch.full_like(rainy, torch.nan)
    corners = list(_windows(about["height"], about["width"], size))
    assert len(corners) == about["cumulative_windows"][-1]
    for top, left in reversed(corners):  # earlier windows keep the overlap
        window = (..., slice(top, top + size), slice(left, left + size))
        with torch.inference_mode():
            restored[window] = network(rainy[window])
    assert _error(restored, arrays[f"{group}/out0"]) <= TOLERANCE_LARGE


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-5), ("float64", 1e-6)])
def test_losses(kind: str, tolerance: float, read: Read, fill: ModuleType) -> None:
    facts, arrays = read("losses")
    dtype = getattr(torch, kind)
    clean = _picture(fill, facts["target"]).to(dtype)
    predictions = [_picture(fill, about).to(dtype) for about in facts["predictions"]]
    targets = loss.clean_pyramid(clean)
    for level in (1, 2):
        torch.testing.assert_close(
            targets[level].float(), arrays[f"target_pyramid/level{level}"], atol=1e-6, rtol=0
        )
    torch.testing.assert_close(
        loss.laplacian(clean).float(), arrays["edge/laplacian_of_target"], atol=1e-6, rtol=0
    )
    for published, term in (("charbonnier", loss.charbonnier), ("edge", loss.edge), ("fft", loss.frequency)):
        ours = [float(term(x, y)) for x, y in zip(predictions[:3], targets, strict=True)]
        assert ours == pytest.approx(facts[kind][published], rel=tolerance)

    names = ("image", "half", "quarter", "inr_half", "half_input", "inr_quarter")
    terms = loss.NeRDRainLoss()(dict(zip(names, predictions[:6], strict=True)), clean, clean)
    assert float(terms["inr"]) == pytest.approx(0.1 * sum(facts[kind]["l1"]), rel=tolerance)
    assert float(sum(terms.values())) == pytest.approx(facts[kind]["total"], rel=tolerance)
