"""Convolutions that are applied many times without gradients, with the fastest kernels available.

On a CPU, PyTorch includes oneDNN's kernels, which take weights in their own layout, and can apply an
activation or add to a tensor while the result is still in the processor's registers. `F.conv2d` converts
weights in each call, and on one thread turns 1x1 convolutions into a general matrix product. oneDNN's product
of pixels and a packed matrix takes a tenth to a third less time than its 1x1 convolution. Larger
convolutions across channels are left to `F.conv2d`: which layout of their weights is best depends on the size
of the map, and from another one, as on maps of 8x8 pixels, oneDNN converts them in ten to thirty times the
time of the convolution. Where oneDNN includes an activation or a sum, it takes their weights as they are.

Where `torch.autocast` would decide operation by operation what is computed in bfloat16, `multiplying_in` lays
out the convolutions for it, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.nn.pixels import as_map, as_rows
from derain.nn.prepared import Network, once_per_weights

Activation = Literal["none", "gelu", "relu"]
Layers = TypeVar("Layers")


@dataclass(frozen=True)
class Convolution:
    """A convolution of stride 1 whose kernel has odd sides.

    Attributes:
        weight: (C', C / groups, k, k), or packed for oneDNN if the convolution is a matrix or depthwise;
            products are taken in its type.
        bias: (C',) or None.
        side: k.
        groups: number of groups of channels.
        dilation: distance of the pixels that it reads.
        packed: whether the weight is packed; only maps on the CPU are then accepted.
        exact: whether `multiplying_in` leaves its type unchanged.
    """

    weight: Tensor
    bias: Tensor | None
    side: int
    groups: int
    dilation: int
    packed: bool
    exact: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The type of the operands of its products, and of its results."""
        return self.weight.dtype

    @property
    def is_matrix(self) -> bool:
        """Whether it treats each pixel by itself, all in the same way."""
        return self.side == 1 and self.groups == 1

    @property
    def halo(self) -> int:
        """How many pixels on each side a result depends on."""
        return self.dilation * (self.side // 2)

    @classmethod
    def of(
        cls,
        weight: Tensor,
        bias: Tensor | None = None,
        groups: int = 1,
        dilation: int = 1,
        exact: bool = False,
    ) -> Convolution:
        """A convolution from a weight (C', C / groups, k, k) and a bias (C',) or None."""
        side = weight.shape[-1]
        bias = None if bias is None else bias.detach()
        weight = weight.detach()
        if not _suits_onednn(weight) or (side > 1 and groups == 1):
            weight = weight.contiguous(memory_format=torch.channels_last)
            return cls(weight, bias, side, groups, dilation, packed=False, exact=exact)
        weight = weight.contiguous()
        if side == 1 and groups == 1:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.flatten(1))
        else:
            spread, around = [dilation] * 2, [dilation * (side // 2)] * 2
            packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
                weight.to_mkldnn(), around, [1, 1], spread, groups
            )
        return cls(packed, bias, side, groups, dilation, packed=True, exact=exact)

    @classmethod
    def like(cls, layer: nn.Module, exact: bool = False) -> Convolution:
        """A convolution with the weight, bias, groups and dilation of an `nn.Conv2d` of stride 1."""
        assert isinstance(layer, nn.Conv2d)
        return cls.of(layer.weight, layer.bias, layer.groups, layer.dilation[0], exact)

    def __call__(
        self, x: Tensor, activation: Activation = "none", padding: tuple[int, int] | None = None
    ) -> Tensor:
        """(B, C, H, W), best in channels-last memory -> (B, C', H, W) in the type of the products.

        Args:
            x: the input.
            activation: applied to the result; GELU is the exact form.
            padding: zeros around rows and columns, for results of another height and width.
        """
        around, spread = list(padding or [self.halo] * 2), [self.dilation] * 2
        x = x.to(self.dtype)
        y: Tensor
        if self.packed and self.is_matrix:
            y = torch.ops.mkldnn._linear_pointwise(as_rows(x), self.weight, self.bias, activation, [], "none")
            return as_map(y, x)
        if self.packed or (activation != "none" and _suits_onednn(self.weight)):
            y = torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, around, [1, 1], spread, self.groups, activation, [], "none"
            )
            return y
        y = F.conv2d(x, self.weight, self.bias, 1, around, spread, self.groups)
        return y if activation == "none" else F.gelu(y) if activation == "gelu" else F.relu(y)

    def add_to(self, onto: Tensor, x: Tensor) -> Tensor:
        """onto + self(x), added up in the type of `onto`, which may be overwritten."""
        if onto.dtype != self.dtype:
            return onto.add_(self(x))
        x = x.to(self.dtype)
        if self.packed and self.is_matrix:
            y = torch.ops.mkldnn._linear_pointwise.binary(
                as_rows(x), as_rows(onto), self.weight, self.bias, "add"
            )
            return as_map(y, x)
        around, spread = [self.halo] * 2, [self.dilation] * 2
        if self.packed:
            convolved = self.weight, self.bias, around, [1, 1], spread, self.groups
            torch.ops.mkldnn._convolution_pointwise_.binary(onto, x, *convolved, "add", 1.0, None, [], None)
            return onto
        return onto.add_(F.conv2d(x, self.weight, self.bias, 1, around, spread, self.groups))

    def plus(self, onto: Tensor, x: Tensor, padding: tuple[int, int] | None = None) -> Tensor:
        """onto + self(x) of a convolution that is neither a matrix nor depthwise, as a new map in the type of
        the products.

        Args:
            onto: of the result's shape.
            x, padding: as in `__call__`.
        """
        around, spread = list(padding or [self.halo] * 2), [self.dilation] * 2
        x, onto = x.to(self.dtype), onto.to(self.dtype)
        if not _suits_onednn(self.weight):
            return F.conv2d(x, self.weight, self.bias, 1, around, spread, self.groups).add_(onto)
        convolved = self.weight, self.bias, around, [1, 1], spread, self.groups
        y: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            x, onto, *convolved, "add", 1.0, None, [], None
        )
        return y

    def multiplying_in(self, dtype: torch.dtype) -> Convolution:
        """The same convolution with weights, and so operands of its products, of this type."""
        if self.exact:
            return self
        weight = self.weight.to_dense() if self.packed else self.weight
        if weight.dim() == 2:
            weight = weight[:, :, None, None]
        bias = None if self.bias is None else self.bias.to(dtype)
        return Convolution.of(weight.to(dtype), bias, self.groups, self.dilation)


def multiplying_in(dtype: torch.dtype, layers: Layers) -> Layers:
    """The same layers, dataclasses of dataclasses, with the convolutions in them in this type."""
    changed: Any = layers
    if isinstance(layers, Convolution):
        changed = layers.multiplying_in(dtype)
    elif isinstance(layers, tuple):
        changed = tuple(multiplying_in(dtype, layer) for layer in layers)
    elif is_dataclass(layers) and not isinstance(layers, type):
        parts = {field.name: getattr(layers, field.name) for field in fields(layers)}
        changed = replace(layers, **{name: multiplying_in(dtype, part) for name, part in parts.items()})
    found: Layers = changed
    return found


def laid_out_by_precision(
    lay_out: Callable[[Network], Layers],
) -> Callable[[Network, torch.dtype | None], Layers]:
    """A decorator: `lay_out(network, dtype)` gives the layers once per weights and type.

    Their convolutions multiply in `dtype`, bfloat16, or as `lay_out` made them for None.
    """

    def lay_out_in_bfloat16(network: Network) -> Layers:
        return multiplying_in(torch.bfloat16, lay_out(network))

    as_made, in_bfloat16 = once_per_weights(lay_out), once_per_weights(lay_out_in_bfloat16)

    def laid_out(network: Network, dtype: torch.dtype | None) -> Layers:
        return as_made(network) if dtype is None else in_bfloat16(network)

    return laid_out


def mixed_precision(device: str) -> torch.dtype | None:
    """The type that `torch.autocast` asks for on such a device; None if it is off."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _suits_onednn(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
        and (weight.dtype == torch.float32 or _multiplies_natively(weight.dtype))
    )


def _multiplies_natively(dtype: torch.dtype) -> bool:
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.bfloat16 and supported
