"""Rain is deterministic, enters from outside the picture and looks as its settings say."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain.data.synthesis import PRESETS, RainKind, make_pair, preset
from derain.data.synthesis.camera import CameraRanges
from derain.data.synthesis.drops import DropRanges, add_drops
from derain.data.synthesis.mixing import mix
from derain.data.synthesis.near import NearRanges, add_near_rain, near_cover
from derain.data.synthesis.pixels import normal, soften
from derain.data.synthesis.presets import FINE, SMEAR
from derain.data.synthesis.scene import SceneRanges, add_lines, add_stripes, expose, set_scene
from derain.data.synthesis.streaks import streak_layer, trapezoids
from derain.data.synthesis.veil import VeilRanges, add_veil
from derain.errors import UsageError


def scene(height: int = 120, width: int = 160) -> np.ndarray:
    """A smooth uint8 picture with colours, brighter to the right, darker to the bottom."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    picture = np.stack([x, 1 - y, 0.5 + 0.3 * np.sin(9 * x * y)], -1)
    return (np.clip(picture, 0, 1) * 200 + 20).astype(np.uint8)


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_a_function_of_its_seed(name: str) -> None:
    clean = scene()
    pairs = [make_pair(np.random.default_rng(seed), clean, preset(name)) for seed in (1, 1, 2)]
    assert all(picture.shape == clean.shape and picture.dtype == np.uint8 for picture in pairs[0])
    assert all(np.array_equal(a, b) for a, b in zip(pairs[0], pairs[1], strict=True))
    assert np.array_equal(clean, scene())
    if name == "dry":
        assert np.array_equal(*pairs[0])
    else:
        assert not np.array_equal(pairs[0][0], pairs[2][0])


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'heavy'"):
        preset("heavvy")


@pytest.mark.parametrize("name", ["light", "heavy", "ddn"])
def test_added_streaks_are_grey_and_only_brighten(name: str) -> None:
    clean = scene()
    for rain in preset(name):
        kinds = (replace(rain, mixing=("additive",)),)
        added = make_pair(np.random.default_rng(5), clean, kinds)[0].astype(int) - clean
        assert added.min() >= 0
        unclipped = (clean.astype(int) + added < 255).all(-1)
        assert np.ptp(added[unclipped], axis=-1).max() <= 1


def test_smeared_noise_is_a_brighter_ground_more_than_streaks() -> None:
    layers = [streak_layer(np.random.default_rng(i), 128, 128, SMEAR) for i in range(8)]
    assert all(layer.mean() > 1.5 * layer.std() for layer in layers)


@pytest.mark.parametrize("angle", [-40.0, -15.0, 0.0, 20.0, 50.0])
def test_streaks_fall_at_their_angle(angle: float) -> None:
    ranges = replace(FINE, angle=(angle, angle), spread=(0.0, 0.0), length=(30.0, 60.0), width=(5.0, 6.0))
    layer = streak_layer(np.random.default_rng(0), 200, 260, ranges)
    down, right = np.gradient(layer)
    # Along a sheared streak, one row down equals one slope to the right.
    slope = -(right * down).sum() / (right * right).sum()
    assert np.rad2deg(np.arctan(slope)) == pytest.approx(angle, abs=2)


def test_streaks_enter_from_every_side() -> None:
    ranges = replace(FINE, coverage=(0.6, 0.6), length=(40.0, 60.0), angle=(-30.0, 30.0))
    layers = np.stack([streak_layer(np.random.default_rng(i), 80, 80, ranges) for i in range(60)])
    middle = layers[:, 25:55, 25:55].mean()
    sides = [layers[:, :4], layers[:, -4:], layers[:, :, :4], layers[:, :, -4:]]
    assert all(abs(side.mean() / middle - 1) < 0.25 for side in sides)


def test_the_floor_leaves_dry_what_has_hardly_any_rain() -> None:
    low, cut = (
        streak_layer(np.random.default_rng(3), 128, 128, replace(FINE, floor=(floor, floor)))
        for floor in (0.0, 0.02)
    )
    assert np.array_equal(cut, np.maximum(low - np.float32(0.02), 0))
    assert (cut == 0).mean() > (low == 0).mean()


