"""Attention across channels: the parts that do not depend on how its rows are normalised.

Q, K and V of a head are (C, P) matrices, one row per channel over the P pixels of the picture. The
logits are temperature * cos(q_i, k_j), a C x C matrix; the result is A V with A made from them
(Zamir et al., "Restormer", CVPR 2022). Neither the normalised Q and K nor A V need to exist:

    logits = temperature * (Q K^T)_ij / (|q_i| |k_j|)      sums over pixels, taken piece by piece
    project(A V) = (project blockdiag(A)) V                one C_all x C_all matrix per picture
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_NORM = 1e-12


class CosineSums:
    """Adds up Q K^T and the squared norms over pieces of the picture.

    Which logits are largest can depend on their last digits, so products are taken in float32 at
    least, and pieces are added in float64.
    """

    def __init__(self, heads: int) -> None:
        self.heads = heads
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, q: Tensor, k: Tensor) -> None:
        """q and k: (B, c, h, w) of one piece, best in channels-last memory; heads are channel blocks."""
        q, k = self._split(q), self._split(k)
        piece = (q.transpose(-2, -1) @ k, _squares(q), _squares(k))
        first, second, third = (part.double() for part in piece)
        if self._sums is not None:
            first, second, third = first + self._sums[0], second + self._sums[1], third + self._sums[2]
        self._sums = first, second, third

    def _split(self, x: Tensor) -> Tensor:
        """(B, c, h, w) -> (B, heads, pixels, C)."""
        batch, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, self.heads, channels // self.heads)
        return _widened(pixels.transpose(1, 2))

    def logits(self, temperature: Tensor) -> Tensor:
        """(B, heads, C, C), rows belong to Q; float32, or float64 if the temperature (heads, 1, 1) is."""
        assert self._sums is not None
        qk, qq, kk = self._sums
        q_norm, k_norm = (squares.sqrt().clamp_min(SMALLEST_NORM) for squares in (qq, kk))
        cosines = qk / (q_norm.unsqueeze(-1) * k_norm.unsqueeze(-2))
        temperature = _widened(temperature)
        return temperature * cosines.to(temperature.dtype)


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _squares(x: Tensor) -> Tensor:
    """(B, heads, pixels, C) -> (B, heads, C): sums of squares over the pixels."""
    return x.square().sum(2)


def merged_projection(weight: Tensor, attention: Tensor) -> Tensor:
    """project_out times blockdiag(A), one matrix per picture.

    Args:
        weight: (c', c) of the projection after the attention.
        attention: (B, heads, C, C) with heads * C = c.

    Returns:
        (B, c', c) in the weight's type, to be applied to V.
    """
    heads, size = attention.shape[1:3]
    blocks = weight.reshape(-1, heads, size).transpose(0, 1)
    merged = blocks.to(attention.dtype) @ attention
    return merged.transpose(1, 2).flatten(2).to(weight.dtype)
