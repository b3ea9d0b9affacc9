"""Rain close to the camera, whose streaks are too wide for a network.

Of streaks wider than those in training, a network takes off little. In a copy of half the size, they are as
wide as it knows them. So where it rained, the result is looked at again in such a copy, and if rain still
shows there, it is taken off, too. Rain of the usual width has gone by then, and nothing is found.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from derain.restore.inference import BandSource, Restored
from derain.restore.rain import Rain, measure_rain
from derain.restore.reduced import enlarged_rows

# The signal (see `derain.restore.rain`) of what remains must be above this, and above the threshold of the
# weights. In results of synthetic rain of usual width it stays below a twentieth of this, and in a clip with
# a grainy scene below a half.
MIN_REMAINING_SIGNAL = 0.002
# What remains may have at most so many times the signal of the rain that was found: more is a pattern of the
# scene, as in six of 388 dry photographs.
MAX_RATIO = 2
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
        found: the rain that was found in the picture.
        half: the result, at half the size at which the network saw the picture.
        size: the height and width at which it saw it.
        restore: for pictures (1, 3, h, w).
        threshold: of the weights, see `derain.restore.rain`.
    """
    if min(half.height, half.width) < SMALLEST:
        return False
    seen = half.rows(0, half.height)
    # Measured on as many pixels as the rain before.
    change = enlarged_rows(seen - restore(seen).image, *size, 0, size[0])
    remains = measure_rain(change, torch.zeros_like(change))
    return max(MIN_REMAINING_SIGNAL, threshold) < remains.signal < MAX_RATIO * found.signal
