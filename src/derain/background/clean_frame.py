"""The clean background of a rainy clip from a camera that does not move.

Two passes over the stored frames, tile by tile: the first lets all pixels vote for a percentile,
the second takes this percentile of every sample's history. Both are exact for any tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain.background import votes as voting
from derain.background.frame_store import FrameStore
from derain.background.histories import Modes, Plane, modes, sort_histories
from derain.background.stability import Stability, measure_stability

TILE = 32_768  # samples of a plane: enough to amortise the cost of a call, few enough for the cache
TILE_BYTES = 64 * 2**20  # limit for all planes of a tile, which reduces TILE for very long clips
BAND_BYTES = 192 * 2**20  # read from the store at once, so that disk reads are long

NEAR = 4  # levels within which a frame agrees with the result
APART = 12  # least distance in levels between the mode and another state of the pixel
STEADY = 6  # levels within which that other state must stay
LASTING = 0.2  # share of the frames for which it must last

PixelProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class CleanFrame:
    """The result, and what helps to decide whether to trust it.

    Attributes:
        picture: (H, W, 3) uint8 RGB.
        votes: (101,) the votes for each percentile.
        percentile: the winner, 0 to 100.
        frames: how many were used.
        confidence: (H, W) uint8, percentage of the frames within 4 levels of the result; the lowest
            of the three channels.
        disagreement: (H, W) uint8, the largest difference of a channel from the temporal median.
        two_states: (H, W) bool, pixels where another luma, at least 12 levels from the most
            frequent one, lasts for a fifth of the frames: something stood there for a while.
        stability: how constant exposure and camera were.
    """

    picture: NDArray[np.uint8]
    votes: NDArray[np.int64]
    percentile: int
    frames: int
    confidence: NDArray[np.uint8]
    disagreement: NDArray[np.uint8]
    two_states: NDArray[np.bool_]
    stability: Stability


def clean_frame(
    frames: Iterable[NDArray[np.uint8]],
    variant: voting.Variant = "fixed",
    scratch: Path | None = None,
    tile: int = TILE,
    progress: PixelProgress | None = None,
) -> CleanFrame:
    """Computes the clean picture of a clip.

    Args:
        frames: pictures (H, W, 3) uint8 RGB of one size, 1 to 65,535 of them; read once.
        variant: "fixed" (all-integer) or "official" (bit parity with the published notebook).
        scratch: folder for a temporary file when the clip does not fit in memory.
        tile: samples of a plane that are processed at once; the result does not depend on it.
        progress: called with the pixels done and their total; each pixel counts twice, once for
            the vote and once for the result.

    Raises:
        DerainError: no frames, frames of different sizes, too many frames, or a full disk.
    """
    with FrameStore(frames, scratch) as store:
        tile = max(1, min(tile, TILE_BYTES // store.frames))
        counts, two_states = _vote(store, variant, tile, progress)
        percentile = int(np.argmax(counts))
        picture, confidence, disagreement = _take_percentile(store, percentile, variant, tile, progress)
        stability = measure_stability(store, picture)
    return CleanFrame(
        picture, counts, percentile, store.frames, confidence, disagreement, two_states, stability
    )


def _vote(
    store: FrameStore, variant: voting.Variant, tile: int, progress: PixelProgress | None
) -> tuple[voting.Counts, NDArray[np.bool_]]:
    """The votes of all pixels, and the pixels that have two states."""
    ballot = voting.ballot(store.frames, variant)
    may_vote = voting.voters(store.height, store.width, variant).ravel()
    counts = np.zeros(101, np.int64)
    two_states = np.empty(store.pixels, bool)
    for start, samples in _tiles(store, tile):
        here = slice(start, start + samples.shape[1])
        columns = np.arange(here.start, here.stop) % store.width
        ordered = sort_histories(voting.luma(samples, columns, variant))
        ranks = modes(ordered)
        counts += ballot.count(ranks, may_vote[here])
        two_states[here] = _has_second_state(ordered, ranks)
        if progress is not None:
            progress(here.stop, 2 * store.pixels)
    return counts, two_states.reshape(store.height, store.width)


def _take_percentile(
    store: FrameStore, percentile: int, variant: voting.Variant, tile: int, progress: PixelProgress | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture at a percentile, its confidence and its disagreement with the median."""
    picture, confidence, disagreement = np.empty((3, store.pixels, 3), np.uint8)
    for start, samples in _tiles(store, max(1, tile // 3)):
        here = slice(start, start + samples.shape[1])
        ordered = sort_histories(list(samples.reshape(store.frames, -1)))
        result = voting.percentile_samples(ordered, percentile, variant)
        picture[here] = result.reshape(-1, 3)
        confidence[here] = _share_near(ordered, result).reshape(-1, 3)
        median = voting.percentile_samples(ordered, 50, "fixed")
        disagreement[here] = _difference(result, median).reshape(-1, 3)
        if progress is not None:
            progress(store.pixels + here.stop, 2 * store.pixels)
    size = (store.height, store.width)
    return (
        picture.reshape(*size, 3),
        confidence.min(1).reshape(size),
        disagreement.max(1).reshape(size),
    )


def _tiles(store: FrameStore, tile: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(first pixel, samples (T, P, 3)) of tiles that cover the picture, P <= tile."""
    band = max(tile, BAND_BYTES // (3 * store.frames) // tile * tile)
    for band_start in range(0, store.pixels, band):
        samples = store.read(band_start, min(band_start + band, store.pixels))
        for start in range(0, samples.shape[1], tile):
            yield band_start + start, np.ascontiguousarray(samples[:, start : start + tile])


def _difference(a: Plane, b: Plane) -> Plane:
    return np.maximum(a, b) - np.minimum(a, b)


def _share_near(planes: list[Plane], result: Plane) -> Plane:
    """Percentage of the planes within `NEAR` levels of the result, sample by sample."""
    low = np.maximum(result, NEAR) - np.uint8(NEAR)
    high = np.minimum(result, 255 - NEAR) + np.uint8(NEAR)
    count: Any = np.zeros(result.size, np.uint8 if len(planes) <= 255 else np.uint16)
    inside, below = np.empty((2, result.size), bool)
    for plane in planes:
        np.greater_equal(plane, low, out=inside)
        np.less_equal(plane, high, out=below)
        np.logical_and(inside, below, out=inside)
        np.add(count, inside, out=count)
    share: Plane = (100 * count.astype(np.uint32) // len(planes)).astype(np.uint8)
    return share


def _has_second_state(ordered: list[Plane], ranks: Modes) -> NDArray[np.bool_]:
    """Where many sorted samples in a row lie close together, and far from the mode."""
    span = max(3, int(np.ceil(LASTING * len(ordered))))
    above = np.minimum(ranks.value, 255 - APART) + np.uint8(APART)
    below = np.maximum(ranks.value, APART) - np.uint8(APART)
    found = np.zeros(ranks.value.size, bool)
    for low, high in zip(ordered, ordered[span - 1 :], strict=False):
        found |= (high - low <= STEADY) & ((low > above) | (high < below))
    return found
