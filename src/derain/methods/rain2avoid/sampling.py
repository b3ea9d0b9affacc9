"""References without rain: every suspected pixel takes the colour of a clean neighbour.

Non-local stochastic sampling (NSS) of Peng, Li and Chen, IEEE TMM 2025: a pixel of the map M > 10
draws from the free pixels (M = 0) of its 7x7 window, with a probability that grows with the similarity
of their surroundings. 50 draws give 50 references (stochastic derained references, SDR); their mean is
the fused reference. The expectation over the draws needs no drawing: `mean_reference`.

The sums of absolute differences between surroundings are box sums of 48 difference maps, one per
offset between pixel and candidate, read off a summed-area table: constant work per candidate,
equal to the direct formulation in every byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from derain.errors import DerainError
from derain.methods.self_supervision import Bytes

REACH = 3  # candidates lie within 7x7
OFFSETS = [(y, x) for y in range(-REACH, REACH + 1) for x in range(-REACH, REACH + 1)]
STEPS = np.array([*OFFSETS, (0, 0)])  # (50, 2): the offsets, and at -1 no step at all
MARGIN = 2 * REACH  # surroundings (at most 7x7 for a pixel with candidates) of the furthest candidate
DRAWS = 50
BAND_PIXELS = 1 << 16  # rows processed at once: bounds the memory, fits the cache


@dataclass(frozen=True)
class Similarity:
    """How similar the surroundings p + o of a pixel and q + o of a candidate are.

    Attributes:
        compared: "rain" compares where p + o is suspected rain (M > 0), which gives the published
            references; "nonrain" where it is not, outside the picture included, which is what the
            published code does.
        eta: the weight of a candidate is 1 / (sum of absolute differences)^eta.
        threshold: pixels with a map value above it are replaced.
    """

    compared: Literal["rain", "nonrain"] = "rain"
    eta: float = 0.5
    threshold: int = 10


PUBLISHED = Similarity()


@dataclass(frozen=True)
class Candidates:
    """The pixels to replace, in raster order, and what they may take.

    Attributes:
        rows, columns: (T,) of the pixels.
        differences: (T, 49) int32; the sum of absolute differences to the candidate at each offset
            of `OFFSETS`, -1 where there is none.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    differences: NDArray[np.int32]


@dataclass(frozen=True)
class DrawnReferences:
    """Drawn references of one picture, kept as the offsets drawn (1 byte per pixel and draw).

    Attributes:
        picture: (H, W, 3) uint8, the rainy one.
        rows, columns: (T,) of the pixels that are replaced.
        choices: (T, draws) int8, numbers of `OFFSETS`; -1: the pixel stays.
    """

    picture: Bytes
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    choices: NDArray[np.int8]

    def __len__(self) -> int:
        return int(self.choices.shape[1])

    def __getitem__(self, draw: int) -> Bytes:
        """One reference, (H, W, 3) uint8."""
        offset = STEPS[self.choices[:, draw]]
        result = self.picture.copy()
        result[self.rows, self.columns] = self.picture[self.rows + offset[:, 0], self.columns + offset[:, 1]]
        return result

    def fused(self) -> Bytes:
        """The mean of all references, rounded half to even."""
        total = np.zeros(self.picture.shape, np.int32)
        for draw in range(len(self)):
            total += self[draw]
        return np.rint(total / len(self)).astype(np.uint8)


def sample_references(
    picture: Bytes, rain_map: Bytes, similarity: Similarity = PUBLISHED, draws: int = DRAWS
) -> DrawnReferences:
    """Non-local stochastic sampling, byte for byte as published.

    All pixels use the same uniform numbers, those of MT19937 seeded with 0, so the references
    are fixed positions in each pixel's cumulative distribution. A pixel without candidates stays.

    Raises:
        DerainError: picture and map differ in size.
    """
    uniforms = np.random.RandomState(0).random_sample(draws)  # the published generator
    bands = [
        (band.rows, band.columns, choose(probabilities(band.differences, similarity.eta), uniforms))
        for band in candidate_bands(picture, rain_map, similarity)
    ]
    rows, columns, choices = (np.concatenate(parts) for parts in zip(*bands, strict=True))
    return DrawnReferences(picture, rows, columns, choices)


def mean_reference(
    picture: Bytes, rain_map: Bytes, similarity: Similarity = PUBLISHED
) -> NDArray[np.float32]:
    """The expected reference, (H, W, 3) in [0, 255]: candidates' colours weighted by probability.

    Raises:
        DerainError: picture and map differ in size.
    """
    result = picture.astype(np.float32)
    for band in candidate_bands(picture, rain_map, similarity):
        p = probabilities(band.differences, similarity.eta)
        has = p.any(1)
        rows, columns, p = band.rows[has], band.columns[has], p[has]
        mean = np.zeros((len(rows), 3), np.float32)
        for number, (dy, dx) in enumerate(OFFSETS):
            inside = np.flatnonzero(p[:, number])
            mean[inside] += p[inside, number, None] * picture[rows[inside] + dy, columns[inside] + dx]
        result[rows, columns] = mean
    return result


