"""`Derainer`: kinds of pictures, settings, ensemble, running out of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import derain
from derain.checkpoints import save_checkpoint
from derain.errors import DerainError, UsageError
from derain.methods import create_network
from derain.pictures import Picture, read_picture, write_picture
from derain.restore import Derainer
from derain.restore.memory import fitting_tile


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(path, create_network("spanet", width=4).state_dict(), {})
    return path


@pytest.fixture(scope="module")
def derainer(weights: Path) -> Derainer:
    return derain.load(weights)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 31, 3), np.uint8)


def test_gives_back_the_kind_that_it_was_given(
    derainer: Derainer, pixels: np.ndarray, tmp_path: Path
) -> None:
    restored = derainer(pixels)
    assert restored.dtype == np.uint8
    assert restored.shape == pixels.shape
    assert not np.array_equal(restored, pixels)

    assert np.array_equal(np.asarray(derainer(Image.fromarray(pixels))), restored)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    assert np.array_equal((derainer(tensor) * 255).round().byte().permute(1, 2, 0).numpy(), restored)
    batch = derainer(torch.stack([tensor, tensor.flip(-1)]))
    assert torch.equal(batch[0], derainer(tensor))
    floats = derainer(pixels.astype(np.float64) / 255)
    assert floats.dtype == np.float64
    np.testing.assert_allclose(floats, derainer(tensor).permute(1, 2, 0), atol=1e-6)
    deep = derainer(pixels.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - restored).max() <= 0.51

    write_picture(tmp_path / "a.png", Picture(pixels))
    written = derainer(tmp_path / "a.png")
    assert written == tmp_path / "a-derained.png"
    assert np.array_equal(read_picture(written).pixels, restored)


def test_grey_and_alpha(derainer: Derainer, pixels: np.ndarray) -> None:
    grey = derainer(pixels[..., 0])
    assert grey.shape == pixels.shape[:2]
    rgba = Image.fromarray(np.dstack([pixels, pixels[..., 0]]), "RGBA")
    restored = derainer(rgba)
    assert restored.mode == "RGBA"
    assert np.array_equal(np.asarray(restored)[..., 3], pixels[..., 0])
    assert derainer(Image.fromarray(pixels[..., 0])).mode == "L"


@pytest.mark.parametrize(
    "wrong",
    [
        42,
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.full((4, 4, 3), np.nan, np.float32),
        torch.zeros(4, 4, 4),
        torch.zeros(3, 4, 4, dtype=torch.int32),
        Image.new("CMYK", (4, 4)),
    ],
    ids=["number", "two channels", "empty", "int64", "nan", "four channels", "integers", "cmyk"],
)
def test_wrong_pictures_are_refused(derainer: Derainer, wrong: Any) -> None:
    with pytest.raises(DerainError):
        derainer(wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"device": "tpu"}, {"precision": "int8"}, {"tile": -1}, {"overlap": -2}, {"tile": 32, "overlap": 32}],
    ids=str,
)
def test_wrong_settings_are_refused(weights: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        derain.load(weights, **wrong)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown model 'rainless'"):
        derain.load("rainless")


def test_ensemble_is_the_mean_over_flips_and_turns(derainer: Derainer) -> None:
    rainy = torch.rand(1, 3, 20, 33)
    plain = [
        torch.rot90(derainer.network(torch.rot90(x, k, (2, 3))), -k, (2, 3)).detach()
        for x in (rainy, rainy.flip(3))
        for k in range(4)
    ]
    plain = [x if i < 4 else x.flip(3) for i, x in enumerate(plain)]
    wanted = torch.stack(plain).mean(0).clamp(0, 1)
    both = derainer.with_settings(ensemble=True).restore(rainy, with_maps=True)
    torch.testing.assert_close(both.image, wanted, rtol=0, atol=1e-5)
    assert both.maps["mask"].shape == (1, 1, 20, 33)


def test_half_precision_is_close(derainer: Derainer, pixels: np.ndarray) -> None:
    half = derainer.with_settings(precision="bf16")(pixels).astype(float)
    assert np.abs(half - derainer(pixels)).mean() < 3


def test_the_largest_tile_that_fits() -> None:
    network = create_network("spanet", width=8)
    assert fitting_tile(network, 300, 300, 1 << 30) is None
    limit = 30_000_000
    side = fitting_tile(network, 9000, 9000, limit)
    assert side is not None
    assert network.working_bytes(side, side) <= limit < network.working_bytes(side + 64, side + 64)


STARVED = """
import resource, sys, torch, derain
d = derain.load(sys.argv[1], tile=0, overlap=200)
rainy = torch.rand(1, 3, 700, 700)
d.restore(rainy[..., :64, :64])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20), resource.RLIM_INFINITY))
tiled = d.restore(rainy)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
whole = d.restore(rainy)
assert not whole.note
assert (tiled.image - whole.image).abs().max() < 0.05, (tiled.image - whole.image).abs().max()
print(tiled.note)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory the Linux way")
def test_halves_the_tile_when_memory_runs_out(weights: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    result = subprocess.run(
        [sys.executable, "-c", STARVED, str(weights)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "memory ran out, went on with tiles of" in result.stdout
