"""Pads pictures beyond their edges."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def pad_to(picture: Tensor, height: int, width: int) -> Tensor:
    """Extends (..., H, W) at the bottom and right by reflection that does not repeat the edge pixel;
    a picture smaller than the extension is reflected repeatedly."""
    for axis, total in ((-2, height), (-1, width)):
        there = picture.shape[axis]
        if total != there:
            beyond = _reflected(there, total)[there:].to(picture.device)
            picture = torch.cat((picture, picture.index_select(axis, beyond)), axis)
    return picture


def pad_to_multiple(picture: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Extends (..., H, W) as `pad_to` does, to sides that are multiples and at least `least`."""
    height, width = (max(least, round_up(side, multiple)) for side in picture.shape[-2:])
    return pad_to(picture, height, width)


def round_up(length: int, multiple: int) -> int:
    """The smallest multiple that is not below a length."""
    return -(-length // multiple) * multiple


def padded_rows(
    rows: Callable[[int, int], Tensor], there: int, height: int, width: int
) -> Callable[[int, int], Tensor]:
    """`pad_to(picture, height, width)` for a picture of `there` rows, where both the picture and the result
    are functions that return rows from the first up to the last + 1."""
    source = _reflected(there, height).tolist()

    def padded(first: int, end: int) -> Tensor:
        wanted = source[first:end]
        lowest, highest = min(wanted), max(wanted) + 1
        found = rows(lowest, highest)
        if end > there:
            own = max(0, there - first)
            mirrored = torch.tensor(wanted[own:], device=found.device) - lowest
            beyond = found.index_select(-2, mirrored)
            found = torch.cat((found[..., first - lowest : there - lowest, :], beyond), -2) if own else beyond
        return pad_to(found, end - first, width)

    return padded


def _reflected(length: int, total: int) -> Tensor:
    period = max(2 * (length - 1), 1)
    index = torch.arange(total) % period
    return torch.where(index < length, index, period - index)
