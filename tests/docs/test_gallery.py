"""The gallery: its page, its pictures and the script that makes both belong together."""

from __future__ import annotations

import re

import numpy as np

import derain
from derain.checkpoints.cards import card_of
from derain.pictures import read_picture
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
    card = card_of(derain.load().checkpoint.path)
    assert f"({card.title.replace('`', '')})" in PAGE


def test_every_show_can_be_made_again() -> None:
    """Its rain falls on the scene, and nothing else changes the size; what is dry stays as it is."""
    height, width = GALLERY.CELL[::-1]
    scene = np.random.default_rng(0).integers(20, 160, (height, width, 3), np.uint8)
    for show in GALLERY.SHOWS:
        rainy, clean = GALLERY.pair(show, scene)
        assert rainy.shape == clean.shape == scene.shape
        assert np.array_equal(rainy, clean) == (show.rain is None)


def test_the_words_follow_from_the_figures() -> None:
    clean = np.full((48, 64, 3), 100, np.uint8)
    rainy = clean + np.uint8(20)
    assert GALLERY.verdict(rainy, clean + np.uint8(2), clean).startswith("**Mostly gone** (99 %)")
    assert GALLERY.verdict(rainy, rainy + np.uint8(5), clean).startswith("**Not removed** (-56 %)")
    assert "inf dB between input and result" in GALLERY.verdict(clean, clean, clean)
