"""How much rain there is, from what a network removed from a picture.

Rain is everywhere in a picture and close to vertical; what a network mistakes for rain in a dry one (wires,
window bars, grass) is local and points in any direction. So the signal is the share of pixels in which the
removed light stands out, as the median over many cells, times how much more vertical than horizontal it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

LONGEST = 640  # pixels: the longer side at which rain is measured
WINDOW = 25  # pixels: side of the square that counts as a pixel's surroundings
STANDS_OUT = 2 / 255  # change in luma relative to the surroundings above which a pixel counts
CELLS = 6  # along each side of the picture
NOISE = 4 / 255  # of the change's gradient: weaker gradients hardly affect the direction


@dataclass(frozen=True)
class Rain:
    """How much rain there is in a picture.

    Attributes:
        share: the share of pixels that stood out as rain, as the median over 36 cells; 0 to 1.
        contrast: mean brightness removed from these pixels, 0 to 1.
        signal: the share times the direction, which is 1 for vertical streaks, 0 for horizontal ones or none.
        is_raining: whether the signal is above the threshold of the weights; None if they have none.
    """

    share: float
    contrast: float
    signal: float
    is_raining: bool | None

    def as_row(self) -> dict[str, float | bool | None]:
        """The attributes, for programs to read."""
        return {
            "share": round(self.share, 5),
            "contrast": round(self.contrast, 5),
            "signal": round(self.signal, 6),
            "is_raining": self.is_raining,
        }


def measure_rain(rainy: Tensor, image: Tensor, threshold: float | None = None) -> Rain:
    """How much rain a network removed from a picture.

    Args:
        rainy, image: (1, 3, H, W) or (3, H, W) float RGB in [0, 1], before and after.
        threshold: that of the weights; see `derain.checkpoints.rain_threshold`.

    Examples:
        >>> import torch
        >>> image = torch.full((1, 3, 64, 64), 0.5)
        >>> rainy = image.clone()
        >>> rainy[..., ::8] += 0.2  # vertical streaks
        >>> measure_rain(rainy, image, threshold=0.01).is_raining
        True
        >>> measure_rain(rainy.transpose(2, 3), image, threshold=0.01).is_raining
        False
    """
    height, width = rainy.shape[-2:]
    change = Change(height, width)
    change.add(0, rainy, image)
    return change.measured(threshold)


class Change:
    """What a network removed from a picture, for `measure_rain`, collected in bands of rows."""

    def __init__(self, height: int, width: int) -> None:
        scale = min(1, LONGEST / max(height, width))
        self._size = max(1, round(width * scale)), max(1, round(height * scale))
        self._narrow = np.empty((height, self._size[0]), np.float32)

    def add(self, top: int, rainy: Tensor, image: Tensor) -> None:
        """Adds rows from `top` on, (1, 3, h, W) or (3, h, W), before and after."""
        luma = _luma(rainy - image)
        rows = slice(top, top + len(luma))
        self._narrow[rows] = _resized(luma, (self._size[0], len(luma)))

    def measured(self, threshold: float | None = None) -> Rain:
        """How much rain there was, once all rows have been added."""
        change = _resized(self._narrow, self._size)
        stands_out = change - cv2.blur(change, (WINDOW, WINDOW)) > STANDS_OUT
        cells = cv2.resize(stands_out.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        share = float(np.median(cells))
        signal = share * max(0.0, _verticality(change))
        return Rain(
            share=share,
            contrast=max(0.0, float(change[stands_out].mean())) if stands_out.any() else 0.0,
            signal=signal,
            is_raining=None if threshold is None else signal > threshold,
        )


def _resized(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w) reduced to `size` = (width, height) by averaging over areas."""
    if size == values.shape[::-1]:
        return values
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def _luma(difference: Tensor) -> NDArray[np.float32]:
    colours = difference.detach().float().reshape(3, *difference.shape[-2:]).permute(1, 2, 0).cpu().numpy()
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_RGB2GRAY), np.float32)


def _verticality(change: NDArray[np.float32]) -> float:
    """1 where all gradients of the change are horizontal, as across vertical streaks; -1 if vertical."""
    across, down = (cv2.Sobel(change, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    length = np.hypot(across, down) + NOISE
    return float((((across / length) ** 2) - (down / length) ** 2).mean())
