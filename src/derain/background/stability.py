"""Whether camera and exposure stayed constant, as the clean-frame method assumes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.background.frame_store import FrameStore

MOMENTS = 12  # at most, evenly spread over the clip
FRAMES = 5  # consecutive frames at each, whose median is free of most of the rain
WINDOW = 512  # pixels: side of the central part that is compared
DARKEST = 0.01  # the gain that stands for black, so that the drift stays finite
SMALLEST = 16  # pixels: least side of a picture in which movement can be measured
STILL = 1.0  # pixels from the median position within which the camera counts as still

View = NDArray[np.float32]


@dataclass(frozen=True)
class Stability:
    """What was measured against the clean picture at moments evenly spread over the clip.

    Attributes:
        moments: the first frame of each moment, counted from 0.
        gains: brightness relative to the clean picture, at least 0.01.
        shifts: the position of the camera, (right, down), in pixels.
    """

    moments: tuple[int, ...]
    gains: tuple[float, ...]
    shifts: tuple[tuple[float, float], ...]

    @property
    def drift(self) -> float:
        """How much the brightness varies over the clip, as a fraction."""
        return max(self.gains) / min(self.gains) - 1

    @property
    def shift(self) -> float:
        """The largest distance between two positions of the camera, in pixels."""
        places = np.array(self.shifts)
        return float(np.linalg.norm(places[:, None] - places, axis=2).max())

    @property
    def still(self) -> float:
        """The share of the moments at which the camera is at its usual position, 0 to 1."""
        places = np.array(self.shifts)
        away = np.linalg.norm(places - np.median(places, axis=0), axis=1)
        return float((away <= STILL).mean())


def measure_stability(store: FrameStore, clean: NDArray[np.uint8]) -> Stability:
    """Measures how brightness and the camera's position vary over a clip.

    Args:
        store: the frames of the clip.
        clean: (H, W, 3) uint8, the picture with which they are compared.
    """
    last = max(0, store.frames - FRAMES)
    moments = sorted({int(n) for n in np.linspace(0, last, min(MOMENTS, 1 + last // FRAMES))})
    reference = _green_centre(clean)
    lit = reference > 8
    gains, shifts = [], []
    for moment in moments:
        stretch = range(moment, min(moment + FRAMES, store.frames))
        view: View = np.median([_green_centre(store.frame(n)) for n in stretch], axis=0)
        gain = float(np.median(view[lit] / reference[lit])) if lit.any() else 1.0
        gains.append(max(gain, DARKEST))
        shifts.append(_shift(reference, view.astype(np.float32)))
    return Stability(tuple(moments), tuple(gains), tuple(shifts))


def _green_centre(picture: NDArray[np.uint8]) -> View:
    """(h, w) of the middle of a picture (H, W, 3), at most `WINDOW` pixels a side."""
    height, width = picture.shape[:2]
    top, left = max(0, height - WINDOW) // 2, max(0, width - WINDOW) // 2
    return picture[top : top + WINDOW, left : left + WINDOW, 1].astype(np.float32)


def _shift(reference: View, view: View) -> tuple[float, float]:
    """The movement by phase correlation; zero where one view is not found in the other."""
    if min(view.shape) < SMALLEST:
        return 0.0, 0.0
    window = cv2.createHanningWindow(view.shape[::-1], cv2.CV_32F)
    # Copies, because OpenCV applies the window to its arguments in place.
    (right, down), response = cv2.phaseCorrelate(reference.copy(), view.copy(), window)
    return (float(right), float(down)) if response > 0.1 else (0.0, 0.0)
