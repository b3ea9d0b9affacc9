"""Cosines of channels against the library's, in values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from derain.nn.channel_attention import cosines, join_heads, split_heads


def _rows(batch: int, heads: int, channels: int) -> Tensor:
    """(B, 2 heads C, 6, 7), channels-last in memory."""
    generator = torch.Generator().manual_seed(heads)
    x = torch.randn(batch, 2 * heads * channels, 6, 7, dtype=torch.float64, generator=generator)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize(("batch", "heads", "channels"), [(1, 1, 5), (2, 3, 4)])
def test_values_and_gradients_equal_those_of_the_library(batch: int, heads: int, channels: int) -> None:
    x = _rows(batch, heads, channels)
    q, k = (split_heads(part, heads) for part in x.chunk(2, 1))
    ours = cosines(q, k)
    theirs = F.normalize(q, dim=-2).transpose(-2, -1) @ F.normalize(k, dim=-2)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-14)
    weights = torch.randn_like(ours)
    one, other = (torch.autograd.grad((weights * y).sum(), x, retain_graph=True)[0] for y in (ours, theirs))
    assert torch.allclose(one, other, rtol=0, atol=1e-14)
    with torch.no_grad():
        assert torch.allclose(cosines(q, k), ours, rtol=0, atol=1e-15)


def test_a_channel_of_zeros_has_finite_gradients() -> None:
    q, k = torch.zeros(1, 1, 6, 2, requires_grad=True), torch.rand(1, 1, 6, 2, requires_grad=True)
    cosines(q, k).sum().backward()
    assert q.grad is not None
    assert k.grad is not None
    assert q.grad.isfinite().all()
    assert k.grad.abs().max() == 0


def test_heads_are_blocks_of_channels() -> None:
    x = torch.arange(2 * 6 * 3 * 2.0).view(2, 6, 3, 2)
    rows = split_heads(x, 3)
    assert torch.equal(rows[1, 2, :, 0], x[1, 4].flatten())
    assert torch.equal(join_heads(rows, 3, 2), x)
