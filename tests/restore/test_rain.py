"""How much rain there is, and what stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import derain
from derain.checkpoints.rain_threshold import FACT
from derain.errors import DerainError
from derain.restore.protecting import FEATHER, keep_map, protected
from derain.restore.rain import measure_rain
from derain.tensors import save_checkpoint


def streaks(height: int = 120, width: int = 160, level: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """A grey picture with thin bright streaks all over, and without."""
    image = torch.full((1, 3, height, width), 0.4)
    rainy = image.clone()
    if level:
        rainy[..., ::10, :] += 0.2
    else:
        rainy[..., ::10] += 0.2
    return rainy, image


def test_rain_is_measured_by_share_contrast_and_direction() -> None:
    rain = measure_rain(*streaks(), threshold=0.02)
    assert rain.share == pytest.approx(0.1, abs=0.02)
    assert rain.contrast == pytest.approx(0.2, abs=0.01)
    assert rain.is_raining is True
    assert 0.02 < rain.signal < rain.share
    level = measure_rain(*streaks(level=True), threshold=0.02)
    assert (level.signal, level.is_raining) == (0, False)
    assert measure_rain(*streaks()).is_raining is None


def test_what_is_in_one_place_is_no_rain() -> None:
    rainy, image = streaks()
    local = image.clone()
    local[..., :40, :60] = rainy[..., :40, :60]  # a window with bars
    assert measure_rain(local, image).signal < 0.1 * measure_rain(rainy, image).signal


def test_dry_and_large_and_tiny_pictures() -> None:
    rainy, image = streaks()
    assert measure_rain(image, image).as_row() == {
        "share": 0.0,
        "contrast": 0.0,
        "signal": 0.0,
        "is_raining": None,
    }
    large = [t.repeat_interleave(8, 2).repeat_interleave(8, 3) for t in (rainy, image)]
    assert measure_rain(*large).signal == pytest.approx(measure_rain(rainy, image).signal, rel=0.5)
    assert measure_rain(torch.rand(3, 1, 1), torch.rand(3, 1, 1)).share in (0.0, 1.0)


def test_every_kind_of_picture_has_the_same_rain(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = derain.create_network("everyday", widths=(8, 12), encoder=(1, 1), decoder=(1,))
    torch.nn.init.normal_(network.head.weight, std=0.05)
    save_checkpoint(tmp_path / "w.safetensors", network.state_dict(), {FACT: {"threshold": 0.0}})
    restore = derain.load(tmp_path / "w.safetensors", device="cpu", precision="float32", strength=0.5)
    pixels = np.random.default_rng(1).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    kinds = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(pixels),
        pixels,
        tensor,
        tensor[None],
    ]
    found = [derain.rain(picture, restore) for picture in kinds]
    assert len({str(rain) for rain in found}) == 1
    assert found[0].is_raining == (found[0].signal > 0)
    with pytest.raises(DerainError, match="a batch of 2"):
        restore.rain(torch.cat([tensor[None]] * 2))


def test_white_stays_to_the_last_bit_and_its_edge_is_soft() -> None:
    mask = torch.zeros(1, 1, 80, 120)
    mask[..., 20:50, 30:60] = 1
    keep = keep_map(mask)
    assert torch.equal(keep[..., 20:50, 30:60], torch.ones(1, 1, 30, 30))
    row = keep[0, 0, 35]
    assert (row[: 30 - FEATHER] == 0).all()
    assert (row[60 + FEATHER :] == 0).all()
    fading = row[59 : 61 + FEATHER]
    assert (fading.diff() <= 0).all()
    assert float(fading.diff().abs().max()) < 0.2
    rainy, image = torch.rand(1, 3, 80, 120), torch.rand(1, 3, 80, 120)
    mixed = protected(rainy, image, keep)
    assert torch.equal(mixed[..., 20:50, 30:60], rainy[..., 20:50, 30:60])
    assert torch.equal(mixed[..., :30, :8], image[..., :30, :8])


def test_protection_in_python_for_every_kind(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = derain.create_network("everyday", widths=(8, 12), encoder=(1, 1), decoder=(1,))
    torch.nn.init.normal_(network.head.weight, std=0.05)
    restore = derain.Derainer(network)
    pixels = np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[:, :40] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    done = restore(pixels, protect=mask)
    assert np.array_equal(done[:, :40], pixels[:, :40])
    assert not np.array_equal(done[:, 60:], pixels[:, 60:])
    assert np.array_equal(done[:, 56:], restore(pixels)[:, 56:])
    written = restore(tmp_path / "a.png", protect=tmp_path / "m.png")
    # A file is restored to whole levels before the soft edge is blended.
    apart = np.abs(np.asarray(Image.open(written)).astype(int) - done)
    assert apart.max() <= 1
    assert not apart[:, :40].any()
    assert not apart[:, 56:].any()
    assert np.array_equal(np.asarray(restore(Image.fromarray(pixels), protect=Image.fromarray(mask))), done)
    with pytest.raises(DerainError, match="the mask is 96x64 and the picture 90x64"):
        restore(pixels[:, :90].copy(), protect=mask)
    with pytest.raises(DerainError, match=r"the mask: \d+ % of it is in colour, so it is not a mask"):
        restore(pixels, protect=tmp_path / "a.png")
    grey_day = np.repeat(pixels[..., :1], 3, axis=2) // 2 + np.array([0, 4, 16], np.uint8)
    with pytest.raises(DerainError, match=r"the mask: 100 % of it is in colour"):
        restore(pixels, protect=grey_day)
