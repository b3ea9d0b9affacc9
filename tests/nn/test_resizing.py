"""What stands between the levels against its formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from derain.nn.resizing import Upsample


@settings(max_examples=25, deadline=None)
@given(
    half=st.integers(1, 4),
    skipped=st.integers(1, 5),
    outputs=st.integers(1, 6),
    bias=st.booleans(),
    size=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
)
def test_joined_is_the_reduction_of_both(
    half: int, skipped: int, outputs: int, bias: bool, size: tuple[int, int, int]
) -> None:
    batch, height, width = size
    upsample = Upsample(2 * half).double()
    reduction = nn.Conv2d(half + skipped, outputs, 1, bias=bias).double()
    x = torch.randn(batch, 2 * half, height, width, dtype=torch.float64)
    skip = torch.randn(batch, skipped, 2 * height, 2 * width, dtype=torch.float64)
    wanted = reduction(torch.cat([upsample(x), skip], 1))
    torch.testing.assert_close(upsample.joined(x, skip, reduction), wanted)
    with torch.no_grad():
        torch.testing.assert_close(upsample.joined(x, skip, reduction), wanted)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_joined(memory: torch.memory_format) -> None:
    upsample, reduction = Upsample(4).double(), nn.Conv2d(5, 3, 1).double()
    x = torch.randn(1, 4, 2, 3, dtype=torch.float64).to(memory_format=memory).requires_grad_()
    skip = torch.randn(1, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, skip: upsample.joined(x, skip, reduction), (x, skip))
