"""Large pictures, restored from what is found in a reduced copy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import derain
from derain.checkpoints import open_checkpoint
from derain.checkpoints.bundled import find_model
from derain.methods.network import RainNetwork, Spec
from derain.pictures import Picture, read_picture, write_picture
from derain.restore import Derainer, Settings
from derain.restore.reduced import WORTHWHILE, enlarged_rows, reduced, reduced_size


def pictures(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(7))


def as_array(picture: Tensor) -> np.ndarray:
    return np.ascontiguousarray(picture.permute(1, 2, 0).numpy())


class TakesATenth(RainNetwork):
    """Takes a tenth off everywhere, and notes the sizes that it is given."""

    spec = Spec(multiple_of=4, receptive_field=0, working_side=40, maps=("mask",))

    def __init__(self) -> None:
        super().__init__()
        self.change = torch.nn.Parameter(torch.tensor(0.1))
        self.seen: list[tuple[int, ...]] = []

    def __deepcopy__(self, memo: dict[int, object]) -> TakesATenth:
        return self

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        if not rainy.is_meta:  # as where memory is counted
            self.seen.append(tuple(rainy.shape[2:]))
        return {"image": rainy - self.change, "mask": torch.full_like(rainy[:, :1], 0.5)}


def restored_by(network: RainNetwork, rainy: Tensor, **settings: object) -> Tensor:
    return Derainer(network, Settings(device="cpu", **settings)).restore(rainy).image  # type: ignore[arg-type]


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 1000))
def test_the_shorter_side_is_the_working_side(height: int, width: int, side: int) -> None:
    size = reduced_size(height, width, side)
    assert (size is None) == (min(height, width) <= WORTHWHILE * side)
    if size is not None:
        assert min(size) == side
        assert size[0] / size[1] == pytest.approx(height / width, rel=0.5 / side)


def test_a_network_without_a_working_side_takes_all_sizes() -> None:
    assert reduced_size(9000, 9000, None) is None


@given(st.integers(20, 700), st.integers(20, 90), st.floats(0.1, 0.9))
def test_a_copy_is_made_of_means_over_areas(height: int, width: int, share: float) -> None:
    large = pictures(height, width)
    size = max(1, int(height * share)), max(1, int(width * share))
    small = reduced(lambda first, end: large[:, :, first:end], height, size)
    known = cv2.resize(as_array(large[0]), size[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(as_array(small[0]), known, atol=1e-5)


@given(st.integers(2, 60), st.integers(2, 60), st.integers(60, 300), st.integers(60, 300), st.data())
def test_rows_of_the_enlarged_picture(h: int, w: int, height: int, width: int, data: st.DataObject) -> None:
    small = pictures(h, w, batch=2)
    top = data.draw(st.integers(0, height - 1))
    bottom = data.draw(st.integers(top + 1, height))
    rows = enlarged_rows(small, height, width, top, bottom)
    assert rows.shape == (2, 3, bottom - top, width)
    for one, found in zip(small, rows, strict=True):
        known = cv2.resize(as_array(one), (width, height), interpolation=cv2.INTER_CUBIC)
        np.testing.assert_allclose(as_array(found), known[top:bottom], atol=2e-4)


def test_the_network_sees_a_copy_and_the_picture_keeps_its_detail() -> None:
    network, rainy = TakesATenth(), 0.2 + 0.7 * pictures(300, 420, batch=2)
    image = restored_by(network, rainy)
    assert set(network.seen) == {(40, 56)}
    torch.testing.assert_close(image, rainy - 0.1, atol=1e-5, rtol=0)


def test_pictures_up_to_the_working_size_are_seen_as_they_are() -> None:
    network = TakesATenth()
    restored_by(network, pictures(48, 52))
    restored_by(network, pictures(300, 420), full_size=True)
    assert network.seen == [(48, 52), (300, 420)]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.5])
def test_strength(strength: float) -> None:
    rainy = 0.3 + 0.6 * pictures(300, 420)
    image = restored_by(TakesATenth(), rainy, strength=strength)
    torch.testing.assert_close(image, rainy - 0.1 * strength, atol=1e-5, rtol=0)


def test_phases_are_reduced_already() -> None:
    network = TakesATenth()
    restored_by(network, pictures(300, 420), phases=True)
    assert set(network.seen) == {(152, 212)}


@pytest.mark.parametrize("settings", [{"tile": 24, "overlap": 8}, {"ensemble": "turns"}])
def test_tiles_and_averages_are_those_of_the_copy(settings: dict[str, object]) -> None:
    network, rainy = TakesATenth(), 0.2 + 0.7 * pictures(300, 420)
    image = restored_by(network, rainy, **settings)
    assert max(max(size) for size in network.seen) <= 56
    torch.testing.assert_close(image, rainy - 0.1, atol=1e-5, rtol=0)


def test_live_frames_are_set_up_once() -> None:
    derainer = Derainer(TakesATenth(), Settings(device="cpu", strength=0.5))
    assert derainer.frame_restorer(8)(pictures(48, 52)).mean() < pictures(48, 52).mean() - 0.09


def test_maps_have_the_size_of_the_picture() -> None:
    found = Derainer(TakesATenth(), Settings(device="cpu")).restore(pictures(300, 421), with_maps=True)
    assert found.maps["mask"].shape == (1, 1, 300, 421)
    torch.testing.assert_close(found.maps["mask"], torch.full((1, 1, 300, 421), 0.5))


def test_a_picture_in_integers_is_restored_like_one_in_floats() -> None:
    pixels = np.random.default_rng(5).integers(9000, 65000, (301, 420, 3), np.uint16)
    derainer = Derainer(TakesATenth(), Settings(device="cpu"))
    found = derainer.restore_picture(Picture(pixels)).picture.pixels
    assert np.abs(found.astype(int) - (pixels - 6553.5)).max() <= 1


def streaks(height: int, width: int, scale: int) -> np.ndarray:
    """Slanting streaks on grey, drawn for a picture `scale` times as large as those in training."""
    canvas = np.full((height, width, 3), 90, np.uint8)
    rng = np.random.default_rng(3)
    for _ in range(150):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        end = x + 9 * scale, y + 45 * scale
        cv2.line(canvas, (x, y), end, (190, 190, 190), 2 * scale, cv2.LINE_AA)
    return canvas


def test_wide_streaks_of_a_large_picture_go() -> None:
    rainy = streaks(2400, 3200, 5)
    left = {
        full_size: np.abs(derain.load(device="cpu", full_size=full_size)(rainy).astype(int) - 90).mean()
        for full_size in (False, True)
    }
    was = np.abs(rainy.astype(int) - 90).mean()
    assert left[False] < 0.3 * was
    assert left[False] < 0.5 * left[True]


def test_an_exported_file_sees_the_same_copy(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from derain.export.files import export

    source, target = tmp_path / "a.png", tmp_path / "small.onnx"
    write_picture(source, Picture(streaks(1000, 1400, 2)))
    export(open_checkpoint(find_model("everyday-small")), "onnx", target)
    results = [
        read_picture(
            derain.load(model, device="cpu", precision="float32")(source, tmp_path / f"{number}.png")
        )
        for number, model in enumerate(("everyday-small", target))
    ]
    first, second = (result.pixels.astype(int) for result in results)
    assert np.abs(first - second).max() <= 1
    assert np.abs(first - streaks(1000, 1400, 2)).mean() > 1
