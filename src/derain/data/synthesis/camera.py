"""What a camera adds last: sensor noise and JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.data.synthesis.pixels import FloatArray, normal
from derain.data.synthesis.streaks import Range


@dataclass(frozen=True)
class CameraRanges:
    """The ranges from which each picture's camera is drawn.

    Attributes:
        noise: standard deviation at white, where white is 1; proportional to the square root of brightness.
        quality: quality of the JPEG file, 1 to 100.
    """

    noise: Range = (0.0, 0.02)
    quality: tuple[int, int] = (60, 95)


def photograph(rng: np.random.Generator, picture: FloatArray, ranges: CameraRanges) -> NDArray[np.uint8]:
    """`picture` (H, W, 3) RGB in [0, 1] with noise, after JPEG compression; (H, W, 3) RGB uint8."""
    noise = normal(rng, picture.shape) * np.float32(rng.uniform(*ranges.noise))
    levels = to_levels(picture + noise * np.sqrt(0.1 + 0.9 * picture))
    quality = int(rng.integers(ranges.quality[0], ranges.quality[1] + 1))
    return through_jpeg(levels, quality)


def through_jpeg(levels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """`levels` (H, W, 3) RGB, compressed as JPEG of this quality, 1 to 100, and decoded again."""
    blue_first = cv2.cvtColor(levels, cv2.COLOR_RGB2BGR)
    _, file = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def to_levels(picture: FloatArray) -> NDArray[np.uint8]:
    """Values in [0, 1], clipped and rounded to the 256 levels of a file."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
