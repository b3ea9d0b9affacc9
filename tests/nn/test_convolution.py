"""Convolutions without gradients against the library's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from derain.nn.convolution import Activation, Convolution, multiplying_in

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
        if side > 1 and groups == 1:
            before = onto.clone()
            close(convolution.plus(onto, picture), wanted)
            close(onto, before)
            part = onto[:1, :, r : 7 - r]
            close(convolution.plus(part, band, (0, r)), part + library(band, (0, r)))
        close(convolution.add_to(onto, picture), wanted)


@pytest.mark.parametrize(("side", "groups"), [(1, 1), (3, 1), (5, 16)])
def test_bfloat16_rounds_the_operands_and_the_result_alone(side: int, groups: int) -> None:
    weight, bias = torch.randn(16, 16 // groups, side, side), torch.randn(16)
    picture, onto = torch.randn(2, 1, 16, 13, 11).to(memory_format=torch.preserve_format)
    rounded = [x.bfloat16().double() for x in (picture, weight, bias)]
    wanted = F.conv2d(*rounded, 1, side // 2, 1, groups)
    layer = Convolution.of(weight, bias, groups)
    with torch.no_grad():
        (half, nested), exact = multiplying_in(
            torch.bfloat16, ((layer, (layer,)), Convolution.of(weight, bias, groups, exact=True))
        )
        found = half(picture)
        assert found.dtype == nested[0].dtype == torch.bfloat16
        torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=1e-4)
        torch.testing.assert_close(exact(picture), layer(picture), rtol=0, atol=0)
        total = half.add_to(onto.clone(), picture)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, onto + found.float(), rtol=0, atol=0)
