"""Triton kernels of the recurrent sweep: one lane per line and channel, one pass over the steps.

Used for CUDA tensors when Triton is installed (it comes with PyTorch's CUDA builds); everything
else uses the slab form in `nn/irnn.py`, which computes the same numbers.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

_BLOCK = 128


def usable(x: Tensor) -> bool:
    """Whether the kernels can run on this tensor's device."""
    return x.is_cuda and x.dtype == torch.float32 and _kernels() is not None


def forward(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """The sweep of `irnn.sweep` on x (B, L, M, C) float32."""
    kernels = _kernels()
    assert kernels is not None
    x = x.transpose(0, 1).contiguous()
    h = torch.empty_like(x)
    steps, lanes, channels = x.shape[0], x[0].numel(), x.shape[3]
    grid = (-(-lanes // _BLOCK),)
    kernels[0][grid](x, weight, bias, h, steps, lanes, channels, REVERSE=reverse, BLOCK=_BLOCK)
    return h.transpose(0, 1)


def backward(grad: Tensor, h: Tensor, weight: Tensor, reverse: bool) -> Tensor:
    """The gradient of the sweep's input, (B, L, M, C), from the gradient and value of its output."""
    kernels = _kernels()
    assert kernels is not None
    grad, h = grad.transpose(0, 1).contiguous(), h.transpose(0, 1).contiguous()
    d = torch.empty_like(grad)
    steps, lanes, channels = h.shape[0], h[0].numel(), h.shape[3]
    grid = (-(-lanes // _BLOCK),)
    kernels[1][grid](grad, h, weight, d, steps, lanes, channels, REVERSE=not reverse, BLOCK=_BLOCK)
    return d.transpose(0, 1)


@functools.cache
def _kernels() -> tuple[Any, Any] | None:
    try:
        import triton
        import triton.language as tl
    except ImportError:
        return None

    # Offsets are 64-bit: a 4K batch has more than 2^31 elements.
    @triton.jit
    def sweep_forward(x, q, r, h, steps, lanes, channels, REVERSE: tl.constexpr, BLOCK: tl.constexpr):
        lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = lane < lanes
        weight = tl.load(q + lane % channels, mask=inside, other=0.0)
        bias = tl.load(r + lane % channels, mask=inside, other=0.0)
        offset = lane + (steps - 1).to(tl.int64) * lanes * REVERSE
        stride = lanes.to(tl.int64) * (1 - 2 * REVERSE)
        state = tl.maximum(tl.load(x + offset, mask=inside, other=0.0), 0.0)
        tl.store(h + offset, state, mask=inside)
        for _ in range(1, steps):
            offset += stride
            value = tl.load(x + offset, mask=inside, other=0.0)
            state = tl.maximum(state * weight + (value + bias), 0.0)
            tl.store(h + offset, state, mask=inside)

    @triton.jit
    def sweep_backward(g, h, q, d, steps, lanes, channels, REVERSE: tl.constexpr, BLOCK: tl.constexpr):
        lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = lane < lanes
        weight = tl.load(q + lane % channels, mask=inside, other=0.0)
        offset = lane + (steps - 1).to(tl.int64) * lanes * REVERSE
        stride = lanes.to(tl.int64) * (1 - 2 * REVERSE)
        state = tl.zeros((BLOCK,), tl.float32)
        for _ in range(0, steps):
            alive = tl.load(h + offset, mask=inside, other=0.0) > 0
            state = tl.where(alive, tl.load(g + offset, mask=inside, other=0.0) + weight * state, 0.0)
            tl.store(d + offset, state, mask=inside)
            offset += stride

    return sweep_forward, sweep_backward
