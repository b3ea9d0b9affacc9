"""Training patches depend on seed and index alone, whatever reads them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from derain.data.folders import pictures_in
from derain.data.patches import (
    Cut,
    PairedPatches,
    Pictures,
    SyntheticPairs,
    picture_number,
    rain_of_layers,
    rain_of_preset,
    take,
)
from derain.data.synthesis.layers import ADDED
from derain.data.synthesis.weather import Weather
from derain.errors import DerainError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("clean", "rainy"):
        (tmp_path / name).mkdir()
        for number in range(5):
            small = rng.integers(0, 256, (7 + number, 9, 3)).astype(np.uint8)
            picture = cv2.resize(small, (72, 60 + number), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), picture)
    return tmp_path


def synthetic(folder: Path, rain: str = "mixed", seed: int = 3) -> SyntheticPairs:
    return SyntheticPairs(Pictures(pictures_in(folder / "clean")), rain_of_preset(rain), Cut(32), seed)


@pytest.mark.parametrize("workers", [0, 2])
def test_items_are_the_same_in_any_worker(folder: Path, workers: int) -> None:
    alone = synthetic(folder)
    loader = DataLoader(synthetic(folder), batch_size=4, sampler=range(12), num_workers=workers)
    for start, batch in zip(range(0, 12, 4), loader, strict=True):
        for offset in range(4):
            item = alone[start + offset]
            assert torch.equal(batch["rainy"][offset], item["rainy"])
            assert torch.equal(batch["clean"][offset], item["clean"])
            assert batch["name"][offset] == item["name"]


def test_items_do_not_depend_on_what_was_read_before(folder: Path) -> None:
    a, b = synthetic(folder), synthetic(folder)
    last = b[11]
    assert torch.equal([a[i] for i in range(12)][-1]["rainy"], last["rainy"])
    assert not torch.equal(synthetic(folder, seed=4)[11]["rainy"], last["rainy"])


def test_every_pass_takes_each_picture_once_in_a_new_order() -> None:
    passes = [[picture_number(0, i, 20) for i in range(k * 20, k * 20 + 20)] for k in range(3)]
    assert all(sorted(order) == list(range(20)) for order in passes)
    assert passes[0] != passes[1]


@pytest.mark.parametrize("crop", ["window", "resized"])
@pytest.mark.parametrize("turns", ["none", "mirror", "flips_and_rotations", "upright_twice_as_likely"])
def test_both_of_a_pair_are_cut_alike(folder: Path, crop: str, turns: str) -> None:
    clean = Pictures(pictures_in(folder / "clean"))
    pairs = PairedPatches(clean, clean, Cut(24, crop, turns, saturation=True))
    for i in range(10):
        assert torch.equal(pairs[i]["rainy"], pairs[i]["clean"])
        assert pairs[i]["clean"].shape == (3, 24, 24)


def test_turns_are_the_ones_that_were_asked_for() -> None:
    square = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, 2)
    seen = {
        turns: Counter(
            take(np.random.default_rng(i), Cut(2, turns=turns), square)[0][..., 0].tobytes()
            for i in range(900)
        )
        for turns in ("none", "mirror", "flips_and_rotations", "upright_twice_as_likely")
    }
    assert [
        len(seen[turns]) for turns in ("none", "mirror", "flips_and_rotations", "upright_twice_as_likely")
    ] == [1, 2, 8, 8]
    assert 150 < seen["upright_twice_as_likely"][square[..., 0].tobytes()] < 250  # two of nine
    assert 70 < seen["flips_and_rotations"][square[..., 0].tobytes()] < 160


def test_a_small_picture_is_mirrored_at_its_edges() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4, 1).repeat(3, 2)
    (patch,) = take(np.random.default_rng(0), Cut(6, turns="none"), picture)
    assert patch[..., 0].tolist() == np.pad(picture[..., 0], ((0, 3), (0, 2)), "symmetric").tolist()


def test_resized_crops_keep_most_of_the_picture() -> None:
    """A ramp from left to right: the width of a crop is the range that is left of it."""
    ramp = np.linspace(0, 255, 256).astype(np.uint8)[None, :, None].repeat(256, 0).repeat(3, 2)
    kept = [
        float(np.ptp(take(np.random.default_rng(i), Cut(64, "resized", "none"), ramp)[0])) for i in range(200)
    ]
    assert 0.75 * 255 < min(kept) < max(kept) <= 255
    assert 0.88 * 255 < np.mean(kept) < 0.97 * 255


def test_saturation_changes_colours_and_not_greys() -> None:
    colours = np.array([[[200, 50, 50], [90, 90, 90]]], np.uint8)
    cut = Cut(1, turns="none", saturation=True)
    reds = {tuple(take(np.random.default_rng(i), cut, colours[:, :1])[0][0, 0]) for i in range(60)}
    greys = {tuple(take(np.random.default_rng(i), cut, colours[:, 1:])[0][0, 0]) for i in range(60)}
    assert len(reds) > 10
    assert (200, 50, 50) in reds
    assert greys == {(90, 90, 90)}


def test_sizes_that_differ_are_named(folder: Path) -> None:
    cv2.imwrite(str(folder / "rainy" / "2.png"), np.zeros((50, 50, 3), np.uint8))
    rainy, clean = pictures_in(folder / "rainy"), pictures_in(folder / "clean")
    pairs = PairedPatches(Pictures(rainy), Pictures(clean), Cut(24))
    with pytest.raises(DerainError, match=r"2\.png .*sizes differ \(50x50 and 72x62\)"):
        [pairs[i] for i in range(10)]


def test_what_is_wrong_with_a_folder_is_named(folder: Path) -> None:
    with pytest.raises(DerainError, match="nowhere: no such folder"):
        pictures_in(folder / "nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(DerainError, match="empty: no pictures"):
        pictures_in(folder / "empty")
    (folder / "clean" / "3.png").write_bytes(b"no picture")
    with pytest.raises(DerainError, match=r"3\.png: "):
        Pictures(pictures_in(folder / "clean"))[3]


def test_layers_lie_over_clean_pictures(folder: Path, tmp_path: Path) -> None:
    """Streaks of a layer brighten the picture where they are, and nothing else differs from its twin."""
    (tmp_path / "layers").mkdir()
    layer = np.zeros((90, 120), np.uint8)
    layer[:, 30:40] = 255
    cv2.imwrite(str(tmp_path / "layers" / "a.png"), layer)
    layers = rain_of_layers(Pictures(pictures_in(tmp_path / "layers")))
    source = SyntheticPairs(Pictures(pictures_in(folder / "clean")), layers, Cut(48), seed=5)
    items = [source[i] for i in range(12)]
    assert all(torch.equal(item["rainy"], source[i]["rainy"]) for i, item in enumerate(items))
    added = torch.stack([item["rainy"] - item["clean"] for item in items])
    assert added.amax() > 0.2
    assert added.amin() > -0.2  # compression rings a little
    wet = (added.amax(1) > 0.1).float().mean()
    assert 0.01 < wet < 0.6


def test_added_layers_leave_the_picture_as_it_is_below_the_rain(tmp_path: Path) -> None:
    layer = np.zeros((200, 120), np.uint8)
    layer[:, ::12] = 90
    cv2.imwrite(str(tmp_path / "a.png"), layer)
    rain = rain_of_layers(Pictures([tmp_path / "a.png"]), ADDED)
    clean = np.random.default_rng(3).integers(0, 256, (48, 48, 3), np.uint8)
    for seed in range(20):
        rainy, dry = rain(np.random.default_rng(seed), clean)
        assert (dry == clean).all()
        added = rainy.astype(int) - clean
        assert added.min() >= 0
        below_white = (rainy < 255).all(2)
        assert (np.ptp(added, axis=2)[below_white] <= 1).all()
        assert 2 < added[below_white].mean() < 40


def test_rain_from_any_side_turns_the_pair_together(folder: Path) -> None:
    clean = Pictures(pictures_in(folder / "clean"))
    streaks = rain_of_preset("light")

    def slope(sideways: float) -> float:
        """How much more the rain changes across than along the fall of upright rain."""
        source = SyntheticPairs(clean, streaks, Cut(48, turns="none", sideways=sideways), seed=1)
        rain = torch.stack([source[i]["rainy"] - source[i]["clean"] for i in range(40)])
        return float(rain.diff(dim=-1).abs().mean() / rain.diff(dim=-2).abs().mean())

    assert slope(0.0) > 1.5
    assert 0.7 < slope(0.999) < 1.4


def test_rain_falls_at_the_angle_of_the_weather(folder: Path) -> None:
    clean = Pictures(pictures_in(folder / "clean"))

    def slope(angle: float) -> float:
        """How much more the rain changes from one falling diagonal to the next than along them."""
        rain = rain_of_preset("light", Weather(angle=(angle, angle)))
        source = SyntheticPairs(clean, rain, Cut(48, turns="none"), seed=1)
        layer = torch.stack([source[i]["rainy"] - source[i]["clean"] for i in range(20)])
        along = (layer[..., 1:, 1:] - layer[..., :-1, :-1]).abs().mean()
        return float((layer[..., 1:, :-1] - layer[..., :-1, 1:]).abs().mean() / along)

    assert slope(45) > 1.5
    assert 0.8 < slope(0) < 1.25
    assert slope(-45) < 1 / 1.5


def test_zoomed_pairs_stay_aligned_and_have_the_size_of_the_patch(folder: Path) -> None:
    pictures = Pictures(pictures_in(folder / "clean"))
    pairs = PairedPatches(pictures, pictures, Cut(32, zoom=(0.7, 3)), seed=2)
    for index in range(12):
        item = pairs[index]
        assert item["rainy"].shape == (3, 32, 32)
        assert torch.equal(item["rainy"], item["clean"])


def test_zoom_enlarges_rain_with_the_scene(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    ground = np.full((200, 200, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "clean" / "1.png"), ground)
    clean = Pictures(pictures_in(tmp_path / "clean"))

    def streak(_: np.random.Generator, patch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rainy = patch.copy()
        rainy[:, 4:6] = 190
        return rainy, patch

    def width(zoom: float) -> float:
        pairs = SyntheticPairs(clean, streak, Cut(64, turns="none", zoom=(zoom, zoom)), seed=1)
        change = pairs[0]["rainy"] - pairs[0]["clean"]
        return float(change[0].sum(1).mean() / (100 / 255))

    assert width(1) == pytest.approx(2)
    assert width(2) == pytest.approx(4, rel=0.05)
    assert width(0.5) == pytest.approx(1, rel=0.05)
