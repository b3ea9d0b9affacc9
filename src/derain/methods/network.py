"""The base class of every network: pictures in, pictures out, and the facts about itself."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from derain.errors import DerainError
from derain.nn.peak_bytes import PeakBytes
from derain.nn.tracing import is_tracing

# Rows of a picture from the first up to the last + 1, (B, 3, rows, W).
Rows = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Tile:
    """A square tile and the pixels that neighbouring tiles share, both in pixels."""

    size: int
    overlap: int


@dataclass(frozen=True)
class Spec:
    """What `restore`, `export` and the rest need to know to run a network.

    Attributes:
        multiple_of: height and width must be multiples of this many pixels.
        receptive_field: its radius: an output pixel depends on inputs at most this many pixels away (per
            axis); None if it is unlimited (global attention, recurrent sweeps).
        working_side: in pixels. If the shorter side of a picture is clearly longer, rain is found in a copy
            reduced to it, see `derain.restore.reduced`; None to restore every picture at its own size.
        tile: the tile of the published test protocol, if the result depends on it, otherwise None.
        refused_precisions: {"bfloat16": why, ...} for precisions that spoil the result.
        safe_in_bfloat16: whether, with published weights, results in bfloat16 are on average within half a
            level of 8 bits of those in float32, so that this faster type may be chosen for 8-bit pictures.
        stored_precision: the precision in which an exported file computes; "" for networks, whose precision
            can be chosen.
        maps: names of the outputs besides `image` that a user may want to see, (B, 1 or 3, H, W).
        onnx_functions: what the nodes of the domain "derain" in its exported graph mean, each as the
            text of an ONNX function.
    """

    multiple_of: int = 1
    receptive_field: int | None = None
    working_side: int | None = None
    tile: Tile | None = None
    refused_precisions: Mapping[str, str] = field(default_factory=dict)
    safe_in_bfloat16: bool = False
    stored_precision: str = ""
    maps: tuple[str, ...] = ()
    onnx_functions: tuple[str, ...] = ()


class RainNetwork(nn.Module):
    """A network that restores pictures, (B, 3, H, W) float RGB in [0, 1].

    A subclass sets `spec` and writes `plain`: what the paper describes, with ordinary modules. Where
    the picture can be computed faster without gradients, it also writes `fast`.

    Attributes:
        spec: set by the class, or by `__init__` if it depends on the arguments.
    """

    spec: Spec = Spec()

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """Everything that the network computes for its loss or for inspection; `image` is the result."""
        raise NotImplementedError

    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` and the maps of the spec as in `plain`, up to rounding, computed faster and without
        gradients; what only the loss needs may be missing."""
        return self.plain(rainy)

    def outputs(self, rainy: Tensor) -> dict[str, Tensor]:
        """`plain` while gradients are recorded or a graph is traced, else `fast`.

        Raises:
            DerainError: height or width is 0 or not a multiple of `spec.multiple_of`.
        """
        self._refuse_size(*rainy.shape[-2:])
        if torch.is_grad_enabled() or is_tracing():
            return self.plain(rainy)
        return self.fast(rainy)

    def in_bands(
        self, rainy: Rows, height: int, width: int, with_maps: bool = True
    ) -> Iterator[dict[str, Tensor]]:
        """As `outputs`, for a picture that is read in rows, without gradients.

        Args:
            rainy: returns rows of the picture; some are requested more than once.
            height, width: the size of the picture.
            with_maps: whether all maps are needed; otherwise, maps that cost time may be missing.

        Returns:
            The outputs in bands of rows, from top to bottom; in a single band, unless a network needs less
            memory for several.

        Raises:
            DerainError: height or width is 0 or not a multiple of `spec.multiple_of`.
        """
        with torch.no_grad():
            found = self.outputs(rainy(0, height))
        yield found

    def _refuse_size(self, height: int, width: int) -> None:
        multiple = self.spec.multiple_of
        if height % multiple or width % multiple or not height or not width:
            raise DerainError(
                f"a picture of {width}x{height} pixels: {type(self).__name__} needs sides that are multiples "
                f"of {multiple}; pad it first, as `derain.load` does."
            )

    def forward(self, rainy: Tensor) -> Tensor:
        """The restored picture, (B, 3, H, W) RGB; values may be slightly outside [0, 1]."""
        return self.outputs(rainy)["image"]

    def in_channels_last(self) -> Self:
        """This network, with its weights in the memory layout that is fastest without gradients."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def activation_bytes(self, height: int, width: int) -> int:
        """The most bytes of intermediate values that one `forward` on a (1, 3, height, width) float32
        picture holds at the same time, without gradients; it determines the size of tiles.

        Counted for `plain` on tensors without data. A network whose `fast` takes less overrides this.
        """
        with torch.no_grad():
            copied, rainy = self._without_data(height, width)
            counter = PeakBytes()
            with counter:
                copied.plain(rainy)
        return counter.most

    def band_bytes(self, height: int, width: int) -> int:
        """As `activation_bytes`, for `in_bands`, without the rows that it has already returned."""
        return self.activation_bytes(height, width)

    def multiply_adds(self, height: int, width: int) -> int:
        """Multiply-adds of the convolutions and matrix products of `plain` on a (1, 3, height, width)
        picture, counted on tensors without data."""
        return multiply_adds_of(*self._without_data(height, width))

    def _without_data(self, height: int, width: int) -> tuple[RainNetwork, Tensor]:
        """A copy of the network, and a picture, with shapes but no data."""
        values = itertools.chain(self.parameters(), self.buffers())
        shapes = {id(value): torch.empty_like(value, device="meta") for value in values}
        return copy.deepcopy(self, shapes), torch.empty(1, 3, height, width, device="meta")


def multiply_adds_of(network: nn.Module, picture: Tensor) -> int:
    """Multiply-adds of the convolutions and matrix products of one pass with gradients."""
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        network(picture)
    flops: int = counter.get_total_flops()
    return flops // 2
