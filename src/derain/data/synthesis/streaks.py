"""Synthetic rain streaks: thousands of drops, each smeared along its fall by the exposure.

Every drop has its own place, length and brightness, and is drawn upright as a trapezoid along one
column of a canvas: bright in the middle, fading towards both ends. A trapezoid is the double cumulative
sum of four impulses, so a sheet of any number of drops costs the same two passes over the canvas.
The sheet is then blurred across to the width of its streaks and sheared to the angle of the fall.
A layer is the sum of several sheets: near ones with long and wide streaks, far ones with short
and thin streaks. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from derain.data.synthesis.pixels import FloatArray

FloatArray64 = NDArray[np.float64]
Range = tuple[float, float]


@dataclass(frozen=True)
class StreakRanges:
    """The ranges from which each picture's rain is drawn, uniformly unless stated otherwise.

    Attributes:
        angle: angle of the fall, in degrees from vertical; positive leans to the right going down.
        length: length of a sheet's streaks in pixels, log-uniform; a single one is 0.5 to 1.5 times as long.
        width: full width of a streak at half maximum, in pixels.
        coverage: sum of the areas of all streaks of all sheets, as a share of the picture's area.
        brightness: brightness of a typical streak, where white is 1.
        tail: standard deviation of the logarithm of a single streak's brightness.
        gusts: the same for the smooth field along the fall that bundles streaks.
        glint: how much brighter than the rest the brightest piece of a streak is.
        sheets: how many sheets of drops each direction has.
        directions: how many angles of fall are superimposed.
        spread: standard deviation of a sheet's angle around that of the fall, in degrees.
        sharp: every streak of a sheet is equally bright and ends sharply, as the line streaks of
            some public sets do.
        floor: subtracted from the rain of every pixel, so that much of a picture stays dry.
    """

    angle: Range
    length: Range
    width: Range
    coverage: Range
    brightness: Range
    tail: Range
    gusts: Range
    glint: Range
    sheets: tuple[int, int] = (3, 6)
    directions: tuple[int, int] = (1, 1)
    spread: Range = (0.0, 1.5)
    sharp: bool = False
    floor: Range = (0.0, 0.0)


def streak_layer(rng: np.random.Generator, height: int, width: int, ranges: StreakRanges) -> FloatArray:
    """The brightness that rain adds, (height, width) float32, at least 0 and not clipped at 1."""
    layer = np.zeros((height, width), np.float32)
    directions = rng.integers(ranges.directions[0], ranges.directions[1] + 1)
    brightness, coverage = rng.uniform(*ranges.brightness), rng.uniform(*ranges.coverage)
    tail, gusts, spread = rng.uniform(*ranges.tail), rng.uniform(*ranges.gusts), rng.uniform(*ranges.spread)
    glint = rng.uniform(*ranges.glint)
    for _ in range(directions):
        fall = rng.uniform(*ranges.angle)
        sheets = rng.integers(ranges.sheets[0], ranges.sheets[1] + 1)
        for _ in range(sheets):
            layer += _sheet(
                rng,
                height,
                width,
                angle=rng.normal(fall, spread),
                length=float(np.exp(rng.uniform(*np.log(ranges.length)))),
                thickness=rng.uniform(*ranges.width),
                coverage=coverage / (directions * sheets),
                brightness=brightness * rng.uniform(0.6, 1.4),
                tail=tail,
                gusts=gusts,
                glint=glint,
                sharp=ranges.sharp,
            )
    if ranges.floor[1] > 0:
        layer = np.maximum(layer - np.float32(rng.uniform(*ranges.floor)), 0)
    return layer


def _sheet(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    angle: float,
    length: float,
    thickness: float,
    coverage: float,
    brightness: float,
    tail: float,
    gusts: float,
    glint: float,
    sharp: bool,
) -> FloatArray:
    """Drops at one distance, (height, width); the arguments are single draws from a `StreakRanges`."""
    slope = np.tan(np.deg2rad(angle))
    upright = 1 / np.hypot(1, slope)  # the height of one pixel along the fall
    above, aside = int(2 * length) + 2, 2 * int(np.ceil(thickness)) + 1
    rows, columns = height + above, width + int(abs(slope) * height) + 2 * aside
    count = rng.poisson(coverage * rows * columns / (length * upright * thickness))

    lengths = np.maximum(length * upright * rng.uniform(0.5, 1.5, count), 3)
    tops = rng.uniform(0, rows, count)
    places = rng.integers(0, columns, count)
    light = np.exp(
        rng.normal(0, tail, count) + gusts * _gusts(rng, tops + lengths / 2, places, rows, columns)
    )
    ramps = lengths * rng.uniform(0.2, 0.5, count)
    # A drop glints within its streak, as a shorter, brighter piece.
    cores = lengths * rng.uniform(0.15, 0.5, count)
    starts = tops + rng.uniform(0.1, 0.9, count) * (lengths - cores)
    glints = glint * light * rng.uniform(0, 2, count)
    # A column of 1 px, the blur and the bilinear shear together give the required width.
    sigma = float(np.sqrt(max((thickness / 2.3548 / upright) ** 2 - 1 / 6, 0.1)))
    scale = np.sqrt(2 * np.pi) * sigma * (1 if sharp else brightness)
    sheet = trapezoids(
        np.concatenate([tops, starts]) - above,
        np.concatenate([lengths, cores]),
        np.concatenate([ramps, cores / 2]),
        np.concatenate([light, glints]) * scale,
        np.concatenate([places, places]),
        height,
        columns,
    )
    wide = cv2.GaussianBlur(sheet, (1, 2 * aside + 1), 0, sigmaY=sigma, borderType=cv2.BORDER_CONSTANT)
    if sharp:
        _, wide = cv2.threshold(wide, 0.3, brightness, cv2.THRESH_BINARY)
    # Transposes the canvas into a picture, and shears it.
    left = aside + max(slope, 0) * height
    shear = np.array([[0.0, 1, 0], [1, -slope, left]])
    way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(wide, shear, (width, height), flags=way), np.float32)


def trapezoids(
    tops: FloatArray64,
    lengths: FloatArray64,
    ramps: FloatArray64,
    heights: FloatArray64,
    places: NDArray[np.int64],
    rows: int,
    columns: int,
) -> FloatArray:
    """Sum of upright trapezoids on a canvas, (columns, rows): a column of the picture is a row of the canvas,
    as cumulative sums are fastest along contiguous memory. Starts and ends may lie outside the canvas."""
    corners = np.stack([tops, tops + ramps, tops + lengths - ramps, tops + lengths])
    bends = heights / ramps * np.array([[1], [-1], [-1], [1]])
    # A corner between two rows is split between them. One above the canvas has a negative part, which
    # continues the line that began there into the first row.
    first = np.clip(corners, 0, rows).astype(np.int64)
    second = bends * (corners - first)
    index, size = (first + places * (rows + 2)).ravel(), (rows + 2) * columns
    canvas = np.bincount(index, (bends - second).ravel(), size)
    canvas += np.bincount(index + 1, second.ravel(), size)
    sums = torch.from_numpy(canvas.reshape(columns, rows + 2))  # five times as fast as NumPy's
    return sums.cumsum(1).cumsum(1)[:, :rows].float().numpy()


def _gusts(
    rng: np.random.Generator, heights: FloatArray64, places: NDArray[np.int64], rows: int, columns: int
) -> FloatArray64:
    """A smooth random field at the drops, mean 0, deviation about 1: bundles 8 px wide and 150 px long."""
    field = rng.normal(size=(rows // 150 + 3, columns // 8 + 2))
    y, x = np.minimum(heights / 150, field.shape[0] - 1.001), places / 8
    top, left = y.astype(np.int64), x.astype(np.int64)
    y, x = y - top, x - left
    upper = field[top, left] * (1 - x) + field[top, left + 1] * x
    lower = field[top + 1, left] * (1 - x) + field[top + 1, left + 1] * x
    smooth: FloatArray64 = 1.5 * (upper * (1 - y) + lower * y)
    return smooth
