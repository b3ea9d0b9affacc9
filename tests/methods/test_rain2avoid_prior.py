"""The prior, the sampling and the streak light, against plain formulations and on odd pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain.errors import DerainError
from derain.methods.rain2avoid import ldgp, sampling, streaks, turning
from derain.methods.rain2avoid.pseudo_truth import UNIFORM, sample_pseudo_truths


def rainy_picture(height: int, width: int, theta: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth clean picture, and the same with bright streaks that lean by theta degrees."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    clean = np.stack([110 + 40 * np.sin(x / 37 + c) + 30 * np.cos(y / 29 - c) for c in range(3)], -1)
    light = np.zeros((height, width))
    lean = np.tan(np.radians(theta))
    for _ in range(height * width // 900):
        top, left = random.integers(-20, height), random.integers(-20, width + 20)
        rows = np.arange(max(top, 0), min(top + 30, height))
        columns = np.rint(left + (rows - top) * lean).astype(int)
        for wide in (0, 1):
            inside = (columns + wide >= 0) & (columns + wide < width)
            light[rows[inside], columns[inside] + wide] = 50
    rainy = np.clip(np.rint(clean + light[..., None]), 0, 255).astype(np.uint8)
    return rainy, np.rint(clean).astype(np.uint8)


@pytest.mark.parametrize("theta", [-30, 0, 20, 45])
def test_the_direction_of_made_rain_is_found(theta: int) -> None:
    rainy, clean = rainy_picture(200, 260, theta)
    rain = streaks.find_rain(rainy)
    assert abs(rain.theta + theta) <= 3  # streaks that lean right are turned clockwise
    assert rain.light > 5 * streaks.find_rain(clean).light


def test_the_combined_reference_is_nearer_to_the_clean_picture_and_never_brighter() -> None:
    rainy, clean = rainy_picture(160, 200, 15)
    theta = streaks.find_rain(rainy).theta
    reference = streaks.combined_reference(rainy, theta, streaks.rain_map_at(rainy, theta))
    error = np.square(reference - clean).mean()
    assert error < 0.35 * np.square(rainy.astype(float) - clean).mean()
    assert (reference <= rainy).all()
    assert (reference >= 0).all()


def test_a_flat_picture_holds_no_rain() -> None:
    flat = np.full((100, 120, 3), 77, np.uint8)
    assert not ldgp.rain_prior(flat).map.any()
    rain = streaks.find_rain(flat)
    assert rain.light == 0
    np.testing.assert_array_equal(
        streaks.combined_reference(flat, rain.theta, np.zeros((100, 120), np.uint8)), flat
    )


@pytest.mark.parametrize("size", [(32, 32), (33, 100), (64, 64), (79, 81), (321, 90)])
def test_any_size_from_32_pixels_on_has_a_map(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (*size, 3), np.uint8)
    for rule in (ldgp.JOURNAL, ldgp.FIRST_PAPER):
        assert ldgp.rain_prior(picture, rule).map.shape == size


def test_a_picture_below_32_pixels_is_refused_with_its_size() -> None:
    with pytest.raises(DerainError, match="100x31"):
        ldgp.rain_prior(np.zeros((31, 100, 3), np.uint8))


@given(st.integers(0, 2**32 - 1), st.integers(2, 14))
@settings(max_examples=30)
def test_opening_equals_its_definition(seed: int, rows: int) -> None:
    mask = (np.random.default_rng(seed).random((40, 6)) < 0.85).astype(np.uint8) * 255
    above, below = rows // 2, rows - 1 - rows // 2

    def window(values: np.ndarray, y: int) -> np.ndarray:
        return values[max(y - above, 0) : y + below + 1]

    eroded = np.stack([window(mask, y).min(0) for y in range(40)])
    np.testing.assert_array_equal(
        ldgp.opening(mask, rows), np.stack([window(eroded, y).max(0) for y in range(40)])
    )


def test_a_long_run_comes_out_one_row_lower_and_short_ones_survive_at_the_edges() -> None:
    mask = np.zeros((60, 3), np.uint8)
    mask[20:30, 0] = mask[:5, 1] = mask[54:, 2] = 255
    opened = ldgp.opening(mask, 10)
    assert np.flatnonzero(opened[:, 0]).tolist() == list(range(21, 31))
    assert np.flatnonzero(opened[:, 1]).tolist() == list(range(6))
    assert np.flatnonzero(opened[:, 2]).tolist() == list(range(55, 60))


def test_the_threshold_compares_with_the_rounded_mean() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (30, 40), np.uint8)
    padded = np.pad(grey.astype(float), 2, "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    expected = grey > np.rint(windows.mean((2, 3)))
    np.testing.assert_array_equal(ldgp.brighter_than_surroundings(grey) > 0, expected)


@pytest.mark.parametrize("theta", [-85, -30, 5, 45, 90])
def test_turning_there_and_back_keeps_the_place(theta: int) -> None:
    y, x = np.mgrid[:90, :130]
    picture = (128 + 60 * np.sin(x / 15) + 50 * np.cos(y / 12)).astype(np.uint8)
    back = turning.turn_back(turning.turn(picture, theta), theta, 90, 130)
    assert np.abs(back[3:-3, 3:-3].astype(int) - picture[3:-3, 3:-3]).mean() < 6


# ---------------------------------------------------------------- sampling


def plain_differences(
    picture: np.ndarray, rain_map: np.ndarray, rule: sampling.Similarity
) -> list[list[int]]:
    """The definition, pixel by pixel."""
    height, width = rain_map.shape
    zero = np.zeros(3, int)

    def value(y: int, x: int) -> np.ndarray:
        return picture[y, x].astype(int) if 0 <= y < height and 0 <= x < width else zero

    def compared(y: int, x: int) -> bool:
        inside = 0 <= y < height and 0 <= x < width
        rain = inside and rain_map[y, x] > 0
        return rain if rule.compared == "rain" else not rain

    result = []
    for y, x in np.argwhere(rain_map > rule.threshold):
        radius = 1
        while not (
            rain_map[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1] == 0
        ).any():
            radius += 1
            if radius > max(height, width):
                break
        around = [(a, b) for a in range(-radius, radius + 1) for b in range(-radius, radius + 1)]
        row = []
        for dy, dx in sampling.OFFSETS:
            inside = 0 <= y + dy < height and 0 <= x + dx < width
            if not inside or rain_map[y + dy, x + dx] != 0:
                row.append(-1)
                continue
            row.append(
                sum(
                    int(np.abs(value(y + a, x + b) - value(y + dy + a, x + dx + b)).sum())
                    for a, b in around
                    if compared(y + a, x + b)
                )
            )
        result.append(row)
    return result


@pytest.mark.parametrize("compared", ["rain", "nonrain"])
def test_difference_maps_equal_the_definition(compared: str) -> None:
    random = np.random.default_rng(3)
    picture = random.integers(0, 256, (17, 15, 3), np.uint8)
    rain_map = np.where(random.random((17, 15)) < 0.6, random.integers(0, 256, (17, 15)), 0).astype(np.uint8)
    rain_map[4:13, 4:13] = 200
    rule = sampling.Similarity(compared)  # type: ignore[arg-type]
    (band,) = sampling.candidate_bands(picture, rain_map, rule)
    np.testing.assert_array_equal(band.differences, plain_differences(picture, rain_map, rule))


def test_bands_of_rows_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rainy, _ = rainy_picture(120, 100, 10)
    rain_map = ldgp.rain_prior(rainy).map
    whole = sampling.sample_references(rainy, rain_map)
    mean = sampling.mean_reference(rainy, rain_map)
    monkeypatch.setattr(sampling, "BAND_PIXELS", 1700)
    banded = sampling.sample_references(rainy, rain_map)
    np.testing.assert_array_equal(whole.choices, banded.choices)
    np.testing.assert_array_equal(mean, sampling.mean_reference(rainy, rain_map))


def test_the_mean_of_many_draws_tends_to_the_expected_reference() -> None:
    rainy, _ = rainy_picture(60, 70, 0)
    rain_map = ldgp.rain_prior(rainy).map
    many = sampling.sample_references(rainy, rain_map, draws=2000).fused()
    assert np.abs(many - sampling.mean_reference(rainy, rain_map)).max() < 6


def test_a_map_without_any_free_pixel_leaves_the_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    everywhere = np.full((40, 50), 255, np.uint8)
    for references in (
        sampling.sample_references(picture, everywhere, draws=3),
        sample_pseudo_truths(picture, everywhere, draws=3),
    ):
        np.testing.assert_array_equal(references.fused(), picture)
    np.testing.assert_array_equal(sampling.mean_reference(picture, everywhere), picture)


def test_a_map_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(DerainError, match=r"50x40.*60x40"):
        sampling.mean_reference(np.zeros((40, 60, 3), np.uint8), np.zeros((40, 50), np.uint8))


def test_a_pixel_without_candidates_ends_its_row_in_the_first_paper() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 30, 3), np.uint8)
    rain_map = np.zeros((9, 30), np.uint8)
    rain_map[:, 10:18] = 255  # columns 13 and 14 see no free pixel
    rain_map[:, 25] = 255
    kept = (sample_pseudo_truths(picture, rain_map, draws=20).choices == -1).all(1)
    band = next(iter(sampling.candidate_bands(picture, rain_map, UNIFORM)))
    assert set(band.columns[kept].tolist()) == {13, 14, 15, 16, 17, 25}
