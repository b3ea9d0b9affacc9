"""Pictures in which rain falls sideways, as where the camera lay on its side.

Networks learn rain that falls down, and take most lines across for things that stay. So a picture in which
they find no rain is tried again, turned by 90 degrees: its middle only, which costs little, and where
rain clearly shows there, all of it. The result is kept if it clearly shows in the whole picture, too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from derain.restore.inference import Restored
from derain.restore.rain import Rain, measure
from derain.restore.test_time import Position, turned, turned_back

ON_ITS_SIDE: Position = (1, False)

# The part that is tried is half as high and wide as the picture, within these bounds, in pixels.
LEAST, MOST = 256, 512
# How many times the threshold, and the signal of the picture as it stands, the signal of the turned one must
# be. Real rain before a dark, wet ground with lines across reached 4 and 16 times.
SURE, TIMES = 5, 20
NOTE = "rain falls sideways, so the picture was turned by 90 degrees for the network"


def middle_of(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the part of a picture that is tried."""
    return _middle(height), _middle(width)


def _middle(length: int) -> slice:
    part = min(length, max(LEAST, min(MOST, length // 2)))
    return slice((length - part) // 2, (length + part) // 2)


def falls_sideways(
    middle: Tensor,
    as_it_stands: Rain,
    restore: Callable[[Tensor], Restored],
    threshold: float,
    strength: float,
) -> bool:
    """Whether much rain shows in the middle of a picture, where none was found as it stands, once turned.

    Args:
        middle: (1, 3, h, w) float RGB in [0, 1], see `middle_of`.
        as_it_stands: what was found in the picture before.
        restore: for pictures (1, 3, h, w).
        threshold: signal above which it rains, see `derain.restore.rain`.
        strength: of the change that `restore` makes, above 0.
    """
    rainy = turned(middle, ON_ITS_SIDE)
    return is_sure(measure(rainy, restore(rainy).image, strength), as_it_stands, threshold)


def is_sure(on_its_side: Rain, as_it_stands: Rain, threshold: float) -> bool:
    """Whether so much more rain was found in a turned picture that it is no mistake."""
    return on_its_side.signal > max(SURE * threshold, TIMES * as_it_stands.signal)


def turned_where_sideways(
    rainy: Tensor,
    found: Restored,
    restore: Callable[[Tensor], Restored],
    threshold: float,
    strength: float,
) -> Restored:
    """The results of pictures, (B, 3, H, W), with those restored again in which rain falls sideways.

    Args:
        rainy: float RGB in [0, 1].
        found: as they stand.
        restore, threshold, strength: see `falls_sideways`.
    """
    rows, columns = middle_of(*rainy.shape[-2:])
    images, sideways = list(found.image.split(1)), []
    maps = {name: list(values.split(1)) for name, values in found.maps.items()}
    for index, one in enumerate(rainy.split(1)):
        as_it_stands = measure(one, images[index], strength, threshold)
        if as_it_stands.is_raining:
            continue
        if falls_sideways(one[..., rows, columns], as_it_stands, restore, threshold, strength):
            side = turned(one, ON_ITS_SIDE)
            again = restore(side)
            if not is_sure(measure(side, again.image, strength), as_it_stands, threshold):
                continue
            images[index] = turned_back(again.image, ON_ITS_SIDE)
            for name, values in again.maps.items():
                maps[name][index] = turned_back(values, ON_ITS_SIDE)
            sideways.append(index)
    if not sideways:
        return found
    return Restored(
        torch.cat(images),
        {name: torch.cat(values) for name, values in maps.items()},
        with_note(found.note),
        tuple(sideways),
    )


def with_note(note: str) -> str:
    """What else was done, and that the picture was turned."""
    return "; ".join(part for part in (NOTE, note) if part)
