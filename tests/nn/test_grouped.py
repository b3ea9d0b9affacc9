"""Grouped convolutions against the library's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from derain.nn.grouped import GroupedConv2d


@pytest.mark.parametrize("inputs", [1, 2, 3])
@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_the_librarys(inputs: int, side: int, dilation: int, bias: bool) -> None:
    around = dilation * (side // 2)
    ours = GroupedConv2d(
        4 * inputs, 4, side, padding=around, dilation=dilation, groups=4, bias=bias, dtype=torch.float64
    )
    library = nn.Conv2d(
        4 * inputs, 4, side, padding=around, dilation=dilation, groups=4, bias=bias, dtype=torch.float64
    )
    library.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4 * inputs, 6, 7, dtype=torch.float64)

    def passed(layer: nn.Conv2d) -> list[Tensor]:
        given = x.clone().requires_grad_()
        y = layer(given)
        return [y, *torch.autograd.grad(y.square().sum(), [given, *layer.parameters()])]

    torch.testing.assert_close(passed(ours), passed(library), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(ours(x), library(x))


def test_mixed_precision_keeps_the_type_of_the_weights() -> None:
    layer = GroupedConv2d(4, 2, 5, padding=2, groups=2)
    x = torch.randn(1, 4, 6, 7).bfloat16()
    exact = layer(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert torch.equal(y, exact)
    y.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
