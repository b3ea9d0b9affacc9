"""Attention across channels: the parts that do not depend on how its logits are normalised.

Q, K and V of a head have one row per pixel, P of them, and one column per channel, as channels-last
memory has. The logits are temperature * cos(q_i, k_j) of the columns, a C x C matrix; with A made from
them, the result is V A^T (Zamir et al., "Restormer", CVPR 2022). Without gradients, neither the
normalised Q and K nor V A^T need to exist:

    logits = temperature * (Q^T K)_ij / (|q_i| |k_j|)      sums over pixels, taken piece by piece
    project(V A^T) = V (project blockdiag(A))^T            one C_all x C_all matrix per picture
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from derain.nn.tracing import is_tracing

SMALLEST_NORM = 1e-12


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, heads C, H, W) -> (B, heads, H W, C), heads being blocks of channels; a view if x is
    channels-last in memory."""
    batch, _, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, heads, -1)
    return pixels.transpose(1, 2)


def join_heads(x: Tensor, height: int, width: int) -> Tensor:
    """(B, heads, H W, C) -> (B, heads C, H, W)."""
    return x.transpose(1, 2).reshape(x.shape[0], height, width, -1).permute(0, 3, 1, 2)


def cosines(q: Tensor, k: Tensor) -> Tensor:
    """Between the columns of q and those of k, (B, heads, P, C) each -> (B, heads, C, C).

    Gradients are those of the formula, up to rounding; on a CPU they are taken in half the time.
    """
    if torch.is_grad_enabled() and not is_tracing() and not _prefers_autograd(q):
        y: Tensor = _Cosines.apply(q, k)
        return y
    return q.transpose(-2, -1) @ k / (_norms(q).unsqueeze(-1) * _norms(k).unsqueeze(-2))


def _prefers_autograd(x: Tensor) -> bool:
    """Whether `_Cosines` saves no time: it is made for CPUs and products of float32."""
    return x.device.type != "cpu" or x.dtype.itemsize < 4 or torch.is_autocast_enabled("cpu")


def _norms(x: Tensor) -> Tensor:
    """(B, heads, P, C) -> (B, heads, C), never 0."""
    return _squares(widened(x)).clamp_min(SMALLEST_NORM**2).sqrt()


class _Cosines(torch.autograd.Function):
    """`cosines` whose gradients pass over each map once or twice."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor) -> Tensor:
        q_norms, k_norms = _norms(q), _norms(k)
        scale = 1 / (q_norms.unsqueeze(-1) * k_norms.unsqueeze(-2))
        y = q.transpose(-2, -1) @ k * scale
        ctx.save_for_backward(q, k, q_norms, k_norms, scale, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        q, k, q_norms, k_norms, scale, y = ctx.saved_tensors
        of_product, of_lengths = gradient * scale, gradient * y
        q_share = (of_lengths.sum(-1) / q_norms.square()).unsqueeze(-2)
        k_share = (of_lengths.sum(-2) / k_norms.square()).unsqueeze(-2)
        of_q = torch.addcmul(k @ of_product.transpose(-2, -1), q, q_share, value=-1)
        of_k = torch.addcmul(q @ of_product, k, k_share, value=-1)
        return of_q, of_k


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
        q, k = (widened(split_heads(part, self.heads)) for part in (q, k))
        piece = (q.transpose(-2, -1) @ k, _squares(q), _squares(k))
        first, second, third = (part.double() for part in piece)
        if self._sums is not None:
            first, second, third = first + self._sums[0], second + self._sums[1], third + self._sums[2]
        self._sums = first, second, third

    def logits(self, temperature: Tensor) -> Tensor:
        """(B, heads, C, C), rows belong to Q; float32, or float64 if the temperature (heads, 1, 1) is."""
        assert self._sums is not None
        qk, qq, kk = self._sums
        q_norm, k_norm = (squares.sqrt().clamp_min(SMALLEST_NORM) for squares in (qq, kk))
        cosines = qk / (q_norm.unsqueeze(-1) * k_norm.unsqueeze(-2))
        temperature = widened(temperature)
        return temperature * cosines.to(temperature.dtype)


def widened(x: Tensor) -> Tensor:
    """In float32, if its type is narrower."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _squares(x: Tensor) -> Tensor:
    """(B, heads, P, C) -> (B, heads, C): sums over the pixels, which keep their last digits."""
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
