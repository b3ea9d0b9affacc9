"""Where the network is most uncertain: the two ranking matrices of UDR-S2Former.

Both split the entries of an array into a larger 80 % and the rest. A ranking jumps when rounding
swaps two entries at the cut, so results in float32 and float64 may differ where that happens; equal
entries are taken in the order of their index. No gradient passes through a ranking.
"""

from __future__ import annotations

import torch
from torch import Tensor

from derain.methods.udr_s2former.layers import pieces
from derain.nn.tracing import is_tracing

DAMPING = 0.6  # of the features that decide where to sample, outside the share
BOOST = 1.2  # of the logits of local attention, outside the share
_WINDOWS_AT_ONCE = 64


def constraint(uncertainty: Tensor) -> Tensor:
    """The factors 1 (in the share) and 0.6 of every channel's ranking over all positions.

    Args:
        uncertainty: (B, C, H, W), a level's uncertainty features.

    Returns:
        (B, C, H, W), in the memory format of `uncertainty`.
    """
    u = uncertainty.detach()
    flat = u.flatten(2)
    kept = largest(flat, share_of(u.shape[2] * u.shape[3])).view(u.shape)
    factors = torch.where(kept, 1.0, DAMPING).to(u.dtype)
    channels_last = u.is_contiguous(memory_format=torch.channels_last)
    return factors.contiguous(memory_format=torch.channels_last) if channels_last else factors


def modulation(uncertainty: Tensor, window: int) -> Tensor:
    """The factors 1 (in the share) and 1.2 of local attention's logits, from each window's Gram matrix.

    The published network cuts the channel-first features into windows as if they were channel-last,
    which mixes unrelated pixels and channels; trained weights expect exactly that.

    Args:
        uncertainty: (B, C, H, W) with all of C, H, W multiples of `window`.

    Returns:
        (B * windows, window^2, window^2), each row with its own ranking.
    """
    u = uncertainty.detach()
    b, c, h, w = u.shape
    scrambled = u.reshape(b, c // window, window, h // window, window, w).transpose(2, 3)
    slices = scrambled.reshape(-1, window * window, c)
    count = share_of(window * window)
    grams = (torch.bmm(v, v.transpose(1, 2)) for (v,) in pieces(_WINDOWS_AT_ONCE, slices))
    return torch.cat([torch.where(largest(gram, count), 1.0, BOOST).to(u.dtype) for gram in grams])


def share_of(count: int) -> int:
    """80 % of so many entries, rounded down."""
    return count * 4 // 5


def largest(x: Tensor, count: int) -> Tensor:
    """True at the `count` largest entries along the last axis; of equal ones, at the first."""
    if x.device.type == "cpu" and not is_tracing():
        threshold = _partitioned(x, count)
        kept = x >= threshold
        if int(kept.count_nonzero()) == count * threshold.numel():  # no entry equals another at the cut
            return kept
    else:
        threshold = x.topk(count, -1).values[..., -1:]
    above, equal = x > threshold, x == threshold
    return above | (equal & (equal.int().cumsum(-1) <= count - above.sum(-1, keepdim=True)))


def _partitioned(x: Tensor, count: int) -> Tensor:
    """The `count`-th largest entry of each row, by NumPy's partition: 10 times faster than a top-k."""
    position = x.shape[-1] - count
    rows = x.to(torch.promote_types(x.dtype, torch.float32)).numpy().copy()
    rows.partition(position, axis=-1)
    return torch.from_numpy(rows[..., position : position + 1].copy()).to(x.dtype)