def candidate_bands(picture: Bytes, rain_map: Bytes, similarity: Similarity) -> Iterator[Candidates]:
    """The pixels to replace and their candidates, some rows of the picture at a time.

    Raises:
        DerainError: picture and map differ in size.
    """
    height, width = picture.shape[:2]
    if rain_map.shape != (height, width):
        raise DerainError(
            f"the map is {rain_map.shape[1]}x{rain_map.shape[0]}, the picture {width}x{height}: "
            "both must have the same size."
        )
    planes = np.pad(picture.transpose(2, 0, 1), ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    free = np.pad(rain_map == 0, MARGIN)
    if similarity.compared == "rain":
        counts = np.pad(rain_map > 0, MARGIN)
    else:
        counts = np.pad(rain_map == 0, MARGIN, constant_values=True)
    targets = rain_map > similarity.threshold
    step = max(1, BAND_PIXELS // width)
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows = slice(start, stop + 2 * MARGIN)
        yield _candidates(planes[:, rows], free[rows], counts[rows], targets[start:stop], start)


def _candidates(
    planes: Bytes, free: NDArray[np.bool], counts: NDArray[np.bool], targets: NDArray[np.bool], first_row: int
) -> Candidates:
    """Those of one band; `planes` (3, h, w), `free` and `counts` reach MARGIN beyond `targets`."""
    y, x = np.nonzero(targets)
    width = free.shape[1]
    at = (y + MARGIN) * width + x + MARGIN
    steps = [dy * width + dx for dy, dx in OFFSETS]
    flat_free = free.reshape(-1)
    is_candidate = np.stack([flat_free[at + step] for step in steps])

    # Surroundings: the smallest window from 3x3 on that holds a free pixel. A pixel with
    # candidates has one within 7x7; for the others the radius does not matter.
    distances = [max(abs(dy), abs(dx)) for dy, dx in OFFSETS]
    nearest = np.where(is_candidate, np.array(distances)[:, None], REACH).min(0)
    radius = np.maximum(nearest, 1)

    # The four corners of each target's window in the summed-area table, which begins REACH
    # pixels outside the band.
    table_width = width - 2 * REACH + 1
    top, bottom = (y + REACH - radius) * table_width, (y + REACH + radius + 1) * table_width
    left, right = x + REACH - radius, x + REACH + radius + 1
    corners = (bottom + right, top + right, bottom + left, top + left)

    h, w = free.shape[0] - 2 * REACH, width - 2 * REACH
    centre = planes[:, REACH : REACH + h, REACH : REACH + w]
    counted = counts[REACH : REACH + h, REACH : REACH + w].astype(np.uint16)
    table = np.zeros((h + 1, table_width), np.int32)
    differences = np.full((len(OFFSETS), len(y)), -1, np.int32)
    for number, (dy, dx) in enumerate(OFFSETS):
        if not is_candidate[number].any():
            continue
        other = planes[:, REACH + dy : REACH + dy + h, REACH + dx : REACH + dx + w]
        each = np.maximum(centre, other) - np.minimum(centre, other)
        total = each.sum(0, dtype=np.uint16) * counted
        np.cumsum(np.cumsum(total, 0, dtype=np.int32), 1, out=table[1:, 1:])
        flat = table.reshape(-1)
        d = flat[corners[0]] - flat[corners[1]] - flat[corners[2]] + flat[corners[3]]
        differences[number] = np.where(is_candidate[number], d, -1)
    return Candidates(y + first_row, x, np.ascontiguousarray(differences.T))


def probabilities(differences: NDArray[np.int32], eta: float) -> NDArray[np.float32]:
    """Of each candidate, (T, 49) float32; 0 where there is none. Sums run in the published order."""
    most = int(differences.max(initial=0))
    weight_of = (1 / np.maximum(np.arange(most + 1, dtype=np.float64) ** eta, 1e-4)).astype(np.float32)
    result = np.zeros(differences.shape, np.float32)
    is_candidate = differences >= 0
    number = is_candidate.sum(1)
    for n in np.unique(number[number > 0]):
        rows = np.flatnonzero(number == n)
        mask = is_candidate[rows]
        weights = weight_of[differences[rows][mask]].reshape(-1, n)
        block = np.zeros(mask.shape, np.float32)
        block[mask] = (weights / weights.sum(1, keepdims=True)).reshape(-1)
        result[rows] = block
    return result


def choose(probability: NDArray[np.float32], uniforms: NDArray[np.float64]) -> NDArray[np.int8]:
    """The candidate that each uniform number in [0, 1) picks, (T, draws); -1 without candidates.

    Args:
        probability: (T, 49).
        uniforms: (draws,), the same for all pixels, or (T, draws).
    """
    cumulative = np.cumsum(probability, 1, dtype=np.float64)
    total = cumulative[:, -1:].copy()
    cumulative /= np.where(total == 0, 1, total)
    wanted = torch.from_numpy(uniforms).expand(len(cumulative), uniforms.shape[-1]).contiguous()
    # An offset without candidate repeats the sum before it, so it is never the first to exceed.
    picked = torch.searchsorted(torch.from_numpy(cumulative), wanted, right=True).numpy()
    return np.where(total == 0, -1, picked).astype(np.int8)
