"""Concatenates weighted maps without storing them twice for the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from derain.nn.tracing import is_tracing


def weighted_cat(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """[w_1 m_1; w_2 m_2; ...]: N maps (B, C, H, W) and (B, N) -> (B, N C, H, W).

    The gradient of a weight follows from the product, which is stored, so that the maps need not be.
    """
    if not torch.is_grad_enabled() or is_tracing():
        return _weighted(maps, weights)
    y: Tensor = _WeightedCat.apply(weights, *maps)
    return y


def _weighted(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    scales = weights[:, :, None, None, None].unbind(1)
    return torch.cat([scale * each for scale, each in zip(scales, maps, strict=True)], 1)


class _WeightedCat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, *maps: Tensor) -> Tensor:
        y = _weighted(maps, weights)
        ctx.save_for_backward(weights, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        weights, y = ctx.saved_tensors
        parts = gradient.chunk(weights.shape[1], 1)
        sums = [
            (part * own).sum((1, 2, 3)) for part, own in zip(parts, y.chunk(weights.shape[1], 1), strict=True)
        ]
        of_weights = torch.stack(sums, 1) / weights
        # A softmax that underflows to 0 lets no gradient through.
        of_weights = of_weights.where(weights != 0, 0)
        scales = weights[:, :, None, None, None].unbind(1)
        return of_weights, *(part * scale for part, scale in zip(parts, scales, strict=True))