def test_more_coverage_and_brightness_mean_more_rain() -> None:
    def mean(**changes: tuple[float, float]) -> float:
        ranges = replace(FINE, **{"floor": (0.0, 0.0), **changes})
        return float(
            np.mean([streak_layer(np.random.default_rng(i), 128, 128, ranges).mean() for i in range(8)])
        )

    assert mean(coverage=(0.6, 0.6)) > 2 * mean(coverage=(0.2, 0.2))
    assert mean(brightness=(0.1, 0.1)) == pytest.approx(2 * mean(brightness=(0.05, 0.05)), rel=1e-4)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    name=st.sampled_from(sorted(PRESETS)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40)
def test_any_size_and_seed(height: int, width: int, name: str, seed: int) -> None:
    clean = np.full((height, width, 3), 100, np.uint8)
    pair = make_pair(np.random.default_rng(seed), clean, preset(name))
    assert [picture.shape for picture in pair] == [(height, width, 3)] * 2


@pytest.mark.parametrize("mixing", ["additive", "screen", "linear"])
def test_mixing_keeps_the_range_and_needs_rain(mixing: str) -> None:
    clean = scene().astype(np.float32) / 255
    layer = np.linspace(0, 3, clean.shape[1], dtype=np.float32)[None].repeat(clean.shape[0], 0)
    rainy = mix(clean, layer, mixing)
    assert np.allclose(rainy[:, 0], clean[:, 0], atol=1e-6)
    assert np.allclose(rainy[layer >= 1], 1, atol=1e-6)
    assert (rainy >= clean - 1e-6).all()
    assert rainy.max() <= 1 + 1e-6


def test_rain_in_linear_light_shows_on_dark_ground_most() -> None:
    grounds = np.array([[[0.1] * 3, [0.5] * 3, [0.9] * 3]], np.float32)
    added = (mix(grounds, np.full((1, 3), 0.1, np.float32), "linear") - grounds)[0, :, 0]
    assert added[0] > added[1] > added[2] > 0


def test_the_veil_is_denser_far_away() -> None:
    black = np.zeros((90, 60, 3), np.float32)
    veil = add_veil(np.random.default_rng(0), black, VeilRanges(near=(0.1, 0.1), far=(0.6, 0.6), patches=0.0))
    rows = veil.mean((1, 2))
    assert (np.diff(rows) < 0).all()
    assert rows[0] > 4 * rows[-1] > 0


def test_a_drop_shows_the_scene_upside_down() -> None:
    ramp = np.repeat(np.linspace(0, 1, 200, dtype=np.float32)[:, None, None], 200, 1).repeat(3, 2)
    ranges = DropRanges(density=(2.0, 2.0), radius=(20.0, 20.0), wobble=(0, 0), defocus=(0, 0), shade=(0, 0))
    wet = add_drops(np.random.default_rng(3), ramp, ranges)
    changed = np.abs(wet - ramp).max(-1) > 0.01
    assert 0.05 < changed.mean() < 0.9
    slope = np.diff(wet[..., 0], axis=0)
    assert (slope < -0.005).mean() > 0.02  # inside drops brightness falls downwards, outside it rises


def test_the_camera_leaves_its_marks() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    noisy, _ = make_pair(
        np.random.default_rng(0), grey, (RainKind(camera=CameraRanges((0.02, 0.02), (95, 95))),)
    )
    assert 1 < noisy.astype(float).std() < 8


def test_light_rain_is_as_strong_as_that_of_the_public_set() -> None:
    """The two public pairs measure 26.0 and 26.7 dB, the mean of that set's test half is near 27."""
    clean = scene(160, 160)
    errors = [
        make_pair(np.random.default_rng([0, i]), clean, PRESETS["light"])[0].astype(float) - clean
        for i in range(60)
    ]
    mean = np.mean([10 * np.log10(255**2 / (error**2).mean()) for error in errors])
    assert 25.5 < mean < 28.5


def near(kind: str, **changes: object) -> NearRanges:
    ranges = NearRanges(
        kind, count=(3, 3), length=(30, 30), blur=(1.5, 1.5), opacity=(0.4, 0.4), angle=(0, 0)
    )
    return replace(ranges, **changes)


