"""The gallery: its page, its pictures and the script that makes both belong together."""

from __future__ import annotations

import re

import numpy as np

from derain.pictures import read_picture, to_rgb8
from docs.script import script

GALLERY = script("gallery")
PAGE = GALLERY.PAGE.read_text("utf-8")


def test_the_page_shows_every_kind_of_rain_and_nothing_else() -> None:
    """After new weights: python scripts/gallery.py"""
    shown = re.findall(r"pictures/(gallery-\w+\.jpg)", PAGE)
    assert shown == [f"gallery-{show.name}.jpg" for show in GALLERY.SHOWS]
    assert {path.name for path in GALLERY.PICTURES.glob("gallery-*")} == set(shown)
    width, height = GALLERY.CELL
    for name in shown:
        picture = read_picture(GALLERY.PICTURES / name)
        assert picture.size == (height, 3 * width + 2 * GALLERY.GAP)
    assert len(re.findall(r"\d+\.\d dB", PAGE)) == 2 * len(shown) - 1


def test_the_pictures_are_of_the_rain_that_the_script_makes() -> None:
    """The left third against the right one, within what JPEG changes: it rains where the script lets it."""
    width = GALLERY.CELL[0]
    for show in GALLERY.SHOWS:
        sheet = to_rgb8(read_picture(GALLERY.PICTURES / f"gallery-{show.name}.jpg")).astype(float)
        rainy, clean = sheet[:, :width], sheet[:, -width:]
        made = [p.astype(float) for p in GALLERY.pair(show, clean.astype(np.uint8))]
        if show.rain is None:
            assert np.abs(rainy - clean).mean() < 8
        else:
            again, asked = made[0] - made[1], rainy - clean
            assert np.corrcoef(again.ravel(), asked.ravel())[0, 1] > 0.5


def test_the_words_follow_from_the_figures() -> None:
    clean = np.full((48, 64, 3), 100, np.uint8)
    rainy = clean + np.uint8(20)
    assert GALLERY.verdict(rainy, clean + np.uint8(2), clean).startswith("**Mostly gone** (99 %)")
    assert GALLERY.verdict(rainy, rainy + np.uint8(5), clean).startswith("**Not removed** (-56 %)")
    assert "inf dB of itself" in GALLERY.verdict(clean, clean, clean)
