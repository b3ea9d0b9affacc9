"""Rain close to the camera, whose streaks are too wide for a network.

A network removes little of streaks wider than those it was trained on. In a copy of half the size, they have
the width that it knows. So if a picture shows rain, its result is restored again in such a copy, and rain
that is still found there is removed as well. Where all rain had the usual width, the first pass has already
removed it, and nothing more is found.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from derain.restore.inference import BandSource, Restored
from derain.restore.rain import Rain, measure_rain
from derain.restore.reduced import enlarged_rows

# The signal (see `derain.restore.rain`) of the rain that remains must be above this, and above the threshold
# of the weights. In results for Rain100L, whose rain has the usual width, it stays below this.
MIN_REMAINING_SIGNAL = 0.0015
# What remains may have at most this many times the signal of the rain that was found at first: more is mostly
# a pattern of the scene.
MAX_RATIO = 0.6
SMALLEST = 128  # pixels: shorter side of a copy in which rain can be told from the scene
NOTE = "removed wide streaks in a second pass at half the size"


def wide_streaks_remain(
    found: Rain,
    half: BandSource,
    size: tuple[int, int],
    restore: Callable[[Tensor], Restored],
    threshold: float,
) -> bool:
    """Whether wide streaks remain in a result.

    Args:
        found: the rain that was found in the picture at first.
        half: the result, at half the size at which the network saw the picture.
        size: the height and width at which the network saw it.
        restore: restores pictures (1, 3, h, w).
        threshold: the rain threshold of the weights; see `derain.restore.rain`.
    """
    if min(half.height, half.width) < SMALLEST:
        return False
    seen = half.rows(0, half.height)
    # Measured at the same size as the rain that was found at first.
    change = enlarged_rows(seen - restore(seen).image, *size, 0, size[0])
    remains = measure_rain(change, torch.zeros_like(change))
    return max(MIN_REMAINING_SIGNAL, threshold) < remains.signal < MAX_RATIO * found.signal
