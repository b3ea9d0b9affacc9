"""Pictures in which rain falls sideways, as where the camera lay on its side.

Networks learn rain that falls down, and take most lines across for things that stay. So a picture in which
they do not find much rain is tried again, turned by 90 degrees: its middle only, which costs little, and
where rain clearly shows there, all of it. The result is kept if it clearly shows in the whole picture, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from derain.restore.inference import BandSource, Restored
from derain.restore.rain import Rain, measure_rain
from derain.restore.test_time import Position, turned

Result = TypeVar("Result")

ON_ITS_SIDE: Position = (3, False)  # clockwise

# The part that is tried is half as high and wide as the picture, within these bounds, in pixels.
LEAST, MOST = 256, 512
# The signal of a picture as it stands up to which it is tried: lines across it that glisten look like some
# rain.
SOME = 0.014
# The signal of the turned picture must be above this, and above the threshold of the weights. Of 371 upright
# pictures, two dry ones pass this and the next test, and one in which rain falls at 60 degrees; at half of
# it a picture of drops would, too.
SURE = 0.006
# How many times as much rain, by signal and contrast, the turned picture must have. By signal alone, dense
# rain that falls sideways was missed, in which a network takes faint upright patterns for rain as well. One
# crop of upright rain has 11 times as much turned; 48 pictures of rain that falls sideways, above 17 times.
TIMES = 14
NOTE = "rain falls sideways, so the picture was turned by 90 degrees for the network"


def middle_of(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the part of a picture that is tried."""
    return _middle(height), _middle(width)


def _middle(length: int) -> slice:
    part = min(length, max(LEAST, min(MOST, length // 2)))
    return slice((length - part) // 2, (length + part) // 2)


@dataclass(frozen=True)
class Sideways:
    """The decision whether a picture is restored turned.

    Attributes:
        restore: for pictures (1, 3, h, w).
        threshold: signal above which it rains, see `derain.restore.rain`.
        strength: of the change that `restore` makes, above 0.
    """

    restore: Callable[[Tensor], Restored]
    threshold: float
    strength: float

    def result(
        self,
        as_it_stands: Rain,
        seen: Callable[[], BandSource],
        whole: Callable[[], tuple[Result, Rain]],
    ) -> Result | None:
        """What `whole` makes of a picture in which rain falls sideways; None if it does not.

        Args:
            as_it_stands: the rain that was found in the picture before.
            seen: returns the picture at the size at which the network sees it.
            whole: restores all of it turned by `ON_ITS_SIDE`, and measures the rain; called only if much rain
                shows in the middle.
        """
        if as_it_stands.signal > max(SOME, self.threshold):
            return None

        def surely(rain: Rain) -> bool:
            return rain.signal > max(SURE, self.threshold) and _visible(rain) > TIMES * _visible(as_it_stands)

        source = seen()
        down, across = middle_of(source.height, source.width)
        middle = turned(source.rows(down.start, down.stop)[..., across], ON_ITS_SIDE)
        if not surely(measure_rain(middle, self.restore(middle).image, self.strength)):
            return None
        result, rain = whole()
        return result if surely(rain) else None


def _visible(rain: Rain) -> float:
    return rain.signal * rain.contrast
