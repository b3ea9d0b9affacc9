"""The locally dominant gradient prior (LDGP): where a single picture shows rain streaks.

Streaks are thin, bright and lean one way. The orientation that dominates in most 80x80 patches is
taken as that of the rain; the picture is turned until it is vertical; pixels brighter than their
surroundings are kept where they form a vertical run; turned back, they are the map.

Peng and Li, ICASSP 2023 (`FIRST_PAPER`) and Peng, Li and Chen, IEEE TMM 2025 (`JOURNAL`). Maps
equal the published ones byte for byte. These came from a HOG descriptor with a polynomial
arctangent, which is written out here, and from rotation as in `turning.py`. Arrays are NumPy's:
exact integers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from derain.errors import DerainError
from derain.methods.rain2avoid.turning import grey, turn_back, turned_grey
from derain.methods.self_supervision import Bytes

PATCH = 80
CELL = 8
BLOCK = 4  # cells per side
BINS = 36  # of 5 degrees
LEAST_SIDE = BLOCK * CELL
ARCTANGENT = (0.9997878412794807, -0.3258083974640975, 0.1555786518463281, -0.04432655554792128)
PATCHES_AT_ONCE = 16


@dataclass(frozen=True)
class Rule:
    """What differs between the two papers.

    Attributes:
        opening: least length of a streak in pixels; None: a thirtieth of the turned canvas' rows.
        upright: patch angles, besides 0, that count as vertical.
    """

    opening: int | None
    upright: tuple[int, ...]


FIRST_PAPER = Rule(opening=None, upright=(90,))
JOURNAL = Rule(opening=10, upright=(85, 90))


@dataclass(frozen=True)
class Prior:
    """The map of suspected rain, and its basis.

    Attributes:
        map: (H, W) uint8; 0 is free, larger values are suspected rain.
        theta: by how many degrees the picture was turned counter-clockwise.
        agreement: share of the patches that voted for this angle, 0 to 1.
    """

    map: Bytes
    theta: int
    agreement: float


def rain_prior(picture: Bytes, rule: Rule = JOURNAL) -> Prior:
    """The map of suspected rain of an 8-bit RGB picture, (H, W, 3).

    Raises:
        DerainError: a side is shorter than 32 pixels.
    """
    refuse_too_small(picture)
    height, width = picture.shape[:2]
    angles = patch_angles(grey(picture))
    voted, agreement = vote(angles)
    theta = 0 if voted in rule.upright else voted - 180 if voted > 90 else voted
    turned = turned_grey(picture, theta)
    streaks = opening(brighter_than_surroundings(turned), rule.opening or len(turned) // 30)
    return Prior(turn_back(streaks, theta, height, width), theta, agreement)


def refuse_too_small(picture: Bytes) -> None:
    """Raises `DerainError` when a side is shorter than one block of the orientation histogram."""
    height, width = picture.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise DerainError(f"a picture of {width}x{height} is too small: each side needs {LEAST_SIDE} pixels.")


def vote(angles: NDArray[np.int64]) -> tuple[int, float]:
    """The most frequent angle, the smallest on a tie, and its share."""
    counts = np.bincount(angles // 5, minlength=BINS)
    winner = int(counts.argmax())
    return 5 * winner, float(counts[winner] / len(angles))


def patch_angles(grey: Bytes) -> NDArray[np.int64]:
    """The dominant angle of every whole patch in degrees, 0 to 175; columns outer, rows inner."""
    sums = np.concatenate([orientation_sums(patches) for patches in _patches(grey)])
    angles: NDArray[np.int64] = 5 * sums.argmax(1)
    return angles


def _patches(grey: Bytes) -> Iterator[Bytes]:
    """Batches (N, P, P) of the patches; P is 80, less (a multiple of 8) in smaller pictures."""
    size = min(PATCH, min(grey.shape) // CELL * CELL)
    rows, columns = (side // size for side in grey.shape)
    tiles = grey[: rows * size, : columns * size].reshape(rows, size, columns, size)
    patches = tiles.transpose(2, 0, 1, 3).reshape(-1, size, size)
    for start in range(0, len(patches), PATCHES_AT_ONCE):
        yield patches[start : start + PATCHES_AT_ONCE]


def orientation_sums(patches: Bytes) -> NDArray[np.float64]:
    """Histogram of gradient orientations, (N, P, P) grey patches -> (N, 36)."""
    n, size, _ = patches.shape
    magnitude, angle = gradients(patches)
    position = angle * (BINS / np.pi) - 0.5
    lower = np.floor(position)
    share = magnitude * (position - lower)
    lower_bin = lower.astype(np.int64) % BINS
    upper_bin = np.where(lower_bin == BINS - 1, 0, lower_bin + 1)
    votes = np.zeros((n, size, BINS, size), np.float32)
    at = np.arange(n * size).reshape(n, size, 1) * (BINS * size) + np.arange(size)
    votes.reshape(-1)[at + lower_bin * size] = magnitude - share
    votes.reshape(-1)[at + upper_bin * size] = share

    to_cells = _cells_of_blocks(size)  # (blocks * cells, size)
    blocks = size // CELL - BLOCK + 1
    cells = votes.reshape(-1, size) @ to_cells.T  # x
    cells = to_cells @ cells.reshape(n, size, -1)  # y
    v = cells.reshape(n, blocks, BLOCK, BINS, blocks, BLOCK)
    v = v / (_norms(v) + 0.1 * BLOCK * BLOCK * BINS)
    v = np.minimum(v, 0.2)
    v = v / (_norms(v) + 0.001)
    sums: NDArray[np.float64] = np.einsum("nucovd,ucvd->no", v, _coverage(size // CELL), optimize=True)
    return sums


def _norms(v: NDArray[np.float32]) -> NDArray[np.float32]:
    """Euclidean norm of each block of (n, block row, cell row, bin, block column, cell column)."""
    norms: NDArray[np.float32] = np.sqrt(np.einsum("nucovd,nucovd->nuv", v, v))
    return norms[:, :, None, None, :, None]


def gradients(patches: Bytes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Magnitude and angle in [0, 2 pi) by central differences, mirrored at each patch's border.

    The arctangent is a polynomial, off by up to 1.7e-4 rad; the votes of some patches depend on it.
    """
    value = patches.astype(np.float32)
    dx = np.zeros_like(value)
    dy = np.zeros_like(value)
    np.subtract(value[:, :, 2:], value[:, :, :-2], out=dx[:, :, 1:-1])
    np.subtract(value[:, 2:], value[:, :-2], out=dy[:, 1:-1])
    width, height = np.abs(dx), np.abs(dy)
    steep = height > width
    c = np.minimum(width, height) / (np.maximum(width, height) + 2.2e-16)
    c2 = c * c
    k1, k3, k5, k7 = ARCTANGENT
    t = c * (k1 + c2 * (k3 + c2 * (k5 + c2 * k7)))
    np.subtract(np.pi / 2, t, out=t, where=steep)
    np.subtract(np.pi, t, out=t, where=dx < 0)
    np.subtract(2 * np.pi, t, out=t, where=dy < 0)
    return np.sqrt(dx * dx + dy * dy, dtype=np.float32), t.astype(np.float32, copy=False)


