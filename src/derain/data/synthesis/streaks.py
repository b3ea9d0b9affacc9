"""Rain streaks made from nothing: sparse drops, each smeared along its fall.

A streak layer is a sum of a few groups of drops. A group is a map of sparse impulses of random
brightness, correlated with one streak profile: a line segment at the group's angle, Gaussian
across, tapered along. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Range = tuple[float, float]


@dataclass(frozen=True)
class StreakLook:
    """The distribution that each layer's parameters are drawn from; every pair is (low, high).

    Attributes:
        angle: of the fall, degrees from vertical, one value a layer.
        spread: standard deviation of a group's angle about the layer's, degrees.
        length: of a streak, pixels.
        width: of a streak, pixels (full width at half maximum).
        coverage: sum of streak lengths per pixel of the picture and group.
        brightness: of a typical streak, 0 to 1; drops vary about it by a long-tailed law.
        groups: how many groups of drops a layer has.
    """

    angle: Range = (-30.0, 30.0)
    spread: Range = (0.0, 4.0)
    length: Range = (8.0, 60.0)
    width: Range = (0.8, 2.4)
    coverage: Range = (0.02, 0.25)
    brightness: Range = (0.05, 0.25)
    groups: tuple[int, int] = (2, 5)


LIGHT = StreakLook(length=(10.0, 60.0), coverage=(0.01, 0.12), brightness=(0.03, 0.16))
HEAVY = StreakLook(length=(15.0, 80.0), coverage=(0.04, 0.25), brightness=(0.05, 0.20))


def streak_layer(rng: np.random.Generator, height: int, width: int, look: StreakLook) -> FloatArray:
    """The brightness that rain adds, (height, width) float32, not clipped."""
    layer = np.zeros((height, width), np.float32)
    fall = rng.uniform(*look.angle)
    spread = rng.uniform(*look.spread)
    brightness = rng.uniform(*look.brightness)
    for _ in range(rng.integers(look.groups[0], look.groups[1] + 1)):
        length, thickness = rng.uniform(*look.length), rng.uniform(*look.width)
        profile = streak_profile(rng.normal(fall, spread), length, thickness, taper=rng.uniform(0.5, 3.0))
        margin = profile.shape[0] // 2
        shape = (height + 2 * margin, width + 2 * margin)
        drops = (rng.random(shape, np.float32) < rng.uniform(*look.coverage) / length).astype(np.float32)
        drops *= rng.gamma(rng.uniform(0.8, 2.5), size=shape).astype(np.float32)
        smeared = cv2.filter2D(drops, -1, profile, borderType=cv2.BORDER_CONSTANT)
        layer += brightness * smeared[margin : margin + height, margin : margin + width]
    return layer


def streak_profile(angle: float, length: float, width: float, taper: float) -> FloatArray:
    """One streak of peak brightness 1 on an odd square canvas.

    Args:
        angle: degrees from vertical, positive leans to the right going down.
        length: pixels from end to end.
        width: full width at half maximum, pixels.
        taper: exponent of the fall-off towards the ends; 0 gives blunt ends.
    """
    radius = int(np.ceil(length / 2 + width + 1))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32)
    dx, dy = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    along, across = x * dx + y * dy, x * dy - y * dx
    ends = np.clip(1 - (2 * along / length) ** 2, 0, 1) ** taper
    sigma = width / 2.3548
    # Averaged over the pixel, so that thin streaks keep their energy at every angle.
    blur = np.sqrt(sigma**2 + 1 / 12)
    profile: FloatArray = (ends * np.exp(-0.5 * (across / blur) ** 2)).astype(np.float32)
    return profile


def add_rain(rng: np.random.Generator, clean: FloatArray, looks: tuple[StreakLook, ...]) -> FloatArray:
    """A rainy version of a clean picture (H, W, 3) in [0, 1]; one of the looks is drawn."""
    height, width = clean.shape[:2]
    layer = streak_layer(rng, height, width, looks[rng.integers(len(looks))])[..., None]
    if rng.random() < 0.2:
        layer = layer - clean * np.minimum(layer, 1)  # screen: bright skies show less rain
    rainy: FloatArray = np.clip(clean + layer, 0, 1)
    return rainy
