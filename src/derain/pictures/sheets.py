"""Before and after, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from derain.pictures.picture import Array

GAP = 12
PAPER = (255, 255, 255)
INK = (40, 40, 40)
NARROWEST = 240  # pixels: least width of a column, for its caption


def side_by_side(before: Array, after: Array) -> Array:
    """Two (H, W, 3) uint8 RGB pictures of one size -> (H, 2 W + 12, 3), a white gap between them."""
    assert before.shape == after.shape, (before.shape, after.shape)
    gap = np.full((before.shape[0], GAP, 3), PAPER, np.uint8)
    return np.concatenate([before, gap, after], axis=1)


def comparison_sheet(pairs: Sequence[tuple[str, Array, Array]], width: int = 1600) -> Array:
    """Rows of before and after with captions, on white.

    Args:
        pairs: (title, before, after) with (H, W, 3) uint8 RGB; those wider than half the sheet are scaled
            down to it, smaller ones keep their size.
        width: the largest width of the sheet in pixels; it is narrower if all pictures are.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    assert pairs
    widest = max(before.shape[1] for _, before, _ in pairs)
    column = min((width - 3 * GAP) // 2, max(widest, NARROWEST))
    width = 2 * column + 3 * GAP
    letters = max(12, width // 80)
    font = ImageFont.load_default(letters)
    line = 2 * letters
    sizes = [_fitting(before, column) for _, before, _ in pairs]
    height = GAP + sum(size[1] for size in sizes) + len(pairs) * (line + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for (title, before, after), fitting in zip(pairs, sizes, strict=True):
        title = _shortened(title, font, column - font.getlength(": before"))
        cells = ((GAP, f"{title}: before", before), (2 * GAP + column, "after", after))
        for left, caption, array in cells:
            draw.text((left, top + line // 2), caption, INK, font, anchor="lm")
            scaled = Image.fromarray(array).resize(fitting, Image.Resampling.LANCZOS)
            sheet.paste(scaled, (left, top + line))
        top += line + fitting[1] + GAP
    return np.array(sheet)


def _fitting(array: Array, column: int) -> tuple[int, int]:
    """(width, height) of a picture (H, W, 3) in a column of a given width in pixels."""
    height, width = array.shape[:2]
    scale = min(1.0, column / width)
    return round(width * scale), max(1, round(height * scale))


def _shortened(title: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The end of a title that is wider than `width` pixels, as names differ more often there."""
    if font.getlength(title) <= width:
        return title
    while title and font.getlength("..." + title) > width:
        title = title[1:]
    return "..." + title


def labelled_grid(rows: Sequence[Sequence[tuple[str, Array]]]) -> Array:
    """Rows of pictures with captions, on white, at their own size.

    Args:
        rows: (caption, (H, W, 3) uint8 RGB); the pictures are about equal in size.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    cells = [cell for row in rows for cell in row]
    assert cells
    wide = max(array.shape[1] for _, array in cells)
    font = ImageFont.load_default(max(12, wide // 20))
    line = 2 * max(12, wide // 20)
    tall = line + max(array.shape[0] for _, array in cells) + GAP
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (GAP + columns * (wide + GAP), GAP + len(rows) * tall), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        for column, (caption, array) in enumerate(row):
            left, top = GAP + column * (wide + GAP), GAP + number * tall
            draw.text((left, top + line // 2), _shortened(caption, font, wide), INK, font, anchor="lm")
            sheet.paste(Image.fromarray(array), (left, top + line))
    return np.array(sheet)