@functools.cache
def _cells_of_blocks(size: int) -> NDArray[np.float32]:
    """How much each pixel of an axis counts in each cell of each block, (blocks * 4, size).

    Gaussian about the block's centre times bilinear weights; what would fall on a cell outside
    the block is lost.
    """
    side = BLOCK * CELL
    pixel = np.arange(side)
    gaussian = np.exp(-((pixel - side / 2) ** 2) / (2 * (side / 4) ** 2))
    distance = np.abs((pixel + 0.5) / CELL - 0.5 - np.arange(BLOCK)[:, None])
    of_block = gaussian * np.maximum(0, 1 - distance)
    blocks = size // CELL - BLOCK + 1
    weights = np.zeros((blocks, BLOCK, size))
    for block in range(blocks):
        weights[block, :, block * CELL : block * CELL + side] = of_block
    return weights.reshape(-1, size).astype(np.float32)


@functools.cache
def _coverage(cells: int) -> NDArray[np.float64]:
    """1 / (number of blocks that cover a cell), (block row, cell row, block column, cell column).

    The published code exchanges rows and columns of the cell inside its block here, and so do we.
    """
    covering = np.array([min(i + 1, BLOCK, cells - i, cells - BLOCK + 1) for i in range(cells)])
    n = covering[np.add.outer(np.arange(cells - BLOCK + 1), np.arange(BLOCK))]  # (block, cell)
    weights: NDArray[np.float64] = 1 / np.einsum("ud,vc->ucvd", n, n)
    return weights


def brighter_than_surroundings(grey: Bytes) -> Bytes:
    """255 where a pixel exceeds the rounded mean of its 5x5 window (edges repeated), else 0."""
    padded = np.pad(grey, 2, "edge").astype(np.int16)
    rows = padded[:-4] + padded[1:-3] + padded[2:-2] + padded[3:-1] + padded[4:]
    total = rows[:, :-4] + rows[:, 1:-3] + rows[:, 2:-2] + rows[:, 3:-1] + rows[:, 4:]
    # grey > floor(total / 25 + 1/2), in integers
    above: Bytes = (50 * grey.astype(np.int16) > 2 * total + 25).astype(np.uint8) * 255
    return above


def opening(mask: Bytes, rows: int) -> Bytes:
    """Keeps what lies in vertical runs of at least `rows` pixels.

    Erosion and dilation use the same window y - rows//2 ... y + rows - 1 - rows//2, so with an
    even number of rows the result lies one row lower, as published. Outside counts for neither.
    """
    if rows < 2:
        return mask
    above, below = rows // 2, rows - 1 - rows // 2
    edges = ((above, below), (0, 0))
    eroded = _running(np.minimum, np.pad(mask, edges, constant_values=255), rows)
    return _running(np.maximum, np.pad(eroded, edges, constant_values=0), rows)


def _running(extreme: np.ufunc, values: Bytes, rows: int) -> Bytes:
    """The extreme over each window of `rows` rows, by doubling."""
    length = 1
    while 2 * length <= rows:
        values = extreme(values[:-length], values[length:])
        length *= 2
    rest = rows - length
    return values if rest == 0 else extreme(values[:-rest], values[rest:])
