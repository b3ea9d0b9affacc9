"""Convolutions that are applied many times without gradients, with the fastest kernels available.

On a CPU, PyTorch includes oneDNN's kernels, which take weights in their own layout, and can apply an
activation or add to a tensor while the result is still in the processor's registers. `F.conv2d` converts
weights at each call, and on one thread sends 1x1 convolutions to a general matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "gelu", "relu"]


@dataclass(frozen=True)
class Convolution:
    """A convolution of stride 1 whose kernel has odd sides.

    Attributes:
        weight: (C', C / groups, k, k), or packed for oneDNN.
        bias: (C',) or None.
        side: k.
        groups: of channels.
        dilation: distance of the pixels that it reads.
        packed: whether the weight is; then only float32 on the CPU is accepted.
    """

    weight: Tensor
    bias: Tensor | None
    side: int
    groups: int
    dilation: int
    packed: bool

    @property
    def halo(self) -> int:
        """Pixels around a result that it depends on, to each side."""
        return self.dilation * (self.side // 2)

    @classmethod
    def of(
        cls, weight: Tensor, bias: Tensor | None = None, groups: int = 1, dilation: int = 1
    ) -> Convolution:
        """From (C', C / groups, k, k) and (C',) or None."""
        side = weight.shape[-1]
        bias = None if bias is None else bias.detach()
        if not _can_pack(weight):
            return cls(weight.detach(), bias, side, groups, dilation, packed=False)
        around = [dilation * (side // 2)] * 2
        weight = weight.detach().contiguous().to_mkldnn()
        packed = torch._C._nn.mkldnn_reorder_conv2d_weight(weight, around, [1, 1], [dilation] * 2, groups)
        return cls(packed, bias, side, groups, dilation, packed=True)

    @classmethod
    def like(cls, layer: nn.Module) -> Convolution:
        """With the weight, bias, groups and dilation of an `nn.Conv2d` of stride 1."""
        assert isinstance(layer, nn.Conv2d)
        return cls.of(layer.weight, layer.bias, layer.groups, layer.dilation[0])

    def __call__(
        self, x: Tensor, activation: Activation = "none", padding: tuple[int, int] | None = None
    ) -> Tensor:
        """(B, C, H, W), best in channels-last memory -> (B, C', H, W).

        Args:
            x: the input.
            activation: of the result; GELU is the exact one.
            padding: zeros around rows and columns, for results of another height and width.
        """
        around, spread = list(padding or [self.halo] * 2), [self.dilation] * 2
        y: Tensor
        if self.packed:
            y = torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, around, [1, 1], spread, self.groups, activation, [], "none"
            )
            return y
        y = F.conv2d(x, self.weight, self.bias, 1, around, spread, self.groups)
        return y if activation == "none" else F.gelu(y) if activation == "gelu" else F.relu(y)

    def add_to(self, onto: Tensor, x: Tensor) -> Tensor:
        """onto + self(x), written into `onto`."""
        around, spread = [self.halo] * 2, [self.dilation] * 2
        if self.packed:
            convolved = self.weight, self.bias, around, [1, 1], spread, self.groups
            torch.ops.mkldnn._convolution_pointwise_.binary(onto, x, *convolved, "add", 1.0, None, [], None)
            return onto
        return onto.add_(F.conv2d(x, self.weight, self.bias, 1, around, spread, self.groups))


def _can_pack(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )
