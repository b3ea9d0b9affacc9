"""Convolutions without gradients against the library's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from derain.nn.convolution import Activation, Convolution

LAST = torch.channels_last


@pytest.mark.parametrize(
    ("inputs", "outputs", "side", "groups"), [(8, 5, 1, 1), (16, 16, 3, 16), (6, 8, 3, 1)]
)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_librarys(
    inputs: int, outputs: int, side: int, groups: int, dilation: int, dtype: torch.dtype
) -> None:
    weight = torch.randn(outputs, inputs // groups, side, side, dtype=dtype)
    bias = torch.randn(outputs, dtype=dtype)
    convolution = Convolution.of(weight, bias, groups, dilation)
    picture = torch.randn(2, inputs, 13, 11, dtype=dtype).to(memory_format=LAST)
    onto = torch.randn(2, outputs, 15, 15, dtype=dtype).to(memory_format=LAST)[:, :, 1:14, 2:13]
    r = dilation * (side // 2)

    def library(x: Tensor, padding: tuple[int, int]) -> Tensor:
        return F.conv2d(x, weight, bias, 1, padding, dilation, groups)

    activations: dict[Activation, Tensor] = {
        "none": library(picture, (r, r)),
        "gelu": F.gelu(library(picture, (r, r))),
        "relu": F.relu(library(picture, (r, r))),
    }
    close = lambda found, wanted: torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)  # noqa: E731
    with torch.no_grad():
        for activation, wanted in activations.items():
            close(convolution(picture, activation), wanted)
        band = picture[:1, :, 2:9]  # of a larger picture
        close(convolution(band, padding=(0, r)), library(band, (0, r)))
        wanted = onto + library(picture, (r, r))
        close(convolution.add_to(onto, picture), wanted)
        close(onto, wanted)
