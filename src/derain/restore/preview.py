"""A sheet of crops for choosing a model and a strength."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.pictures import Picture, labelled_grid, to_rgb8
from derain.restore.blending import blended_picture
from derain.restore.derainer import Derainer

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
SIDE = 320  # pixels: side of a crop


def strengths_of(restore: Derainer, picture: Picture, strengths: Iterable[float]) -> dict[float, Pixels]:
    """A network's results for a picture at several strengths, as RGB bytes; the network runs only once."""
    restored = restore.with_settings(strength=1.0).restore_picture(picture).picture
    return {
        strength: to_rgb8(blended_picture(picture, restored, strength, keep=None)) for strength in strengths
    }


def preview_sheet(picture: Picture, results: Mapping[str, Mapping[float, Pixels]], crops: int = 2) -> Pixels:
    """The rainy picture and all results, in crops of its own resolution.

    Args:
        picture: before.
        results: {model: {strength: RGB bytes of the same size}}.
        crops: how many to show at most; they are taken where the first results differ most from the picture.

    Returns:
        (H, W, 3) RGB: a row for each crop of each model, a column for each strength.
    """
    before = to_rgb8(picture)
    first = next(iter(results.values()))
    changed = np.abs(first[max(first)].astype(np.float32) - before).mean(2)
    rows = []
    for top, left in busiest(changed, SIDE, crops):
        part = np.s_[top : top + SIDE, left : left + SIDE]
        for name, by_strength in results.items():
            cells = [("before", before[part])]
            cells += [(f"{name}, {strength:g}", after[part]) for strength, after in by_strength.items()]
            rows.append(cells)
    return labelled_grid(rows)


def busiest(values: NDArray[np.float32], side: int, count: int) -> list[tuple[int, int]]:
    """(top, left) of up to `count` squares that do not overlap, in order of their sums, largest first."""
    height, width = values.shape
    tall, wide = min(side, height), min(side, width)
    sums = cv2.boxFilter(values, cv2.CV_32F, (wide, tall), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    sums = np.asarray(sums[: height - tall + 1, : width - wide + 1]).copy()
    found: list[tuple[int, int]] = []
    while len(found) < count and np.isfinite(sums).any():
        top, left = (int(place) for place in np.unravel_index(np.argmax(sums), sums.shape))
        found.append((top, left))
        sums[max(0, top - tall + 1) : top + tall, max(0, left - wide + 1) : left + wide] = -np.inf
    return found
