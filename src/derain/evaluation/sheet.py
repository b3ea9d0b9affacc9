"""A contact sheet: the best, the median and the worst picture, with their errors or with what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from derain.evaluation.levels import Array

BRIGHTEST = 48  # grey levels of difference that the map shows in its brightest colour
TITLES = ("rainy", "restored", "clean", f"error, 0 to {BRIGHTEST} grey levels")
TITLES_WITHOUT_TRUTH = ("rainy", "restored", f"change, 0 to {BRIGHTEST} grey levels")
GAP, PAPER, INK, FAINT = 12, (255, 255, 255), (30, 30, 30), (110, 110, 110)


@dataclass(frozen=True)
class Row:
    """One picture of the sheet: its caption, and its pictures (H, W, 3) uint8 RGB; `clean` if it is known."""

    caption: str
    rainy: Array
    restored: Array
    clean: Array | None

    @property
    def pictures(self) -> tuple[Array, ...]:
        """The columns: with the clean picture and the error, or with the change alone."""
        if self.clean is None:
            return self.rainy, self.restored, coloured(difference(self.restored, self.rainy))
        return self.rainy, self.restored, self.clean, coloured(difference(self.restored, self.clean))


def contact_sheet(title: str, rows: Sequence[Row], width: int = 1920) -> Array:
    """One row per picture, on white: rainy, restored, clean, error map; without clean ones, a map of changes.

    Args:
        title: the title of the sheet.
        rows: all with clean pictures, or all without.
        width: the width of the sheet in pixels.

    Returns:
        (H, width, 3) uint8 RGB.
    """
    titles = TITLES_WITHOUT_TRUTH if rows[0].clean is None else TITLES
    column = (width - GAP) // len(titles) - GAP
    size = max(14, width // 100)
    line = round(1.7 * size)
    font, small = ImageFont.load_default(round(1.3 * size)), ImageFont.load_default(size)
    heights = [round(row.rainy.shape[0] * column / row.rainy.shape[1]) for row in rows]
    sheet = Image.new("RGB", (width, 4 * GAP + 2 * line + sum(heights) + len(rows) * (line + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, font)
    top = 2 * GAP + line
    lefts = [GAP + i * (column + GAP) for i in range(len(titles))]
    for left, text in zip(lefts, titles, strict=True):
        draw.text((left, top), text, FAINT, small)
    _draw_scale(sheet, width - GAP - column // 3, top + size // 4, column // 3, size)
    top += line + GAP
    for row, height in zip(rows, heights, strict=True):
        draw.text((GAP, top), row.caption, INK, small)
        top += line
        for left, picture in zip(lefts, row.pictures, strict=True):
            scaled = Image.fromarray(picture).resize((column, height), Image.Resampling.LANCZOS)
            sheet.paste(scaled, (left, top))
        top += height + GAP
    return np.array(sheet)


def difference(restored: Array, other: Array) -> Array:
    """The largest absolute difference of the channels, (H, W) uint8, of two pictures (H, W, 3) of bytes."""
    largest: Array = np.abs(restored.astype(np.int16) - other).max(axis=2)
    return largest.astype(np.uint8)


def coloured(levels: Array) -> Array:
    """(H, W) grey levels of difference -> (H, W, 3) uint8 RGB, from black over red to pale yellow."""
    scaled = np.clip(levels.astype(np.float32) * (255 / BRIGHTEST), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO)[..., ::-1])


def _draw_scale(sheet: Image.Image, left: int, top: int, width: int, height: int) -> None:
    ramp = np.tile(np.linspace(0, BRIGHTEST, width).astype(np.uint8), (height, 1))
    sheet.paste(Image.fromarray(coloured(ramp)), (left, top))
