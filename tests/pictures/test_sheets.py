"""Sheets of before and after."""

from __future__ import annotations

import numpy as np

from derain.pictures import comparison_sheet, side_by_side


def plain(height: int, width: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_side_by_side_keeps_every_pixel() -> None:
    generator = np.random.default_rng(0)
    before, after = generator.integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    sheet = side_by_side(before, after)
    assert np.array_equal(sheet[:, :40], before)
    assert np.array_equal(sheet[:, -40:], after)
    assert (sheet[:, 40:-40] == 255).all()


def test_a_sheet_has_a_row_for_each_pair_and_captions() -> None:
    red, blue = (200, 0, 0), (0, 0, 200)
    pairs = [("första.png", plain(450, 600, red), plain(450, 600, blue)) for _ in range(3)]
    sheet = comparison_sheet(pairs, width=636)
    assert sheet.shape[1:] == (636, 3)
    assert sheet.dtype == np.uint8
    assert (sheet == red).all(axis=2).sum() == 3 * 300 * 225
    assert (sheet == blue).all(axis=2).sum() == 3 * 300 * 225
    left, right = sheet[:, :318], sheet[:, 318:]
    assert (left == blue).all(axis=2).sum() == (right == red).all(axis=2).sum() == 0
    for half in (left, right):
        assert ((half < 100).all(axis=2)).any(), "no caption"


def test_small_pictures_stay_as_they_are_and_the_sheet_fits_them() -> None:
    red = plain(30, 40, (200, 0, 0))
    sheet = comparison_sheet([("a", red, red)])
    assert sheet.shape[1] == 2 * 240 + 36  # room for captions
    assert (sheet == (200, 0, 0)).all(axis=2).sum() == 2 * 30 * 40
    wide = plain(30, 400, (200, 0, 0))
    assert comparison_sheet([("a", red, red), ("b", wide, wide)]).shape[1] == 2 * 400 + 36


def test_a_long_title_stays_in_its_column() -> None:
    white = plain(30, 40, (255, 255, 255))
    short, long = (comparison_sheet([(title, white, white)], width=400) for title in ("a", "a" * 300))
    assert np.array_equal(short[:, 200:], long[:, 200:])
    assert not np.array_equal(short[:, :200], long[:, :200])