@pytest.mark.parametrize("kind", ["lines", "ribbons", "bundles", "beads", "splashes", "spots"])
def test_near_rain_covers_a_part_and_more_of_it_more(kind: str) -> None:
    def cover(opacity: float) -> np.ndarray:
        ranges = near(kind, opacity=(opacity, opacity))
        return np.stack([near_cover(np.random.default_rng(i), 100, 120, ranges) for i in range(6)])

    faint, strong = cover(0.1), cover(0.8)
    assert faint.min() >= 0
    assert strong.max() <= 1
    assert strong.max() > 0.3
    assert (faint < 0.02).mean() > 0.3
    assert (strong >= faint - 1e-6).all()


def test_near_streaks_are_as_wide_as_their_blur_and_as_strong_as_said() -> None:
    # One mark of typical light, upright, in the middle of the picture.
    widths, peaks = [], []
    for seed in range(160):
        ranges = near("lines", count=(1e-9, 1e-9), blur=(3, 3), tail=0.0, length=(60, 60))
        cover = near_cover(np.random.default_rng(seed), 60, 60, ranges)
        row = cover[30]
        if 10 < row.argmax() < 50 and row.max() > 0.25:
            peaks.append(row.max())
            widths.append((row > row.max() / 2).sum())
    assert len(peaks) > 8
    assert np.median(peaks) == pytest.approx(1 - np.exp(-0.4), abs=0.05)
    assert np.median(widths) == pytest.approx(2.355 * 3, abs=1.5)


def test_rain_as_editors_draw_it_adds_the_same_light_on_any_ground_as_far_as_white() -> None:
    ranges = near("lines", adds=True, light=(0.6, 0.6), ambient=0.0)
    grounds = [np.full((60, 80, 3), level, np.float32) for level in (0.1, 0.3, 0.95)]
    added = [add_near_rain(np.random.default_rng(2), ground, ranges) - ground for ground in grounds]
    assert added[0].max() > 0.1
    np.testing.assert_allclose(added[0], added[1], atol=1e-6)
    np.testing.assert_allclose(added[2], np.minimum(added[0], 0.05), atol=1e-6)


def test_near_rain_is_never_brighter_than_its_light_nor_darkens_what_is_darker() -> None:
    dark = np.full((80, 80, 3), 0.1, np.float32)
    ranges = near("bundles", light=(0.6, 0.6), ambient=0.0)
    rainy = add_near_rain(np.random.default_rng(2), dark, ranges)
    assert (rainy >= dark - 1e-6).all()
    assert rainy.max() <= 0.6 + 0.07
    lit = add_near_rain(np.random.default_rng(2), dark, replace(ranges, ambient=1.0))
    assert lit.max() <= 0.1 * 1.3 + 0.08 + 0.07


