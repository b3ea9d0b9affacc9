"""Whether camera and exposure kept still, which the clean-frame method takes for granted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.background.frame_store import FrameStore

PROBES = 32  # frames that are looked at, evenly spread
WINDOW = 512  # pixels, side of the centre that is searched for movement


@dataclass(frozen=True)
class Stability:
    """What was measured on up to 32 frames, evenly spread, against the clean picture.

    Attributes:
        frames: their numbers, from 0.
        gains: brightness of each, 1 where it equals the clean picture.
        shifts: where the camera was in each, (right, down), pixels.
    """

    frames: tuple[int, ...]
    gains: tuple[float, ...]
    shifts: tuple[tuple[float, float], ...]

    @property
    def drift(self) -> float:
        """How far the gain moves over the clip (flicker from frame to frame left out), as a share."""
        if len(self.gains) < 3:
            return 0.0
        width = max(1, len(self.gains) // 4)
        smooth = np.convolve(self.gains, np.full(width, 1 / width), "valid")
        return float(smooth.max() / smooth.min() - 1)

    @property
    def shift(self) -> float:
        """The largest distance between the camera's positions, pixels."""
        places = np.array(self.shifts)
        return float(np.linalg.norm(places[:, None] - places, axis=2).max())


def measure_stability(store: FrameStore, clean: NDArray[np.uint8]) -> Stability:
    """Gains and shifts of frames spread over the clip, relative to `clean` (H, W, 3)."""
    numbers = sorted({int(n) for n in np.linspace(0, store.frames - 1, PROBES).round()})
    reference = _green_centre(clean)
    window: Any = cv2.createHanningWindow(reference.shape[::-1], cv2.CV_32F)
    gains, shifts = [], []
    for number in numbers:
        frame = _green_centre(store.frame(number))
        lit = reference > 8
        gains.append(float(np.median(frame[lit] / reference[lit])) if lit.any() else 1.0)
        shifts.append(_shift(reference, frame, window))
    return Stability(tuple(numbers), tuple(gains), tuple(shifts))


def _green_centre(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = picture.shape[:2]
    top, left = max(0, height - WINDOW) // 2, max(0, width - WINDOW) // 2
    return picture[top : top + WINDOW, left : left + WINDOW, 1].astype(np.float32)


def _shift(
    reference: NDArray[np.float32], frame: NDArray[np.float32], window: NDArray[np.float32]
) -> tuple[float, float]:
    """The movement by phase correlation; none where the scene has too little to hold on to."""
    # Copies, because OpenCV applies the window to its arguments in place.
    (right, down), response = cv2.phaseCorrelate(reference.copy(), frame.copy(), window)
    return (float(right), float(down)) if response > 0.1 else (0.0, 0.0)
