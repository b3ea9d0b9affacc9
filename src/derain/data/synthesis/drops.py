"""Drops of water on the glass in front of the lens.

A drop is a lens of short focal length: it shows the scene behind it reduced and rotated by 180 degrees,
darker at its upper rim and brighter at its lower one. The glass is out of focus, so the drops are soft.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from derain.data.synthesis.pixels import FloatArray, in_color, soften
from derain.data.synthesis.streaks import Range


@dataclass(frozen=True)
class DropRanges:
    """The ranges from which each picture's drops are drawn.

    Attributes:
        density: drops per 100 x 100 pixels.
        radius: radius in pixels, log-uniform.
        roundness: height of a drop divided by its width.
        wobble: how far the outline departs from an ellipse, as a share of the radius.
        reach: how many radii from the drop's centre the scene lies that its rim shows.
        defocus: standard deviation of the blur, as a share of the median radius.
        shade: how much darker the upper rim and lighter the lower rim is, where white is 1.
        glow: how much brighter a drop is than what it shows, where white is 1: it gathers light from the sky.
    """

    density: Range = (0.5, 6.0)
    radius: Range = (3.0, 22.0)
    roundness: Range = (0.9, 1.5)
    wobble: Range = (0.0, 0.15)
    reach: Range = (2.0, 5.0)
    defocus: Range = (0.05, 0.35)
    shade: Range = (0.03, 0.2)
    glow: Range = (0.0, 0.0)


def add_drops(rng: np.random.Generator, picture: FloatArray, ranges: DropRanges) -> FloatArray:
    """`picture` (H, W, 3) in [0, 1] seen through wet glass; the same shape and range."""
    height, width = picture.shape[:2]
    places = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = (place.copy() for place in places)
    cover, shade = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    reach, wobble, dark = rng.uniform(*ranges.reach), rng.uniform(*ranges.wobble), rng.uniform(*ranges.shade)
    largest = ranges.radius[1] * 1.3 * ranges.roundness[1]
    area = (height + 2 * largest) * (width + 2 * largest)
    count = rng.poisson(rng.uniform(*ranges.density) * area / 1e4)
    if not count:
        return picture
    radii = np.exp(rng.uniform(np.log(ranges.radius[0]), np.log(ranges.radius[1]), count))
    for radius in radii.tolist():
        cy, cx = rng.uniform(-largest, height + largest), rng.uniform(-largest, width + largest)
        tall = radius * rng.uniform(*ranges.roundness)
        lobes, phase = int(rng.integers(2, 5)), rng.uniform(0, 2 * np.pi)
        size = int(np.ceil(1.3 * max(radius, tall)))
        here = _around(cy, size, height), _around(cx, size, width)
        across, down = places[0][here] - cx, places[1][here] - cy
        distance = np.hypot(across / radius, down / tall)
        outline = 1 + wobble * np.cos(lobes * np.arctan2(down, across) + phase)
        inside = np.clip((outline - distance) * radius + 0.5, 0, 1)
        # Refraction grows towards the rim, as the surface of a drop steepens.
        within = np.minimum(distance, 1)
        bend = (reach + 1) * inside * np.sqrt(within)
        cover[here] = np.maximum(cover[here], inside)
        shade[here] += inside * within * within * within * down * (dark / tall)
        x[here] -= across * bend
        y[here] -= down * bend
    scene = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    glow = rng.uniform(*ranges.glow) if ranges.glow[1] else 0.0
    scene = np.clip(scene + in_color(shade + np.float32(glow)), 0, 1)
    sigma = float(rng.uniform(*ranges.defocus) * np.median(radii)) + 0.3
    shown, seen = (soften(part, sigma, cv2.BORDER_REPLICATE) for part in (scene * in_color(cover), cover))
    wet: FloatArray = picture * in_color(1 - seen) + shown
    return wet


def _around(middle: float, size: int, end: int) -> slice:
    """The part of 0 to `end` that lies within `size` pixels of the middle."""
    return slice(max(int(middle) - size, 0), max(min(int(middle) + size + 1, end), 0))
