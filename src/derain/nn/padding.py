"""Pictures continued beyond their edges."""

from __future__ import annotations

import torch
from torch import Tensor


def pad_to(picture: Tensor, height: int, width: int) -> Tensor:
    """Extends (..., H, W) at the bottom and right by reflection that does not repeat the edge pixel;
    a picture smaller than the extension is reflected repeatedly."""
    for axis, total in ((-2, height), (-1, width)):
        if total != picture.shape[axis]:
            index = _reflected(picture.shape[axis], total).to(picture.device)
            picture = picture.index_select(axis, index)
    return picture


def _reflected(length: int, total: int) -> Tensor:
    period = max(2 * (length - 1), 1)
    index = torch.arange(total) % period
    return torch.where(index < length, index, period - index)
