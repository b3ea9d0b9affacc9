"""What an NVIDIA card computes is what the processor computes; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from command_line import derain_here
from derain.evaluation.similarity import psnr
from derain.methods import create_network, network_names
from derain.restore import load

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")
SAMPLE = Path(__file__).parents[2] / "samples" / "temple.jpg"
MODELS = ("everyday", "everyday-small", "spanet")


@pytest.fixture(autouse=True)
def _exact() -> None:
    """Convolutions in full float32, as on processors."""
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture
def pixels() -> np.ndarray:
    """A photograph of 320x256."""
    return cv2.resize(cv2.imread(str(SAMPLE)), (320, 256), interpolation=cv2.INTER_AREA)[..., ::-1].copy()


@pytest.mark.parametrize("name", network_names())
@pytest.mark.parametrize("form", ["plain", "fast"])
def test_every_network_gives_the_same_values(name: str, form: str) -> None:
    network = create_network(name).eval()
    rainy = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        here = getattr(network, form)(rainy)
        there = getattr(network.cuda(), form)(rainy.cuda())
    assert set(there) == set(here)
    # DRSformer takes the largest scores, and rounding may order two that are nearly equal the other way.
    tolerance = 1e-2 if name.startswith("drsformer") else 1e-4
    torch.testing.assert_close(there["image"].cpu(), here["image"], rtol=1e-3, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_bundled_weights_give_the_same_picture(name: str, pixels: np.ndarray) -> None:
    here = load(name, device="cpu", precision="float32")(pixels)
    there = load(name, device="cuda", precision="float32")(pixels)
    assert np.abs(there.astype(int) - here).max() <= 1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_within_45_db(name: str, precision: str, pixels: np.ndarray) -> None:
    exact = load(name, device="cuda", precision="float32")(pixels)
    half = load(name, device="cuda", precision=precision)(pixels)
    assert psnr(half, exact) > 45


def test_tiles_are_those_of_the_processor(pixels: np.ndarray) -> None:
    here, there = (
        load("everyday", device=device, precision="float32", tile=128) for device in ("cpu", "cuda")
    )
    assert np.abs(there(pixels).astype(int) - here(pixels)).max() <= 1


def test_the_command_restores_on_the_card(tmp_path: Path) -> None:
    done = derain_here("run", SAMPLE, "-o", tmp_path, "--device", "cuda")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("temple*"))
