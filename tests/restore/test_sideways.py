"""Pictures that lie on their side."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import derain
from command_line import derain_here
from derain.data.synthesis.presets import FINE
from derain.data.synthesis.streaks import streak_layer
from derain.evaluation.similarity import psnr
from derain.pictures import Picture, read_picture, to_tensor
from derain.restore.sideways import MAX_TRIED_SIDE, MIN_TRIED_SIDE, NOTE, ON_ITS_SIDE, middle_of
from derain.restore.test_time import turned, turned_back

Pixels = NDArray[np.uint8]


def scene(height: int = 240, width: int = 320) -> Pixels:
    """Soft colours, (height, width, 3)."""
    small = np.random.default_rng(3).uniform(40, 150, (height // 20, width // 20, 3)).astype(np.float32)
    return np.asarray(
        cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255), np.uint8
    )


def rainy_scene() -> Pixels:
    rain = streak_layer(np.random.default_rng(1), 240, 320, FINE)
    return np.asarray((scene() + 255 * rain[..., None]).clip(0, 255), np.uint8)


def on_its_side(picture: Pixels) -> Pixels:
    return np.ascontiguousarray(np.rot90(picture))


def upright(picture: Pixels) -> Pixels:
    return np.ascontiguousarray(np.rot90(picture, -1))


@pytest.fixture(scope="module")
def restore() -> derain.Derainer:
    return derain.load(device="cpu", precision="float32")


def test_a_picture_on_its_side_is_restored_as_if_it_stood(restore: derain.Derainer) -> None:
    rainy = rainy_scene()
    result = upright(restore(on_its_side(rainy)))
    np.testing.assert_array_equal(result, restore(rainy))
    rain = restore.rain(on_its_side(rainy))
    assert rain == restore.rain(rainy)
    assert rain.is_raining


def test_so_is_a_file_with_its_maps(restore: derain.Derainer, tmp_path: Path) -> None:
    source, target = tmp_path / "side.png", tmp_path / "result.png"
    cv2.imwrite(str(source), on_its_side(rainy_scene())[..., ::-1])
    done = derain_here("run", str(source), "-o", str(target), "--maps", "--json", "--precision", "float32")
    assert done.returncode == 0
    result = cv2.imread(str(target))[..., ::-1]
    np.testing.assert_array_equal(upright(np.ascontiguousarray(result)), restore(rainy_scene()))
    assert NOTE in json.loads(done.stdout)["pictures"][0]["note"]
    found = restore.restore_picture(read_picture(source), with_maps=True)
    assert all(values.size == found.picture.size for values in found.maps.values())


def test_transparency_stays_where_it_is(restore: derain.Derainer) -> None:
    pixels = on_its_side(rainy_scene())
    alpha = np.random.default_rng(5).integers(0, 256, pixels.shape[:2], np.uint8)
    found = restore.restore_picture(Picture(pixels, alpha))
    assert NOTE in found.note
    np.testing.assert_array_equal(found.picture.alpha, alpha)
    np.testing.assert_array_equal(found.picture.pixels, restore(pixels))


def test_only_the_pictures_of_a_batch_that_need_it(restore: derain.Derainer) -> None:
    square = [rainy_scene()[:, :240], on_its_side(rainy_scene()[:, :240]), scene()[:, :240]]
    rainy = torch.stack([torch.from_numpy(np.ascontiguousarray(each)) for each in square])
    found = restore.restore(rainy.permute(0, 3, 1, 2).float() / 255)
    assert found.sideways == (1,)
    torch.testing.assert_close(turned(found.image[1:2], ON_ITS_SIDE), found.image[:1], rtol=0, atol=1e-4)
    frames = restore.restore(rainy.permute(0, 3, 1, 2).float() / 255, one_pass=True)
    assert frames.sideways == ()
    torch.testing.assert_close(frames.image[::2], found.image[::2], rtol=0, atol=0)


def test_what_is_protected_stays_where_it_is(restore: derain.Derainer) -> None:
    rainy = on_its_side(rainy_scene())
    mask = np.zeros(rainy.shape[:2], np.uint8)
    mask[:80, :100] = 255
    result = restore(rainy, protect=mask)
    np.testing.assert_array_equal(result[:80, :100], rainy[:80, :100])
    assert psnr(result[140:], restore(rainy)[140:]) > 60


def test_lines_across_a_dry_picture_stay(restore: derain.Derainer, tmp_path: Path) -> None:
    blinds = scene()
    blinds[20:200:16, 40:160] = 220
    cv2.imwrite(str(tmp_path / "dry.png"), blinds[..., ::-1])
    picture = read_picture(tmp_path / "dry.png")
    found = restore.restore(to_tensor(picture), bits=8)
    assert found.sideways == ()
    assert NOTE not in restore.restore_picture(picture).note


def test_a_large_picture_is_tried_in_its_reduced_copy() -> None:
    rain = streak_layer(np.random.default_rng(1), 720, 960, FINE)
    small = (scene(720, 960) + 255 * rain[..., None]).clip(0, 255).astype(np.uint8)
    rainy = np.asarray(cv2.resize(small, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
    restore = derain.load(device="cpu")
    result, wanted = upright(restore(on_its_side(rainy))), restore(rainy)
    assert np.abs(result.astype(int) - wanted).max() <= 2
    assert np.abs(result.astype(int) - rainy).mean() > 1


def test_the_middle_of_a_picture() -> None:
    assert middle_of(100, 800) == (slice(0, 100), slice(200, 600))
    expected = slice(22, 22 + MIN_TRIED_SIDE), slice(1244, 1244 + MAX_TRIED_SIDE)
    assert middle_of(300, 3000) == expected
    picture = torch.rand(2, 3, 5, 7)
    assert turned(picture, ON_ITS_SIDE).shape == (2, 3, 7, 5)
    torch.testing.assert_close(
        turned_back(turned(picture, ON_ITS_SIDE), ON_ITS_SIDE), picture, rtol=0, atol=0
    )
