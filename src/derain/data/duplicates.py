"""Near-duplicates: the same scene in a training and in a test set, or twice in one set.

Each picture is reduced to a small grey thumbnail with its mean and contrast normalised. Thumbnails of the
same scene correlate almost fully despite compression, a cropped edge, light rain or mirroring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.pictures import read_picture, to_rgb8

SIDE = 24  # pixels: side of a thumbnail
ALIKE = 0.97  # correlation above which two pictures count as one scene
_BLOCK = 4096  # thumbnails that are compared at once


@dataclass(frozen=True)
class Duplicate:
    """Two files that show one scene; `likeness` is the correlation of their thumbnails, at most 1."""

    first: Path
    second: Path
    likeness: float
    mirrored: bool


def find_duplicates(
    first: Sequence[Path],
    second: Sequence[Path],
    workers: int = 1,
    on_picture: Callable[[], None] = lambda: None,
) -> list[Duplicate]:
    """Pictures of `first` that are also in `second`, each with the most similar picture there.

    Args:
        first, second: picture files of any size; a file that is in both is also reported.
        workers: the number of threads that read pictures.
        on_picture: called after each picture.

    Raises:
        DerainError: a picture cannot be read.
    """
    a, b = (_thumbnails(paths, workers, on_picture) for paths in (first, second))
    if not len(a) or not len(b):
        return []
    found = []
    mirrored = _mirrored(b)
    for start in range(0, len(a), _BLOCK):
        block = a[start : start + _BLOCK]
        plain, flipped = block @ b.T, block @ mirrored.T
        likeness = np.maximum(plain, flipped)
        for row, column in enumerate(likeness.argmax(axis=1)):
            if likeness[row, column] >= ALIKE:
                is_mirrored = bool(flipped[row, column] > plain[row, column])
                value = float(likeness[row, column])
                found.append(Duplicate(first[start + row], second[column], value, is_mirrored))
    return found


def find_repeats(paths: Sequence[Path], workers: int = 1) -> list[Duplicate]:
    """Pictures that show the same scene as an earlier one of the set, each with the earliest of these.

    Args:
        paths: picture files of any size.
        workers: the number of threads that read pictures.

    Raises:
        DerainError: a picture cannot be read.
    """
    rows = _thumbnails(paths, workers)
    mirrored = _mirrored(rows)
    found = []
    for i in range(1, len(rows)):
        plain, flipped = rows[:i] @ rows[i], rows[:i] @ mirrored[i]
        alike = np.flatnonzero(np.maximum(plain, flipped) >= ALIKE)
        if len(alike):
            first = int(alike[0])
            value = float(max(plain[first], flipped[first]))
            found.append(Duplicate(paths[i], paths[first], value, bool(flipped[first] > plain[first])))
    return found


def _thumbnails(
    paths: Sequence[Path], workers: int, on_picture: Callable[[], None] = lambda: None
) -> NDArray[np.float32]:
    """One row per picture, (N, SIDE * SIDE); see `_thumbnail`."""
    rows = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for row in pool.map(_thumbnail, paths):
                rows.append(row)
                on_picture()
        finally:
            pool.shutdown(cancel_futures=True)
    return np.array(rows, np.float32).reshape(len(paths), SIDE * SIDE)


def _mirrored(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Thumbnails (N, SIDE * SIDE), mirrored left-right."""
    return rows.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(len(rows), -1)


def _thumbnail(path: Path) -> NDArray[np.float32]:
    """(SIDE * SIDE,) float32 with a norm of 1; zeros for a uniform picture, which resembles no other."""
    grey = cv2.cvtColor(to_rgb8(read_picture(path)), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    row: NDArray[np.float32] = (small - small.mean()).astype(np.float32)
    length = float(np.linalg.norm(row))
    return row / np.float32(length) if length > SIDE else np.zeros_like(row)
