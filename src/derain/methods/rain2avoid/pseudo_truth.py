"""Pseudo ground truths of the first paper (Peng and Li, ICASSP 2023).

Every pixel of the map M > 0 takes the colour of a free pixel (M = 0) of its 7x7 window, drawn
uniformly and for each pixel and picture again. As published, a pixel without any free neighbour
ends its row: what follows in it stays rainy (0.06 % of the pixels of Rain100L).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from derain.methods.rain2avoid.sampling import (
    DRAWS,
    Candidates,
    DrawnReferences,
    Similarity,
    candidate_bands,
    choose,
    probabilities,
)
from derain.methods.self_supervision import Bytes

UNIFORM = Similarity(eta=0, threshold=0)


def sample_pseudo_truths(
    picture: Bytes, rain_map: Bytes, draws: int = DRAWS, seed: int = 0
) -> DrawnReferences:
    """References by uniform filling; the published draws were not seeded, so only their distribution
    can be reproduced.

    Raises:
        DerainError: picture and map differ in size.
    """
    random = np.random.default_rng(seed)
    parts = []
    for band in candidate_bands(picture, rain_map, UNIFORM):
        uniforms = random.random((len(band.rows), draws))
        choices = choose(probabilities(band.differences, UNIFORM.eta), uniforms)
        choices[_skipped(band)] = -1
        parts.append((band.rows, band.columns, choices))
    rows, columns, choices = (np.concatenate(part) for part in zip(*parts, strict=True))
    return DrawnReferences(picture, rows, columns, choices)


def _skipped(band: Candidates) -> NDArray[np.bool]:
    """Pixels at or behind the first of their row that has no candidate, (T,)."""
    without = np.flatnonzero((band.differences < 0).all(1))
    first = np.full(band.rows.max(initial=0) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, band.rows[without], band.columns[without])
    return band.columns >= first[band.rows]
