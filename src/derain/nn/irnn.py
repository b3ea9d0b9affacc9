"""The four-direction recurrent sweeps of SPANet (an IRNN: ReLU recurrence with identity-like weight).

Along each line of the picture, in the order of travel, with one weight q and one bias r per channel:

    h_0 = max(v_0, 0)
    h_i = max(q h_{i-1} + r + v_i, 0)          i >= 1

Source: Wang et al., "Spatial Attentive Single-Image Deraining", CVPR 2019.

On a CPU the recurrence steps over whole slabs (all lines at once), so its cost is that of reading
and writing the maps; on a CUDA device one Triton kernel walks all lines in parallel
(`nn/irnn_triton.py`). The backward pass is one reverse sweep and needs the outputs alone:

    D_i = [h_i > 0] (g_i + q D_{i+1}),   dv_i = D_i,   dq = sum_{i>=1} D_i h_{i-1},   dr = sum_{i>=1} D_i
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from derain.nn import irnn_triton


def sweep(
    x: Tensor, weight: Tensor, bias: Tensor, reverse: bool = False, before: Tensor | None = None
) -> Tensor:
    """One sweep along the first axis.

    Args:
        x: (L, M, C), L steps over M lines of C channels; any float type.
        weight: (C,) recurrent weight q.
        bias: (C,) bias r.
        reverse: start at the last step and travel towards the first.
        before: (M, C) the state h of the step before the first one, when x continues a longer line.

    Returns:
        (L, M, C) float32 (float64 for float64 input): under mixed precision the state stays in
        float32, because trained weights near 1 remember hundreds of pixels.
    """
    kind = torch.promote_types(x.dtype, torch.float32)
    x, weight, bias = x.to(kind), weight.to(kind), bias.to(kind)
    if before is not None:
        start = -1 if reverse else 0
        x = x.clone()
        x[start] += before * weight + bias
    result: Tensor = _Sweep.apply(x, weight, bias, reverse)  # type: ignore[no-untyped-call]
    return result


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        if irnn_triton.usable(x):
            h = irnn_triton.forward(x, weight, bias, reverse)
        else:
            h = _forward_slabs(x, weight, bias, reverse)
        ctx.save_for_backward(h, weight)
        ctx.reverse = reverse
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        h, weight = ctx.saved_tensors
        if irnn_triton.usable(grad):
            d = irnn_triton.backward(grad, h, weight, ctx.reverse)
        else:
            d = _backward_slabs(grad, h, weight, ctx.reverse)
        before, after = (h[1:], d[:-1]) if ctx.reverse else (h[:-1], d[1:])
        return d, (before * after).sum((0, 1)), after.sum((0, 1)), None


def _forward_slabs(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    q = weight.expand_as(x[0]).contiguous()
    h = x + bias
    slabs = h.unbind(0)[::-1] if reverse else h.unbind(0)
    torch.clamp(x[-1 if reverse else 0], min=0, out=slabs[0])
    for before, here in itertools.pairwise(slabs):
        here.addcmul_(before, q).clamp_(min=0)
    return h


def _backward_slabs(grad: Tensor, h: Tensor, weight: Tensor, reverse: bool) -> Tensor:
    q = weight.expand_as(h[0]).contiguous()
    alive = (h > 0).to(h.dtype)
    d = grad * alive
    gates, slabs = alive.unbind(0), d.unbind(0)
    if not reverse:
        gates, slabs = gates[::-1], slabs[::-1]
    for after, here, gate in zip(slabs, slabs[1:], gates[1:], strict=False):
        here.addcmul_(after * q, gate)
    return d
