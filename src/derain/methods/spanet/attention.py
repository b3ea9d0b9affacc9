"""The spatial attentive module (SAM) of SPANet: features to a map of how rainy each pixel is.

Horizontal sweeps run on the transposed picture, where the convolution after them is applied with
transposed kernels. The direction attention, whose result the published network discards, is kept
as parameters only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.nn.irnn import sweep, sweep_both
from derain.nn.tracing import constant

DIRECTIONS = ("left", "right", "up", "down")


class IRNN(nn.Module):
    """Weights and biases of the four sweeps, stored as 1x1 depthwise convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for direction in DIRECTIONS:
            conv = nn.Conv2d(width, width, 1, groups=width)
            nn.init.constant_(conv.weight, 0.2)
            assert conv.bias is not None
            nn.init.uniform_(conv.bias, -(width**-0.5), width**-0.5)  # the rule of the published release
            self.add_module(f"{direction}_weight", conv)

    def forward(
        self, x: Tensor, below: Tensor | None = None, above: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sweeps of (B, C, H, W): [up, down] as (B, 2C, H, W), [left, right] as (B, 2C, W, H).

        `below` and `above`, each (B, C, 1, W), are the up state of the row below x and the down
        state of the row above it, when x is a strip of a larger picture.
        """
        return self._both(x, "up", "down", below, above), self._both(x.transpose(2, 3), "left", "right")

    def sweep(self, x: Tensor, direction: str, before: Tensor | None) -> Tensor:
        """The vertical sweep "up" or "down" of x alone, continuing the state `before`; same shape."""
        weight, bias = self._parameters_of(direction)
        state = None if before is None else _channels_last(before)[:, 0]
        h = sweep(_channels_last(x), weight, bias, direction == "up", state)
        return h.permute(0, 3, 1, 2).to(x.dtype)

    def _both(
        self,
        x: Tensor,
        backward: str,
        forward: str,
        after: Tensor | None = None,
        before: Tensor | None = None,
    ) -> Tensor:
        """Both sweeps along the rows of x."""
        weights, biases = zip(self._parameters_of(backward), self._parameters_of(forward), strict=True)
        states = [None if state is None else _channels_last(state)[:, 0] for state in (after, before)]
        h = sweep_both(_channels_last(x), weights, biases, (states[0], states[1]))
        return h.permute(0, 3, 1, 2).to(x.dtype)

    def _parameters_of(self, direction: str) -> tuple[Tensor, Tensor]:
        conv = self.get_submodule(f"{direction}_weight")
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        return conv.weight.flatten(), conv.bias


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), what `nn.irnn` sweeps."""
    return x.permute(0, 2, 3, 1)


class SpatialAttention(nn.Module):
    """SAM: features (B, C, H, W) -> map (B, 1, H, W) in (0, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.irnn1 = IRNN(width)
        self.irnn2 = IRNN(width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(4 * width, width, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(4 * width, width, 3, padding=1, bias=False)
        # The published network computes this attention and discards it. Parameters only.
        self.attention_layer = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(width, width // 2, 3),
                "conv2": nn.Conv2d(width // 2, width // 2, 3),
                "conv3": nn.Conv2d(width // 2, 4, 1),
            }
        )
        self.conv_out = nn.Conv2d(width, 1, 1, bias=False)

    def forward(self, f: Tensor) -> Tensor:
        a = self.conv_in(f)
        b = conv_of_sweeps(self.irnn1(a), self.conv2.weight)
        c = conv_of_sweeps(self.irnn2(b), self.conv3.weight)
        return self.map_of(c)

    def map_of(self, c: Tensor) -> Tensor:
        """The last step: what the second sweeps gave, (B, C, H, W), to the map (B, 1, H, W)."""
        return torch.sigmoid(self.conv_out(c.relu_()))


def conv_of_sweeps(sweeps: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
    """3x3 convolution of concat[up, right, down, left] without making that tensor.

    Args:
        sweeps: what `IRNN` gives, vertical and transposed horizontal.
        weight: (C, 4C, 3, 3).
    """
    vertical, horizontal = sweeps
    up, right, down, left = weight.chunk(4, 1)
    upright = F.conv2d(vertical, constant(torch.cat([up, down], 1)), padding=1)
    lying = F.conv2d(horizontal, constant(torch.cat([left, right], 1).transpose(2, 3)), padding=1)
    return upright.add_(lying.transpose(2, 3))
