"""The fast sweeps equal the plain recurrence in values and gradients."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from derain.nn.irnn import sweep, sweep_both


def plain_sweep(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """The recurrence as it is written in the paper, differentiated by autograd."""
    steps = list((x.flip(1) if reverse else x).unbind(1))
    h = [steps[0].clamp(min=0)]
    for v in steps[1:]:
        h.append(((h[-1] * weight + bias) + v).clamp(min=0))
    return torch.stack(h[::-1] if reverse else h, 1)


@settings(max_examples=40)
@given(
    steps=st.integers(1, 9),
    lines=st.integers(1, 4),
    channels=st.integers(1, 3),
    reverse=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_plain_recurrence(steps: int, lines: int, channels: int, reverse: bool, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(2, steps, lines, channels, generator=random, dtype=torch.float64)
    weight = torch.randn(channels, generator=random, dtype=torch.float64)
    bias = torch.randn(channels, generator=random, dtype=torch.float64)
    upstream = torch.randn(2, steps, lines, channels, generator=random, dtype=torch.float64)
    values, gradients = [], []
    for form in (sweep, plain_sweep):
        inputs = [t.clone().requires_grad_() for t in (x, weight, bias)]
        out = form(*inputs, reverse)
        values.append(out.detach())
        gradients.append(torch.autograd.grad(out, inputs, upstream, materialize_grads=True))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-10)
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)


def test_keeps_its_state_in_float32_under_half_precision() -> None:
    x = torch.randn(1, 50, 2, 4)
    weight, bias = torch.full((4,), 0.99), torch.zeros(4)
    half = sweep(x.bfloat16(), weight, bias)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, sweep(x.bfloat16().float(), weight, bias))


def test_zero_has_no_slope() -> None:
    x = torch.zeros(1, 3, 1, 1, requires_grad=True)
    sweep(x, torch.ones(1), torch.zeros(1)).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros(1, 3, 1, 1))


KERNELS = """
import torch
from derain.nn import irnn, irnn_triton
for reverse in (False, True):
    x, g = torch.randn(2, 3, 9, 40, 5)
    q, r = torch.randn(2, 5)
    h = irnn_triton.forward(x, q, r, reverse)
    torch.testing.assert_close(h, irnn.sweep(x, q, r, reverse), rtol=1e-5, atol=1e-5)
    d = irnn_triton.backward(g, h, q, reverse)
    torch.testing.assert_close(d, irnn._backward_slabs(g, h, q, reverse), rtol=1e-5, atol=1e-5)
"""


def test_triton_kernels_equal_the_slab_form_in_the_interpreter() -> None:
    # The interpreter of 3.6, which PyTorch 2.10 brings, fails with NumPy from 2.4 on, whatever the kernel.
    pytest.importorskip("triton", minversion="3.7", reason="Triton comes with PyTorch's CUDA builds only")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run([sys.executable, "-c", KERNELS], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_triton_kernels_equal_the_slab_form_on_a_gpu() -> None:
    x = torch.randn(2, 300, 40, 32)
    weight, bias = torch.rand(32), torch.randn(32) * 0.1
    for reverse in (False, True):
        on_gpu = sweep(x.cuda(), weight.cuda(), bias.cuda(), reverse).cpu()
        torch.testing.assert_close(on_gpu, sweep(x, weight, bias, reverse), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("continued", [False, True])
def test_both_sweeps_side_by_side(continued: bool) -> None:
    """Without gradients they are written into one tensor, with them joined; the numbers are equal."""
    x = torch.randn(2, 7, 5, 3)
    weights, biases = torch.rand(2, 3).unbind(0), torch.randn(2, 3).unbind(0)
    before = tuple(torch.rand(2, 2, 5, 3).unbind(0)) if continued else (None, None)
    with torch.enable_grad():
        joined = sweep_both(x, weights, biases, before)
    with torch.no_grad():
        written = sweep_both(x, weights, biases, before)
    torch.testing.assert_close(written, joined)
    whole = torch.cat([torch.randn(2, 4, 5, 3), x], 1)
    down = sweep(whole, weights[1], biases[1])
    torch.testing.assert_close(sweep(x, weights[1], biases[1], False, down[:, 3]), down[:, 4:])
