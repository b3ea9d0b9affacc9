"""Pictures in which rain falls sideways, such as those taken with the camera on its side.

Networks learn rain that falls down, and take most horizontal lines for part of the scene. So a picture in
which they do not find much rain is tried again, turned by 90 degrees: first only its middle, which costs
little, and if rain clearly shows there, all of it. The result is kept if rain clearly shows there as well.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from derain.restore.inference import BandSource, Restored
from derain.restore.rain import Rain, measure_rain
from derain.restore.test_time import Position, turned

ON_ITS_SIDE: Position = (3, False)  # clockwise

# The middle that is tried is half as high and wide as the picture, within these bounds, in pixels.
MIN_TRIED_SIDE, MAX_TRIED_SIDE = 256, 512
# Only pictures whose signal, when upright, is at most this are tried. It is not zero because shiny horizontal
# lines look a little like rain. Signals are those of `derain.restore.rain`.
MAX_UPRIGHT_SIGNAL = 0.014
# The signal of the turned picture must be above this, and above the threshold of the weights.
MIN_TURNED_SIGNAL = 0.005
MIN_TURNED_SIGNAL_IN_RAIN = 0.02  # the same if rain was found in the upright picture
# How many times as much rain, as signal times contrast, the turned picture must show. The signal alone missed
# dense sideways rain, in which a network also takes faint vertical patterns for rain. With all three limits,
# 49 of 50 pictures of Rain100L on their side are turned, 3 of 388 dry photographs, and 1 of 208 upright
# pictures of rain, in which it falls at 60 degrees.
MIN_RATIO = 12
# Only "seems to", because some dry pictures are turned by mistake.
NOTE = "its rain seems to fall sideways, so it was restored on its side"


def middle_of(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the middle of a picture, which is tried first."""
    return _middle(height), _middle(width)


def _middle(length: int) -> slice:
    part = min(length, max(MIN_TRIED_SIDE, min(MAX_TRIED_SIDE, length // 2)))
    return slice((length - part) // 2, (length + part) // 2)


def may_fall_sideways(
    as_it_stands: Rain,
    seen: Callable[[], BandSource],
    restore: Callable[[Tensor], Restored],
    threshold: float,
) -> bool:
    """Whether to restore a picture turned by `ON_ITS_SIDE`: whether its middle, turned, clearly shows rain.

    Args:
        as_it_stands: the rain that was found in the upright picture.
        seen: returns the picture at the size at which the network sees it.
        restore: restores pictures (1, 3, h, w).
        threshold: the rain threshold of the weights; see `derain.restore.rain`.
    """
    if as_it_stands.signal > max(MAX_UPRIGHT_SIGNAL, threshold):
        return False
    source = seen()
    down, across = middle_of(source.height, source.width)
    middle = turned(source.rows(down.start, down.stop)[..., across], ON_ITS_SIDE)
    return falls_sideways(measure_rain(middle, restore(middle).image), as_it_stands, threshold)


def falls_sideways(on_its_side: Rain, as_it_stands: Rain, threshold: float) -> bool:
    """Whether rain clearly shows in a picture on its side, and not when it is upright."""
    least = MIN_TURNED_SIGNAL_IN_RAIN if as_it_stands.is_raining else MIN_TURNED_SIGNAL
    is_clear = on_its_side.signal > max(least, threshold)
    return is_clear and _visible(on_its_side) > MIN_RATIO * _visible(as_it_stands)


def _visible(rain: Rain) -> float:
    return rain.signal * rain.contrast
