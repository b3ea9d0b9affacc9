"""How certain a mean over pictures is: bootstrap intervals.

Source: Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
RESAMPLES = 4000
FEWEST = 5  # with fewer scenes, an interval says nothing


def bootstrap_interval(
    values: Sequence[float], scenes: Sequence[int] | None = None, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % interval of the mean: percentiles of means over scenes drawn with replacement.

    Args:
        values: one per picture.
        scenes: the scene of each picture, as any number; pictures of one scene are drawn together.
            With None, every picture is its own scene.
        seed: the seed of the draws, so that a table is reproducible.

    Returns:
        (low, high), or None for fewer than five scenes or values that are not finite.
    """
    numbers = np.arange(len(values)) if scenes is None else np.unique(scenes, return_inverse=True)[1]
    count = int(numbers.max()) + 1 if len(values) else 0
    if count < FEWEST or not np.isfinite(values).all():
        return None
    sums, sizes = np.bincount(numbers, values), np.bincount(numbers)
    random = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):  # one at a time: a set may have thousands of pictures
        drawn = random.integers(0, count, count)
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
