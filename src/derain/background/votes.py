"""The vote for one percentile: SPANet's clean-frame method, in two variants.

Source: Wang et al., "Spatial Attentive Single-Image Deraining with a High Quality Real Rain
Dataset", CVPR 2019. `fixed` is an all-integer definition without the mistakes of the published
notebook; `official` repeats them for bit parity:

- 128 is added to the luma of every column but the first, and wraps modulo 256;
- ranks are converted to per cent in float64, which loses some votes that fall on an integer;
- pixels at the border do not vote unless the width is a multiple of 4 and the height even;
- the output is interpolated in float64 and truncated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from derain.background.histories import Modes, Plane
from derain.errors import unknown_name

Variant = Literal["fixed", "official"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
Counts = NDArray[np.int64]


def check_variant(name: str) -> Variant:
    """`name` as a variant. Raises `UsageError` if there is none of this name."""
    for variant in VARIANTS:
        if name == variant:
            return variant
    raise unknown_name("variant", name, VARIANTS)


def luma(samples: Plane, columns: NDArray[np.int64], variant: Variant) -> list[Plane]:
    """The luma that votes, one plane per frame.

    Args:
        samples: (T, P, 3) RGB of P pixels.
        columns: (P,) the column of each pixel in the picture.
        variant: see the module.

    Returns:
        T planes (P,), uint8.
    """
    if variant == "official":
        shift = np.where(columns == 0, 0.0, 128.0)
        return [_official_luma(frame.astype(np.float64), shift) for frame in samples]
    return [_fixed_luma(frame) for frame in samples]


def _fixed_luma(frame: Plane) -> Plane:
    total = np.multiply(frame[:, 0], np.uint32(299), dtype=np.uint32)
    total += np.multiply(frame[:, 1], np.uint32(587), dtype=np.uint32)
    total += np.multiply(frame[:, 2], np.uint32(114), dtype=np.uint32)
    total //= np.uint32(1000)
    return total.astype(np.uint8)


def _official_luma(frame: NDArray[np.float64], shift: NDArray[np.float64]) -> Plane:
    grey = (0.299 * frame[:, 0] + 0.587 * frame[:, 1]) + 0.114 * frame[:, 2]
    return ((grey + shift).astype(np.int64) % 256).astype(np.uint8)


def voters(height: int, width: int, variant: Variant) -> NDArray[np.bool_]:
    """The pixels that have a vote, (height, width)."""
    if variant == "fixed":
        return np.ones((height, width), bool)
    votes = np.zeros((height, width), bool)
    kept = (width // 4) * (height // 2)
    for row in range(2):
        for column in range(4):
            rows = slice(int(height / 2 * row), int(height / 2 * (row + 1)))
            columns = slice(int(width / 4 * column), int(width / 4 * (column + 1)))
            group = votes[rows, columns]
            votes[rows, columns] = (np.arange(group.size) < kept).reshape(group.shape)
    return votes


@dataclass(frozen=True)
class Ballot:
    """Turns the ranks of a mode into votes: a mode on ranks a to b votes for the percentiles
    `start[a]` to `stop[b]`, inclusive, or for none if `start[a]` is above `stop[b]`."""

    start: Counts
    stop: Counts

    def count(self, ranks: Modes, may_vote: NDArray[np.bool_]) -> Counts:
        """The votes for the percentiles 0 to 100, (101,)."""
        begins = np.bincount(self.start[ranks.first[may_vote]], minlength=102)
        ends = np.bincount(self.stop[ranks.last[may_vote]] + 1, minlength=102)
        return np.cumsum(begins - ends)[:101]


def ballot(frames: int, variant: Variant) -> Ballot:
    """The ballot for histories of this many frames."""
    rank = np.arange(frames)
    if variant == "fixed":
        return Ballot(-(-100 * rank // frames), 100 * rank // frames)
    percent = rank / frames * 100
    return Ballot(np.ceil(percent).astype(np.int64), np.floor(percent).astype(np.int64))


def percentile_samples(ordered: list[Plane], percentile: int, variant: Variant) -> Plane:
    """The sample at a percentile of every sorted history, interpolated between ranks, truncated."""
    position, rest = divmod(percentile * (len(ordered) - 1), 100)
    low, high = ordered[position], ordered[min(position + 1, len(ordered) - 1)]
    if variant == "fixed":
        mixed = (100 - rest) * low.astype(np.uint16) + rest * high.astype(np.uint16)
        return (mixed // 100).astype(np.uint8)
    # NumPy's order of operations for its default percentile.
    virtual = percentile / 100 * (len(ordered) - 1)
    position = int(virtual)
    low, high = ordered[position], ordered[min(position + 1, len(ordered) - 1)]
    share, gap = virtual - position, (high - low).astype(np.float64)
    between = low + gap * share if share < 0.5 else high - gap * (1 - share)
    return between.astype(np.uint8)
