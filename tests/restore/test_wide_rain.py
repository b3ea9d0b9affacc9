"""Wide streaks, found in a copy of half the size of the result."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import derain
from command_line import derain_here
from derain.checkpoints import open_checkpoint
from derain.checkpoints.bundled import find_model
from derain.methods.network import RainNetwork, Spec
from derain.pictures import Picture, read_picture
from derain.restore import Derainer, Settings
from derain.restore.inference import Inference
from derain.restore.wide_rain import NOTE

Pixels = NDArray[np.uint8]
GROUND = 90


def rain(wide: int) -> Pixels:
    """Sixty streaks of 2 pixels, and so many of 5, on grey, (400, 560, 3)."""
    canvas = np.full((400, 560, 3), GROUND, np.uint8)
    rng = np.random.default_rng(3)
    for width in [2] * 60 + [5] * wide:
        x, y = int(rng.integers(560)), int(rng.integers(-20, 400))
        cv2.line(canvas, (x, y), (x + 3 * width // 2, y + 45 * width // 2), (190,) * 3, width, cv2.LINE_AA)
    return canvas


def tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def left(image: Tensor) -> float:
    """The mean distance from the ground, in levels."""
    return float((255 * image - GROUND).abs().mean())


@pytest.fixture(scope="module")
def restore() -> Derainer:
    return derain.load(device="cpu", precision="float32")


def test_wide_streaks_go(restore: Derainer) -> None:
    rainy = tensor(rain(wide=20))
    found = restore.restore(rainy)
    assert found.note == NOTE
    assert left(found.image) < 0.4 * left(restore.restore(rainy, one_pass=True).image)


def test_thin_streaks_go_at_once(restore: Derainer) -> None:
    rainy = tensor(rain(wide=0))
    found = restore.restore(rainy)
    assert found.note == ""
    torch.testing.assert_close(found.image, restore.restore(rainy, one_pass=True).image, rtol=0, atol=0)


def test_pictures_of_a_batch_are_judged_one_by_one(restore: Derainer) -> None:
    wide, thin = tensor(rain(wide=20)), tensor(rain(wide=0))
    both = restore.restore(torch.cat([thin, wide]), with_maps=True)
    for at, one in enumerate([thin, wide]):
        alone = restore.restore(one, with_maps=True)
        torch.testing.assert_close(both.image[at : at + 1], alone.image, rtol=0, atol=1e-5)
        torch.testing.assert_close(both.maps["mask"][at : at + 1], alone.maps["mask"], rtol=0, atol=1e-4)
    assert both.note == NOTE


def test_so_is_a_file_with_its_maps(restore: Derainer, tmp_path: Path) -> None:
    source, target = tmp_path / "wide.png", tmp_path / "result.png"
    cv2.imwrite(str(source), rain(wide=20))
    done = derain_here("run", str(source), "-o", str(target), "--maps", "--json", "--precision", "float32")
    assert done.returncode == 0
    assert NOTE in json.loads(done.stdout)["pictures"][0]["note"]
    result = 255 * restore.restore(tensor(rain(wide=20))).image[0].permute(1, 2, 0).numpy()
    # The second pass sees whole levels here.
    apart = np.abs(read_picture(target).pixels - result)
    assert apart.max() < 5
    assert apart.mean() < 0.5
    found = restore.restore_picture(read_picture(source), with_maps=True)
    expected = restore.restore(tensor(rain(wide=20)), with_maps=True).maps["mask"][0, 0].numpy()
    assert np.abs(found.maps["mask"].pixels[..., 0] / 255 - expected).mean() < 0.005


def test_protected_pixels_stay(restore: Derainer) -> None:
    pixels, keep = rain(wide=20), torch.zeros(1, 1, 400, 560)
    keep[..., :200, :] = 1
    found = restore.restore_picture(Picture(pixels), protect=keep)
    assert NOTE in found.note
    np.testing.assert_array_equal(found.picture.pixels[:200], pixels[:200])
    assert np.abs(found.picture.pixels[200:].astype(int) - GROUND).mean() < 5


def test_what_is_protected_is_not_left_rain(restore: Derainer) -> None:
    pixels, keep = rain(wide=0), torch.zeros(1, 1, 400, 560)
    keep[..., :280, :] = 1
    found = restore.restore_picture(Picture(pixels), protect=keep)
    assert NOTE not in found.note
    np.testing.assert_array_equal(found.picture.pixels[280:], restore(pixels)[280:])


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.25])
@pytest.mark.parametrize("wide", [0, 20])
def test_strength_is_that_of_the_whole_change(restore: Derainer, strength: float, wide: int) -> None:
    rainy = tensor(rain(wide))
    whole, part = restore.restore(rainy), restore.with_settings(strength=strength).restore(rainy)
    wanted = torch.lerp(rainy, whole.image, strength).clamp(0, 1)
    torch.testing.assert_close(part.image, wanted, rtol=0, atol=1e-6)
    pixels = restore.with_settings(strength=strength)(rain(wide))
    assert np.abs(pixels - 255 * wanted[0].permute(1, 2, 0).numpy()).max() <= 1
    assert part.note == whole.note


def test_a_picture_on_its_side_is_looked_at_again_too(restore: Derainer) -> None:
    pixels = rain(wide=20)
    found = restore.restore_picture(Picture(np.ascontiguousarray(np.rot90(pixels))))
    assert found.note.count(";") == 1
    wanted = restore.restore_picture(Picture(pixels))
    np.testing.assert_array_equal(np.rot90(found.picture.pixels, -1), wanted.picture.pixels)
    assert found.rain == wanted.rain
    assert restore.rain(np.ascontiguousarray(np.rot90(pixels))) == restore.rain(pixels)


@pytest.mark.parametrize("settings", [{"full_size": True}, {"phases": True}])
def test_it_is_left_out(restore: Derainer, settings: dict[str, object]) -> None:
    other = restore.with_settings(**settings)  # type: ignore[arg-type]
    assert NOTE not in other.restore(tensor(rain(wide=20))).note
    assert NOTE not in other.restore_picture(Picture(rain(wide=20))).note


def test_weights_without_a_threshold_leave_it_out(restore: Derainer) -> None:
    assert Derainer(restore.network, Settings(device="cpu")).restore(tensor(rain(wide=20))).note == ""


class Darkens(RainNetwork):
    """Takes a tenth off everywhere, and notes the sizes that it is given."""

    spec = Spec(multiple_of=4, receptive_field=0, working_side=160)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        if not rainy.is_meta:  # as where memory is counted
            self.seen.append(tuple(rainy.shape[2:]))
        return {"image": rainy - 0.1}


@pytest.mark.parametrize(
    ("size", "seen"), [((101, 130), (52, 68)), ((200, 240), (100, 120)), ((401, 600), (80, 120))]
)
def test_the_copy_has_half_the_size_that_the_network_sees(
    size: tuple[int, int], seen: tuple[int, int]
) -> None:
    network = Darkens()
    halved = Inference(network, Settings(), torch.device("cpu"), [(0, False)], halved=True)
    rainy = 0.2 + 0.7 * torch.rand(1, 3, *size)
    torch.testing.assert_close(halved.restore(rainy, torch.float32).image, rainy - 0.1, rtol=0, atol=1e-5)
    assert set(network.seen) == {seen}


def test_an_exported_file_finds_them_too(restore: Derainer, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from derain.export.files import export

    target = tmp_path / "everyday.onnx"
    export(open_checkpoint(find_model("everyday")), "onnx", target)
    first, second = (
        derainer.restore_picture(Picture(rain(wide=20))) for derainer in (restore, derain.load(target))
    )
    assert first.note == second.note == NOTE
    assert np.abs(first.picture.pixels.astype(int) - second.picture.pixels).max() <= 1
    assert second.rain is not None
    assert second.rain.is_raining
