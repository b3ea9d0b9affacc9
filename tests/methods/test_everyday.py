"""The sizes of this project's own network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from derain.checkpoints import open_checkpoint, save_checkpoint
from derain.methods import create_network
from derain.methods.everyday import fast
from derain.methods.everyday.network import FAINTEST, certain
from derain.nn.peak_bytes import PeakBytes
from derain.restore import Derainer


def test_the_small_size_stays_within_what_cameras_can_pay() -> None:
    with torch.device("meta"):
        small = create_network("everyday-small")
    assert small.multiply_adds(480, 640) <= 8000 * 480 * 640


def test_each_size_is_recognised_as_itself(tmp_path: Path) -> None:
    for name, variant in (("everyday", "default"), ("everyday-small", "small")):
        save_checkpoint(tmp_path / f"{name}.safetensors", create_network(name).state_dict(), {})
        assert open_checkpoint(tmp_path / f"{name}.safetensors").checkpoint.variant == variant
        assert Derainer(open_checkpoint(tmp_path / f"{name}.safetensors")).name == name


@pytest.mark.parametrize("size", [(16, 24), (72, 40), (136, 104)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bands_change_nothing(
    size: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = create_network("everyday", widths=(8, 12, 16), encoder=(1, 2, 1), decoder=(2, 1)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    rainy = torch.rand(2, 3, *size)
    away = 3e-6 if dtype == torch.float32 else 0.05  # sums are added up in another order
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        wanted = network.plain(rainy)
        for lowest in (16, 32, 48):
            monkeypatch.setattr(fast, "PIXELS", 64)
            monkeypatch.setattr(fast, "LOWEST", lowest)
            found = network(rainy), network.outputs(rainy)["mask"]
            for name, value in zip(("image", "mask"), found, strict=True):
                torch.testing.assert_close(value, wanted[name], rtol=0, atol=away)


def test_bands_take_less_memory_and_say_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_network("everyday").eval()
    rainy = torch.rand(1, 3, 1024, 256).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        network(rainy)  # lays out the weights, once
    tall, peaks = torch.cat((rainy, rainy), 2), []
    for pixels in (64, 1 << 18):
        monkeypatch.setattr(fast, "PIXELS", pixels)
        with torch.no_grad(), PeakBytes() as peak:
            network(rainy)
        assert peak.most <= 1.15 * network.activation_bytes(1024, 256) <= 3 * peak.most
        with PeakBytes() as peak:
            for _ in network.in_bands(lambda top, end: rainy[:, :, top:end], 1024, 256):
                pass
        assert peak.most <= 1.15 * network.band_bytes(1024, 256) <= 3 * peak.most
        with torch.no_grad(), PeakBytes() as peak:
            network(tall)
        peaks.append(peak.most)
    assert peaks[0] < 0.7 * peaks[1]


def test_memory_grows_with_the_width_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "PIXELS", 64)
    network, peaks = create_network("everyday", widths=(8, 12), encoder=(1, 1), decoder=(1,)).eval(), []
    for height in (400, 1600):
        with PeakBytes() as peak:
            rows = [
                band["image"].shape[2]
                for band in network.in_bands(lambda top, end: torch.rand(1, 3, end - top, 96), height, 96)
            ]
        assert sum(rows) == height
        peaks.append(peak.most)
    assert peaks[1] < 1.05 * peaks[0]


@given(st.floats(-2, 2, width=32))
def test_what_is_too_faint_stays_and_rain_never_darkens(value: float) -> None:
    rain = torch.tensor(value)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        kept = float(certain(rain.to(dtype)))
        assert kept == 0 if value <= FAINTEST else 0 <= kept <= value * 1.01
    if value > 0.1:
        assert float(certain(rain)) > 0.99 * value


def test_faint_rain_is_learnt_from_but_not_subtracted() -> None:
    network = create_network("everyday", widths=(8, 12), encoder=(1, 1), decoder=(1,))
    torch.nn.init.constant_(network.head.bias, FAINTEST / 2)
    torch.nn.init.zeros_(network.head.weight)
    rainy = torch.rand(1, 3, 16, 16)
    learning = network.train()(rainy)
    torch.testing.assert_close(learning, rainy - FAINTEST / 2)
    learning.sum().backward()
    assert network.head.bias.grad is not None
    assert network.head.bias.grad.abs().min() > 0
    with torch.no_grad():
        torch.testing.assert_close(network(rainy), learning.detach())
        assert torch.equal(network.eval()(rainy), rainy)
    assert torch.equal(network(rainy), rainy)
