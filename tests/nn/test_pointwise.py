"""1x1 convolutions against the library's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from derain.nn.pointwise import PointwiseConv2d


@pytest.mark.parametrize(("channels", "outputs"), [(16, 48), (17, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_the_librarys(
    channels: int, outputs: int, layout: torch.memory_format, bias: bool
) -> None:
    """In float32, by the vendor's kernel; in float64 both are the library's."""
    ours, library = PointwiseConv2d(channels, outputs, bias), nn.Conv2d(channels, outputs, 1, bias=bias)
    library.load_state_dict(ours.state_dict())
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        x = torch.randn(2, channels, 6, 7, dtype=dtype).contiguous(memory_format=layout)

        def passed(layer: nn.Conv2d, x: Tensor = x) -> list[Tensor]:
            given = x.clone().requires_grad_()
            y = layer(given)
            return [y, *torch.autograd.grad(y.square().sum(), [given, *layer.parameters()])]

        both = passed(ours.to(dtype)), passed(library.to(dtype))
        torch.testing.assert_close(*both, rtol=tolerance, atol=tolerance)
        with torch.no_grad():
            assert torch.equal(ours(x), library(x))
