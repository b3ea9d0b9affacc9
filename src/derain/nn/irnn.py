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

from typing import Any

import torch
from torch import Tensor

from derain.nn import irnn_triton
from derain.nn.tracing import constant, is_tracing

Pair = tuple[Tensor, Tensor]

# A sweep in the language of graphs: x (B, L, M, C); weight q and bias r (C,); h (B, L, M, C). The first
# step goes without the bias. A Loop, because OpenVINO does not run Scan on sizes that are not fixed.
SWEEP_FUNCTION = """
<domain: "derain", opset_import: ["" : 18]>
Sweep (x, q, r) => (h)
{
  lines = Transpose <perm = [1, 0, 2, 3]> (x)
  zero = Constant <value = int64 {0}> ()
  length = Shape <start = 0, end = 1> (lines)
  count = Squeeze (length)
  slab = Gather <axis = 0> (lines, zero)
  shape = Shape (slab)
  start = ConstantOfShape (shape)
  always = Constant <value = int64 {1}> ()
  on = Cast <to = 9> (always)
  end, states = Loop <
    body = step (int64 i, bool go, s) => (go_on, t, y)
    {
      go_on = Identity (go)
      v = Gather <axis = 0> (lines, i)
      later = Greater (i, zero)
      factor = Cast <to = 1> (later)
      b = Mul (factor, r)
      p = Mul (s, q)
      a = Add (p, b)
      u = Add (a, v)
      t = Relu (u)
      y = Identity (t)
    }> (count, on, start)
  h = Transpose <perm = [1, 0, 2, 3]> (states)
}
"""


def sweep(
    x: Tensor, weight: Tensor, bias: Tensor, reverse: bool = False, before: Tensor | None = None
) -> Tensor:
    """One sweep along the second axis.

    Args:
        x: (B, L, M, C), L steps over M lines of C channels; any float type.
        weight: (C,) recurrent weight q.
        bias: (C,) bias r.
        reverse: start at the last step and travel towards the first.
        before: (B, M, C) the state h of the step before the first one, when x continues a longer line.

    Returns:
        (B, L, M, C) float32 (float64 for float64 input): under mixed precision the state stays in
        float32, because trained weights near 1 remember hundreds of pixels.
    """
    if is_tracing():
        assert before is None, "parts of lines are not exported"
        lines = x.flip(1) if reverse else x
        node: Tensor = _SweepNode.apply(lines, constant(weight), constant(bias))
        return node.flip(1) if reverse else node
    kind = torch.promote_types(x.dtype, torch.float32)
    x, weight, bias = x.to(kind), weight.to(kind), bias.to(kind)
    if before is not None:
        x = x.clone()
        x[:, -1 if reverse else 0] += before * weight + bias
    result: Tensor = _Sweep.apply(x, weight, bias, reverse)
    return result


def sweep_both(
    x: Tensor, weights: Pair, biases: Pair, before: tuple[Tensor | None, Tensor | None] = (None, None)
) -> Tensor:
    """The sweeps from the last step and from the first one side by side, (B, L, M, 2C); else as `sweep`.

    Weights, biases and states come as (of the sweep from the last step, of the one from the first).
    Without gradients on a CPU both are written where they belong, in x's type, which saves joining
    and converting them.
    """
    if torch.is_grad_enabled() or x.is_cuda:
        return torch.cat([sweep(x, weights[i], biases[i], i == 0, before[i]) for i in (0, 1)], 3)
    h = torch.empty(*x.shape[:3], 2 * x.shape[3], dtype=x.dtype)
    for i, half in enumerate(h.chunk(2, 3)):
        _fill_slabs(half, x, weights[i], biases[i], i == 0, before[i])
    return h


class _SweepNode(torch.autograd.Function):
    """A sweep from the first step as one node of a graph, which means `SWEEP_FUNCTION`."""

    @staticmethod
    def forward(_: Any, x: Tensor, *_parameters: Tensor) -> Tensor:
        return torch.empty_like(x)  # the tracer needs a shape, no values

    @staticmethod
    def symbolic(g: Any, x: Any, *parameters: Any) -> Any:
        return g.op("derain::Sweep", x, *parameters).setType(x.type())


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        if irnn_triton.usable(x):
            h = irnn_triton.forward(x, weight, bias, reverse)
        else:
            h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
            _fill_slabs(h, x, weight, bias, reverse, None)
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
        before, after = (h[:, 1:], d[:, :-1]) if ctx.reverse else (h[:, :-1], d[:, 1:])
        return d, (before * after).sum((0, 1, 2)), after.sum((0, 1, 2)), None


def _fill_slabs(
    h: Tensor, x: Tensor, weight: Tensor, bias: Tensor, reverse: bool, before: Tensor | None
) -> None:
    """Writes the sweep of x into h (B, L, M, C), which may be a part of a larger tensor."""
    kind = torch.promote_types(x.dtype, torch.float32)
    q, r = (p.to(kind).expand_as(h[:, 0]).contiguous() for p in (weight, bias))
    values, slabs = x.unbind(1), h.unbind(1)
    if reverse:
        values, slabs = values[::-1], slabs[::-1]
    # One slab at a time stays in the cache.
    state = values[0].to(kind) if before is None else torch.addcmul(r, before.to(kind), q).add_(values[0])
    slabs[0].copy_(state.clamp(min=0))
    state = slabs[0].to(kind)
    for here, value in zip(slabs[1:], values[1:], strict=True):
        if h.dtype == kind:
            state = torch.addcmul(r, state, q, out=here).add_(value).clamp_(min=0)
        else:
            torch.addcmul(r, state, q, out=state).add_(value).clamp_(min=0)
            here.copy_(state)


def _backward_slabs(grad: Tensor, h: Tensor, weight: Tensor, reverse: bool) -> Tensor:
    q = weight.expand_as(h[:, 0]).contiguous()
    alive = (h > 0).to(h.dtype)
    d = grad * alive
    gates, slabs = alive.unbind(1), d.unbind(1)
    if not reverse:
        gates, slabs = gates[::-1], slabs[::-1]
    for after, here, gate in zip(slabs, slabs[1:], gates[1:], strict=False):
        here.addcmul_(after * q, gate)
    return d
