"""The clean-frame method one pixel at a time, as its definition reads: the truth for the fast one."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray


def luma(clip: NDArray[np.uint8], variant: str) -> NDArray[np.uint8]:
    """(T, H, W) uint8."""
    red, green, blue = (clip[..., c].astype(np.int64) for c in range(3))
    if variant == "fixed":
        return ((299 * red + 587 * green + 114 * blue) // 1000).astype(np.uint8)
    grey = (0.299 * red + 0.587 * green) + 0.114 * blue
    grey[:, :, 1:] = grey[:, :, 1:] + 128.0
    return (grey.astype(np.int64) % 256).astype(np.uint8)


def mode_and_ranks(history: NDArray[np.uint8]) -> tuple[int, int, int]:
    """The most frequent value (the smallest on ties), its first and its last rank."""
    counts = Counter(history.tolist())
    mode = min(counts, key=lambda value: (-counts[value], value))
    first = int((history < mode).sum())
    return mode, first, first + counts[mode] - 1


def may_vote(height: int, width: int, variant: str) -> NDArray[np.bool_]:
    """(H, W)."""
    votes = np.zeros((height, width), bool)
    if variant == "fixed":
        return ~votes
    for row in range(2):
        for column in range(4):
            left = int(width // 4) * int(height // 2)
            for y in range(int(height / 2 * row), int(height / 2 * (row + 1))):
                for x in range(int(width / 4 * column), int(width / 4 * (column + 1))):
                    votes[y, x] = left > 0
                    left -= 1
    return votes


def clean_frame(clip: NDArray[np.uint8], variant: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The clean picture (H, W, 3) and the 101 votes of a clip (T, H, W, 3)."""
    frames, height, width = clip.shape[:3]
    grey, allowed = luma(clip, variant), may_vote(height, width, variant)
    votes = np.zeros(101, np.int64)
    for y in range(height):
        for x in range(width):
            _, first, last = mode_and_ranks(grey[:, y, x])
            for j in range(101):
                if variant == "fixed":
                    inside = 100 * first <= j * frames <= 100 * last
                else:
                    inside = first / frames * 100 <= j <= last / frames * 100
                votes[j] += bool(inside and allowed[y, x])
    percentile = int(votes.argmax())
    if variant == "official":
        return np.percentile(clip, percentile, axis=0).astype(np.uint8), votes
    picture = np.empty((height, width, 3), np.uint8)
    q, r = divmod(percentile * (frames - 1), 100)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                history = sorted(clip[:, y, x, c].tolist())
                above = history[min(q + 1, frames - 1)]
                picture[y, x, c] = ((100 - r) * history[q] + r * above) // 100
    return picture, votes
