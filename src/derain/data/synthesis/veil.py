"""The mist of drops too far away to be seen individually: thin near the bottom, dense towards the top."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from derain.data.synthesis.pixels import FloatArray, in_color
from derain.data.synthesis.streaks import Range


@dataclass(frozen=True)
class VeilRanges:
    """The ranges from which each picture's veil is drawn.

    Attributes:
        near: share of the veil's light at the bottom of the picture.
        far: the same at the top, where the scene is far away.
        light: brightness of the veil, where white is 1.
        patches: how much the density varies in soft clouds, as a share of the density.
    """

    near: Range = (0.0, 0.1)
    far: Range = (0.1, 0.5)
    light: Range = (0.6, 0.9)
    patches: float = 0.3


def add_veil(rng: np.random.Generator, picture: FloatArray, ranges: VeilRanges) -> FloatArray:
    """`picture` (H, W, 3) in [0, 1] behind a veil; the same shape and range."""
    height, width = picture.shape[:2]
    near, far, light = rng.uniform(*ranges.near), rng.uniform(*ranges.far), rng.uniform(*ranges.light)
    rows = np.linspace(far, near, height, dtype=np.float32)[:, None]
    clouds = rng.uniform(1 - ranges.patches, 1 + ranges.patches, (4, 5)).astype(np.float32)
    density = np.clip(rows * cv2.resize(clouds, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
    veiled: FloatArray = picture + in_color(density) * (np.float32(light) - picture)
    return veiled
