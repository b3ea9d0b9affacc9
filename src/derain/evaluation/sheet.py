"""A contact sheet: the best, the median and the worst picture with their truth and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from derain.evaluation.pairs import Array

BRIGHTEST = 48  # grey levels of error that the map shows as its brightest colour
TITLES = ("rainy", "restored", "clean", f"error, 0 to {BRIGHTEST} grey levels")
GAP, PAPER, INK, FAINT = 12, (255, 255, 255), (30, 30, 30), (110, 110, 110)


@dataclass(frozen=True)
class Row:
    """One picture of the sheet: caption, and (H, W, 3) uint8 RGB each."""

    caption: str
    rainy: Array
    restored: Array
    clean: Array


def contact_sheet(title: str, rows: Sequence[Row], width: int = 1920) -> Array:
    """Four columns (rainy, restored, clean, error map) and a row a picture, on white.

    Returns:
        (H, width, 3) uint8 RGB.
    """
    column = (width - 5 * GAP) // 4
    size = max(14, width // 100)
    line = round(1.7 * size)
    font, small = ImageFont.load_default(round(1.3 * size)), ImageFont.load_default(size)
    heights = [round(row.clean.shape[0] * column / row.clean.shape[1]) for row in rows]
    sheet = Image.new("RGB", (width, 4 * GAP + 2 * line + sum(heights) + len(rows) * (line + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, font)
    top = 2 * GAP + line
    lefts = [GAP + i * (column + GAP) for i in range(4)]
    for left, text in zip(lefts, TITLES, strict=True):
        draw.text((left, top), text, FAINT, small)
    _draw_scale(sheet, width - GAP - column // 3, top + size // 4, column // 3, size)
    top += line + GAP
    for row, height in zip(rows, heights, strict=True):
        draw.text((GAP, top), row.caption, INK, small)
        top += line
        pictures = (row.rainy, row.restored, row.clean, coloured(error_map(row.restored, row.clean)))
        for left, picture in zip(lefts, pictures, strict=True):
            scaled = Image.fromarray(picture).resize((column, height), Image.Resampling.LANCZOS)
            sheet.paste(scaled, (left, top))
        top += height + GAP
    return np.array(sheet)


def error_map(restored: Array, clean: Array) -> Array:
    """(H, W, 3) bytes twice -> (H, W) uint8: the largest absolute difference of the channels."""
    largest: Array = np.abs(restored.astype(np.int16) - clean).max(axis=2)
    return largest.astype(np.uint8)


def coloured(errors: Array) -> Array:
    """(H, W) grey levels of error -> (H, W, 3) uint8 RGB, from black over red to pale yellow."""
    scaled = np.clip(errors.astype(np.float32) * (255 / BRIGHTEST), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO)[..., ::-1])


def _draw_scale(sheet: Image.Image, left: int, top: int, width: int, height: int) -> None:
    ramp = np.tile(np.linspace(0, BRIGHTEST, width).astype(np.uint8), (height, 1))
    sheet.paste(Image.fromarray(coloured(ramp)), (left, top))
