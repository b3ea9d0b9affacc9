"""Where the network is most uncertain: the two ranking matrices of UDR-S2Former.

Both split the entries of an array into a larger 80 % and the rest. A ranking jumps when rounding
swaps two entries at the cut, so results in float32 and float64 may differ where that happens; equal
entries are taken in the order of their index. No gradient passes through a ranking.
"""

from __future__ import annotations

import torch
from torch import Tensor

DAMPING = 0.6  # of the features that decide where to sample, outside the share
BOOST = 1.2  # of the logits of local attention, outside the share


def constraint(uncertainty: Tensor) -> Tensor:
    """The factors 1 (in the share) and 0.6 of every channel's ranking over all positions.

    Args:
        uncertainty: (B, C, H, W), a level's uncertainty features.

    Returns:
        (B, C, H, W).
    """
    u = uncertainty.detach()
    kept = largest(u.flatten(2), share_of(u.shape[2] * u.shape[3])).view(u.shape)
    return one_where(kept, DAMPING, u.dtype)


def modulation(uncertainty: Tensor, window: int) -> Tensor:
    """The factors 1 (in the share) and 1.2 of local attention's logits, from each window's Gram matrix.

    Args:
        uncertainty: (B, C, H, W) with all of C, H, W multiples of `window`.

    Returns:
        (B * windows, window^2, window^2), each row with its own ranking.
    """
    v = scrambled_windows(uncertainty.detach(), window)
    kept = largest(v @ v.transpose(1, 2), share_of(window * window))
    return one_where(kept, BOOST, v.dtype)


def one_where(kept: Tensor, other: float, dtype: torch.dtype) -> Tensor:
    """1 where an entry is kept, `other` elsewhere; in a quarter of the time of `torch.where`.

    `kept` is overwritten if it has this type.
    """
    return kept.to(dtype).mul_(1 - other).add_(other)


def scrambled_windows(u: Tensor, window: int) -> Tensor:
    """(B, C, H, W) -> (B * windows, window^2, C), in the published order.

    The published network cuts the channel-first features into windows as if they were channel-last,
    which mixes unrelated pixels and channels; trained weights expect exactly that.
    """
    b, c, h, w = u.shape
    scrambled = u.reshape(b, c // window, window, h // window, window, w).transpose(2, 3)
    return scrambled.reshape(-1, window * window, c)


def share_of(count: int) -> int:
    """80 % of the number of entries, rounded down."""
    return count * 4 // 5


def largest(x: Tensor, count: int) -> Tensor:
    """True at the `count` largest entries along the last axis; of equal ones, at the first."""
    return with_ties(x, x.topk(count, -1).values[..., -1:], count)


def with_ties(x: Tensor, threshold: Tensor, count: int) -> Tensor:
    """True at the `count` largest entries, where the smallest of each row's is its threshold (..., 1)."""
    above, equal = x > threshold, x == threshold
    return above | (equal & (equal.int().cumsum(-1) <= count - above.sum(-1, keepdim=True)))
