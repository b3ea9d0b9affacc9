"""Rain close to the camera: what photographs and video frames show beside the fine streaks far away.

A drop near the lens is out of focus, so its streak is a line spread by a circle of confusion; water
that runs off a roof falls in bundles of such lines, in strings of beads or in bursts of splashes.
All marks at one distance are drawn as thin lines and dots on one canvas, which is blurred once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.data.synthesis.pixels import FloatArray, in_color, soften
from derain.data.synthesis.streaks import Range

SUBPIXEL = 4  # bits of OpenCV's fixed-point coordinates
MEDIAN = 120  # level of a typical mark on the canvas; one twice as bright still fits below 255
MOST = 400  # marks per picture, before each is split into several
DRAWN = 1.35  # pixels: width of OpenCV's anti-aliased line
FADE = ((1.0, 0.3), (0.85, 0.55), (0.7, 0.8), (0.5, 1.0))  # relative length and light of a ribbon's layers
AROUND = (15, 61)  # width and height in pixels of what tints a streak
LINES, BEADS, SPARKS = 9, 6, 10  # in a bundle, a string, a splash
Kind = Literal["lines", "ribbons", "bundles", "beads", "splashes", "spots"]


@dataclass(frozen=True)
class NearRanges:
    """The ranges from which each picture's near rain is drawn, uniformly unless stated otherwise.

    Attributes:
        kind: "lines" are single streaks; "ribbons" are wide ones that fade towards their ends;
            "bundles" are many lines side by side, like water off a roof; "beads" are strings of short
            pieces; "splashes" are short marks that fly away from one place; "spots" are short marks in
            any direction.
        count: number of marks per 100 x 100 pixels, log-uniform.
        length: length of a mark in pixels, log-uniform.
        width: width of a typical mark before the blur, in pixels, log-uniform.
        blur: standard deviation of the circle of confusion, in pixels, log-uniform.
        opacity: opacity of a typical mark, log-uniform; it saturates, so 1 hides 63 % of what is behind and
            2.5 hides 92 %.
        spread: how far the lines of a bundle, the pieces of a string or the marks of a splash lie from
            their middle, in pixels (standard deviation), log-uniform.
        angle: angle of the fall, in degrees from vertical.
        tail: standard deviation of the logarithm of a single mark's opacity.
        light: brightness of lit water, where white is 1.
        ambient: share of pictures whose water is only about as bright as the brightest parts of the scene.
        tinted: whether the water has the colour of what is around it, only lighter.
        adds: whether it adds its light to what is behind, clipped at white, instead of hiding it.
    """

    kind: Kind
    count: Range
    length: Range
    blur: Range
    opacity: Range
    width: Range = (1.0, 1.0)
    spread: Range = (1.0, 2.0)
    angle: Range = (-25.0, 25.0)
    tail: float = 0.4
    light: Range = (0.55, 1.0)
    ambient: float = 0.4
    tinted: bool = False
    adds: bool = False


def add_near_rain(rng: np.random.Generator, picture: FloatArray, ranges: NearRanges) -> FloatArray:
    """`picture` (H, W, 3) in [0, 1] behind near rain; the same shape and range."""
    height, width = picture.shape[:2]
    cover = near_cover(rng, height, width, ranges)
    light = rng.uniform(*ranges.light)
    if rng.random() < ranges.ambient:
        light = min(light, float(np.quantile(picture[::4, ::4], 0.97)) * rng.uniform(0.9, 1.3) + 0.08)
    blue = rng.uniform(-0.02, 0.1)  # water reflects the sky
    color = np.clip(light + np.array([-blue, 0, blue]), 0, 1)
    if ranges.tinted:
        around = cv2.blur(picture, AROUND)
        tinted = around + np.float32(rng.uniform(0.1, 0.7)) * (color.astype(np.float32) - around)
        return np.maximum(picture + in_color(cover) * (tinted - picture), picture)
    lit = in_color(cover, color)
    rainy: FloatArray = (
        np.minimum(picture + lit, np.float32(1)) if ranges.adds else picture * in_color(1 - cover) + lit
    )
    return rainy


def near_cover(rng: np.random.Generator, height: int, width: int, ranges: NearRanges) -> FloatArray:
    """How much of each pixel the water covers, (height, width) in [0, 1]."""
    sigma, opacity = _log_uniform(rng, ranges.blur), _log_uniform(rng, ranges.opacity)
    length, spread = _log_uniform(rng, ranges.length), _log_uniform(rng, ranges.spread)
    thickness = _log_uniform(rng, ranges.width)
    margin = int(length / 2 + thickness + 3 * sigma + 2 * spread)
    area = (height + 2 * margin) * (width + 2 * margin)
    count = min(rng.poisson(_log_uniform(rng, ranges.count) * area / 1e4), MOST) + 1
    marks = Marks(
        middles=rng.uniform([-margin, -margin], [width + margin, height + margin], (count, 2)),
        lengths=length * rng.uniform(0.6, 1.5, count),
        angles=np.deg2rad(rng.uniform(*ranges.angle) + rng.normal(0, 1.5, count)),
        lights=np.exp(rng.normal(0, ranges.tail, count)),
        widths=thickness * np.exp(rng.normal(0, 0.3, count)),
    )
    match ranges.kind:
        case "ribbons":
            marks = _ribbons(marks)
        case "bundles":
            marks = _bundles(rng, marks, spread)
        case "beads":
            marks = _beads(rng, marks, spread)
        case "splashes":
            marks = _splashes(rng, marks, spread)
        case "spots":
            marks = replace(marks, angles=rng.uniform(-np.pi / 2, np.pi / 2, count))
    soft = soften(_drawn(height, width, marks), sigma, cv2.BORDER_CONSTANT)
    # The blur dims a line across its width, and a short one along its length too; close lines add up.
    typical = float(np.median(marks.lengths))
    peak = min(1.0, 0.4 * (DRAWN + thickness - 1) / sigma) * min(1.0, 0.4 * typical / sigma)
    if ranges.kind == "bundles":
        peak = max(peak, min(1.0, 0.25 * LINES / float(np.hypot(sigma, spread))))
    saturated: FloatArray = 1 - np.exp(soft * np.float32(-opacity / (MEDIAN * peak)))
    return saturated


@dataclass(frozen=True)
class Marks:
    """Short lines: middles (N, 2) as x and y, lengths in pixels, angles in radians from vertical, lights
    relative to a typical one, and widths in pixels."""

    middles: NDArray[np.float64]
    lengths: NDArray[np.float64]
    angles: NDArray[np.float64]
    lights: NDArray[np.float64]
    widths: NDArray[np.float64]

    def repeated(self, times: int) -> Marks:
        return Marks(*(np.repeat(getattr(self, field.name), times, 0) for field in fields(self)))


def _ribbons(marks: Marks) -> Marks:
    """Layers of marks: a long, faint one below, shorter and brighter ones above."""
    parts = np.tile(FADE, (len(marks.lengths), 1))
    marks = marks.repeated(len(FADE))
    return replace(marks, lengths=marks.lengths * parts[:, 0], lights=marks.lights * parts[:, 1])


def _bundles(rng: np.random.Generator, marks: Marks, spread: float) -> Marks:
    marks = marks.repeated(LINES)
    count = len(marks.lengths)
    across, along = rng.normal(0, spread, count), rng.normal(0, 0.15, count) * marks.lengths
    return replace(
        marks,
        middles=marks.middles + _offsets(marks.angles, across, along),
        lengths=marks.lengths * rng.uniform(0.4, 1.0, count),
        angles=marks.angles + rng.normal(0, 0.01, count),
        lights=marks.lights * rng.uniform(0.2, 1.2, count),
    )


def _beads(rng: np.random.Generator, marks: Marks, spread: float) -> Marks:
    marks = marks.repeated(BEADS)
    count = len(marks.lengths)
    across, along = rng.normal(0, 0.3 * spread, count), rng.uniform(-0.5, 0.5, count) * marks.lengths
    return replace(
        marks,
        middles=marks.middles + _offsets(marks.angles, across, along),
        lengths=marks.lengths * rng.uniform(0.02, 0.12, count),
        lights=marks.lights * rng.uniform(0.3, 1.5, count),
    )


def _splashes(rng: np.random.Generator, marks: Marks, spread: float) -> Marks:
    """Marks of water that hit something and flies up and sideways from there."""
    marks = marks.repeated(SPARKS)
    count = len(marks.lengths)
    direction, distance = rng.normal(0, 0.9, count), spread * np.abs(rng.normal(0, 1, count))
    away = np.stack([np.sin(direction) * distance, -np.cos(direction) * distance], 1)
    return replace(
        marks,
        middles=marks.middles + away,
        lengths=marks.lengths * rng.uniform(0.3, 1.2, count),
        angles=-direction,
        lights=marks.lights * rng.uniform(0.2, 1.3, count),
    )


def _offsets(
    angles: NDArray[np.float64], across: NDArray[np.float64], along: NDArray[np.float64]
) -> NDArray[np.float64]:
    sine, cosine = np.sin(angles), np.cos(angles)
    return np.stack([across * cosine + along * sine, along * cosine - across * sine], 1)


def _drawn(height: int, width: int, marks: Marks) -> FloatArray:
    """Lines on black, brighter ones over darker ones; (height, width) in [0, 255]."""
    canvas = np.zeros((height, width), np.uint8)
    half = marks.lengths[:, None] / 2 * np.stack([np.sin(marks.angles), np.cos(marks.angles)], 1)
    order = np.argsort(marks.lights)
    ends = np.stack([marks.middles - half, marks.middles + half], 1)[order]
    levels = np.clip(MEDIAN * marks.lights[order], 0, 255).tolist()
    widths = np.maximum(1, np.round(marks.widths[order]).astype(int)).tolist()
    ends_fixed = np.round(2**SUBPIXEL * ends).astype(int).tolist()
    for (top, bottom), level, wide in zip(ends_fixed, levels, widths, strict=True):
        cv2.line(canvas, top, bottom, level, wide, cv2.LINE_AA, SUBPIXEL)
    return canvas.astype(np.float32)


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))
