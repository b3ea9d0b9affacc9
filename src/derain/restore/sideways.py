"""Pictures in which rain falls sideways, as where the camera lay on its side.

Networks learn rain that falls down, and take most lines across for things that stay. So a picture in which
they find no rain is tried again, turned by 90 degrees: its middle only, which costs little. Rain that clearly
shows there, but not in the picture as it stands, falls sideways, and the whole picture is restored turned.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from derain.restore.inference import Restored
from derain.restore.rain import measure

MIDDLE = 384  # pixels, side of the part that is tried
SURE = 4  # how many times the threshold of rain the turned middle's signal must be
NOTE = "rain falls sideways, so the picture was turned by 90 degrees for the network"


def quarter_turn(picture: Tensor) -> Tensor:
    """(..., H, W) turned to the left: (..., W, H)."""
    return torch.rot90(picture, 1, (-2, -1))


def quarter_turn_back(picture: Tensor) -> Tensor:
    """Undoes `quarter_turn`."""
    return torch.rot90(picture, -1, (-2, -1))


def middle_of(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the part of a picture that is tried."""
    top, left = max(0, height - MIDDLE) // 2, max(0, width - MIDDLE) // 2
    return slice(top, min(top + MIDDLE, height)), slice(left, min(left + MIDDLE, width))


def falls_sideways(
    middle: Tensor, restore: Callable[[Tensor], Restored], threshold: float, strength: float
) -> bool:
    """Whether much rain shows in the middle of a picture once it is turned.

    Args:
        middle: (1, 3, h, w) float RGB in [0, 1], see `middle_of`.
        restore: for pictures (1, 3, h, w).
        threshold: signal above which it rains, see `derain.restore.rain`.
        strength: of the change that `restore` makes, above 0.
    """
    sides = quarter_turn(middle)
    return measure(sides, restore(sides).image, strength).signal > SURE * threshold


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
        if measure(one, images[index], strength, threshold).is_raining:
            continue
        if falls_sideways(one[..., rows, columns], restore, threshold, strength):
            again = restore(quarter_turn(one))
            images[index] = quarter_turn_back(again.image)
            for name, values in again.maps.items():
                maps[name][index] = quarter_turn_back(values)
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