@pytest.mark.parametrize("seed", range(8))
def test_stripes_of_a_scene_are_evenly_spaced(seed: int) -> None:
    grey = np.full((96, 160, 3), 0.4, np.float32)
    striped = add_stripes(np.random.default_rng(seed), grey)
    assert striped.shape == grey.shape
    assert 0 <= striped.min() < striped.max() <= 1
    # One direction and one spacing: few frequencies have nearly all the power, of noise they would have 0.2.
    power = np.sort(np.abs(np.fft.fft2(striped[..., 1] - striped[..., 1].mean())).ravel() ** 2)
    assert power[-power.size // 20 :].sum() > 0.8 * power.sum()


@pytest.mark.parametrize("seed", range(8))
def test_lines_of_a_scene_end_beyond_its_edges(seed: int) -> None:
    grey = np.full((96, 160, 3), 0.4, np.float32)
    lined = add_lines(np.random.default_rng(seed), grey)
    assert lined.shape == grey.shape
    assert 0 <= lined.min() <= lined.max() <= 1
    changed = (np.abs(lined - grey).max(2) > 0.01).astype(np.uint8)
    assert 0 < changed.mean() < 0.5
    count, parts = cv2.connectedComponents(changed)
    for part in range(1, count):
        rows, columns = np.nonzero(parts == part)
        ends = [rows.min() == 0, rows.max() == 95, columns.min() == 0, columns.max() == 159]
        assert sum(ends) >= 2 or len(rows) < 30  # what crosses only a corner is short


def test_a_scene_changes_both_pictures_of_a_pair_alike() -> None:
    ranges = SceneRanges(noise=(0.02, 0.02), compressed=0.0)
    clean = scene().astype(np.float32) / 255
    dull = set_scene(np.random.default_rng(4), clean, ranges)
    assert dull.mean() < clean.mean()
    rainy, dry = expose(np.random.default_rng(5), (dull, dull), ranges)
    assert np.array_equal(rainy, dry)
    assert 0 < np.abs(dry - dull).mean() < 0.03


def test_compression_is_the_same_where_no_rain_fell() -> None:
    ranges = SceneRanges(noise=(0.0, 0.0), compressed=1.0)
    dull = set_scene(np.random.default_rng(4), scene().astype(np.float32) / 255, ranges)
    wet = dull.copy()
    wet[:, 96:] = np.minimum(wet[:, 96:] + 0.3, 1)
    rainy, dry = expose(np.random.default_rng(5), (wet, dull), ranges)
    assert np.array_equal(rainy[:, :80], dry[:, :80])
    assert not np.array_equal(rainy[:, 96:], dry[:, 96:])


def test_glowing_drops_are_brighter() -> None:
    ranges = DropRanges(density=(3, 3), radius=(8, 12), shade=(0.0, 0.0))
    dark = np.full((90, 90, 3), 0.2, np.float32)
    plain = add_drops(np.random.default_rng(1), dark, ranges)
    glowing = add_drops(np.random.default_rng(1), dark, replace(ranges, glow=(0.3, 0.3)))
    assert plain.max() == pytest.approx(0.2, abs=1e-3)
    assert glowing.max() == pytest.approx(0.5, abs=0.02)


def test_trapezoids_are_drawn_as_their_corners_say() -> None:
    rng = np.random.default_rng(0)
    rows, columns, count = 30, 7, 200
    lengths = rng.uniform(3, 60, count)
    tops, ramps = rng.uniform(-70, rows + 5, count), lengths * rng.uniform(0.2, 0.5, count)
    heights, places = rng.uniform(0, 2, count), rng.integers(0, columns, count)
    drawn = trapezoids(tops, lengths, ramps, heights, places, rows, columns)
    row = np.arange(rows) + 1
    for column in range(columns):
        slow = np.zeros(rows)
        for number in np.flatnonzero(places == column):
            below, left = row - tops[number], tops[number] + lengths[number] - row
            rise = np.clip(np.minimum(below, left) / ramps[number], 0, 1)
            slow += heights[number] * rise
        np.testing.assert_allclose(drawn[column], slow, atol=1e-5)


def test_a_ribbon_is_as_wide_as_said_and_fades_towards_its_ends() -> None:
    widths, middles, ends = [], [], []
    for seed in range(40):
        ranges = near("ribbons", count=(1e-9, 1e-9), length=(80, 80), width=(10, 10), blur=(1, 1), tail=0.0)
        cover = near_cover(np.random.default_rng(seed), 400, 200, ranges)
        column = cover.sum(0).argmax()
        rows = np.flatnonzero(cover[:, column] > 0.02)
        if rows.size < 40 or rows[0] < 5 or rows[-1] > 394:
            continue  # cut by the edge
        middle = (rows[0] + rows[-1]) // 2
        widths.append((cover[middle] > cover[middle].max() / 2).sum())
        middles.append(cover[middle, column])
        ends.append(cover[rows[0] + 8, column])
    assert len(widths) > 5
    assert 8 <= np.median(widths) <= 13
    assert np.median(middles) > 1.3 * np.median(ends)


@pytest.mark.parametrize("border", [cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE])
@pytest.mark.parametrize("sigma", [2.5, 6.0, 11.9, 25.0])
def test_a_blur_done_on_a_reduced_picture_is_the_same_blur(sigma: float, border: int) -> None:
    picture = np.zeros((97, 131, 3), np.float32)
    picture[:, 70:] = 1
    cv2.line(picture, (0, 5), (90, 96), (1, 0.5, 0), 5)
    plain = cv2.GaussianBlur(picture, (0, 0), sigma, borderType=border)
    assert soften(picture, sigma, border) == pytest.approx(plain, abs=0.01)


def test_noise_is_normal() -> None:
    noise = normal(np.random.default_rng(0), (500, 800))
    assert noise.dtype == np.float32
    assert [noise.mean(), noise.std(), (noise**4).mean()] == pytest.approx([0, 1, 3], abs=0.05)
