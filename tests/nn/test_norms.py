"""The norm over channels against its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from derain.nn.norms import ChannelNorm


@pytest.mark.parametrize("bias_free", [False, True])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_is_the_formula(bias_free: bool, memory: torch.memory_format) -> None:
    norm = ChannelNorm(12, bias_free).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64).mul_(3).add_(1).to(memory_format=memory)

    mean = x.mean(1, keepdim=True)
    deviation = ((x - mean).square().mean(1, keepdim=True) + 1e-5).sqrt()
    weight = norm.body.weight.view(1, -1, 1, 1)
    wanted = x / deviation * weight if bias_free else (x - mean) / deviation * weight
    if not bias_free:
        wanted = wanted + norm.body.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(norm(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias_free", [False, True])
@pytest.mark.parametrize("channels", [1, 7, 48])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_form_without_gradients(bias_free: bool, channels: int, offset: float) -> None:
    norm = ChannelNorm(channels, bias_free)
    x = torch.randn(2, channels, 5, 3).add_(offset)
    with_gradients = norm.standardised(x.clone().requires_grad_()).detach()
    with torch.no_grad():
        torch.testing.assert_close(norm.standardised(x), with_gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias_free", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_absorbed_by_a_convolution(bias_free: bool, bias: bool) -> None:
    norm, layer = ChannelNorm(6, bias_free).double(), nn.Conv2d(6, 4, 1, bias=bias).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 6, 5, 3, dtype=torch.float64)
    absorbed = F.conv2d(norm.standardised(x), *norm.absorbed_by(layer.weight, layer.bias))
    torch.testing.assert_close(absorbed, layer(norm(x)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias_free", [False, True])
def test_state_and_gradients(bias_free: bool) -> None:
    norm = ChannelNorm(4, bias_free).double()
    assert list(norm.state_dict()) == (["body.weight"] if bias_free else ["body.weight", "body.bias"])
    x = torch.randn(1, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, x)


def test_result_is_channels_last() -> None:
    x = torch.randn(2, 6, 4, 5)
    assert ChannelNorm(6)(x.to(memory_format=torch.channels_last)).is_contiguous(
        memory_format=torch.channels_last
    )
