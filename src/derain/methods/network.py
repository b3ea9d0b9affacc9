"""The base class of every network: pictures in, pictures out, and what it states about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from derain.errors import DerainError
from derain.nn.tracing import is_tracing


@dataclass(frozen=True)
class Tile:
    """A square tile and the pixels that neighbouring tiles share, both in pixels."""

    size: int
    overlap: int


@dataclass(frozen=True)
class Spec:
    """What `restore`, `export` and the rest must know to run a network.

    Attributes:
        multiple_of: height and width must be multiples of this many pixels.
        receptive_field: an output pixel depends on inputs at most this many pixels away (per axis);
            None when it is unlimited (global attention, recurrent sweeps).
        tile: the tile of the published test protocol where the result depends on it, else None.
        refused_precisions: {"bfloat16": why, ...} for precisions that spoil the result.
        maps: names of the outputs beside `image` that a user may want to see, each (B, 1, H, W).
    """

    multiple_of: int = 1
    receptive_field: int | None = None
    tile: Tile | None = None
    refused_precisions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    maps: tuple[str, ...] = ()


class RainNetwork(nn.Module):
    """A network that restores pictures, (B, 3, H, W) float RGB in [0, 1].

    A subclass sets `spec` and writes `plain`: what the paper describes, with ordinary modules.
    Where that can be had faster without gradients, it also writes `fast`, which returns the same values.

    Attributes:
        spec: of the class, or set by `__init__` where it depends on the arguments.
    """

    spec: Spec = Spec()

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """Everything the network computes for its loss or a curious user; `image` is the result."""
        raise NotImplementedError

    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """The values of `plain`, up to rounding, computed faster; without gradients."""
        return self.plain(rainy)

    def outputs(self, rainy: Tensor) -> dict[str, Tensor]:
        """`fast` where no gradients flow and nothing is traced, else `plain`.

        Raises:
            DerainError: height or width is not a multiple of `spec.multiple_of`.
        """
        height, width = rainy.shape[-2:]
        multiple = self.spec.multiple_of
        if height % multiple or width % multiple:
            raise DerainError(
                f"{type(self).__name__} needs height and width to be multiples of {multiple}; "
                f"this picture is {width}x{height}. Pad it first, as `derain.load` does."
            )
        if torch.is_grad_enabled() or is_tracing():
            return self.plain(rainy)
        return self.fast(rainy)

    def forward(self, rainy: Tensor) -> Tensor:
        """The restored picture, (B, 3, H, W) RGB; values may leave [0, 1] slightly."""
        return self.outputs(rainy)["image"]

    def activation_bytes(self, height: int, width: int) -> int:
        """Most bytes of intermediate values that one `forward` on a (1, 3, height, width) float32
        picture holds at once, without gradients; tiles are chosen by it."""
        raise NotImplementedError

    def multiply_adds(self, height: int, width: int) -> int:
        """Multiply-adds of the convolutions and matrix products of `plain` on a (1, 3, height, width)
        picture, counted on tensors without data."""
        state = {name: value.to("meta") for name, value in self.state_dict(keep_vars=True).items()}
        rainy = torch.empty(1, 3, height, width, device="meta")
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:
            torch.func.functional_call(self, state, rainy)
        flops: int = counter.get_total_flops()
        return flops // 2
