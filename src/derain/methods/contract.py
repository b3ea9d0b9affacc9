"""What every network and every method of this package states about itself.

A network is an ordinary `torch.nn.Module`; nothing here is inherited from.
`methods/__init__.py` finds the descriptors, `restore/` and `checkpoints/` read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from derain.methods.network import Tile as Tile

StateDict = Mapping[str, Tensor]


class RainNetwork(Protocol):
    """The contract of a network; pictures are (B, 3, H, W) float RGB in [0, 1].

    Attributes:
        size_multiple: H and W must be multiples of this; `restore` pads, the network does not.
        reach: an output pixel depends on inputs at most this many pixels away (per axis);
            None when the reach is unlimited (global attention, recurrent sweeps).
        tile: the tile of the published test protocol where the result depends on it, else None.
        refused_precisions: {"bf16": why, ...} for precisions that spoil the result.
    """

    size_multiple: int
    reach: int | None
    tile: Tile | None
    refused_precisions: Mapping[str, str]

    def outputs(self, rainy: Tensor) -> dict[str, Tensor]:
        """Everything the network computes for its loss or a curious user; `image` is the result."""
        ...

    def forward(self, rainy: Tensor) -> Tensor:
        """The restored picture only: `outputs(rainy)["image"]`."""
        ...

    def working_bytes(self, height: int, width: int) -> int:
        """Most bytes of intermediate values that one `forward` on a (1, 3, height, width) float32
        picture holds at once, without gradients; `restore` chooses tiles by it."""
        ...

    def multiply_adds(self, height: int, width: int) -> int:
        """Multiply-adds of one `forward` on a (1, 3, height, width) picture."""
        ...


@dataclass(frozen=True)
class Figure:
    """A published score of a variant on a test set, with the place it was read."""

    variant: str
    dataset: str
    psnr: float
    ssim: float
    protocol: str
    source: str


@dataclass(frozen=True)
class Architecture:
    """One kind of network: how it is built, and how its checkpoints are recognised.

    Attributes:
        name: as users type it, e.g. "drsformer".
        build: the network's class, called with plain keyword arguments.
        variants: {variant name: keyword arguments}; the first one is the default. Users name the
            default variant by the architecture alone and the others as "architecture-variant".
        recognise: keyword arguments for `build` read off the names and shapes of a state dict,
            or None when the state dict belongs to another network. Raises `DerainError` when it
            is ours but something that cannot be inferred is missing.
        tiny: keyword arguments of a network small enough for tests.
        figures: published scores.
        idle_parameters: parts of the names of parameters that the published network carries but
            that never influence its output.
        loss: called with the network's `outputs`, with `clean` (B, 3, H, W) and, if it takes it,
            `rainy`; its other arguments are given by recipes under `loss`. Returns the terms of the
            training loss, which is their sum. None if the network is not trained with pairs.
    """

    name: str
    build: Callable[..., Any]
    variants: Mapping[str, Mapping[str, Any]]
    recognise: Callable[[StateDict], dict[str, Any] | None]
    tiny: Mapping[str, Any]
    figures: tuple[Figure, ...] = ()
    idle_parameters: tuple[str, ...] = ()
    loss: Callable[..., dict[str, Tensor]] | None = None


@dataclass(frozen=True)
class Method:
    """One published system: a folder below `methods/` that exports this as `METHOD`."""

    name: str
    title: str
    paper: str
    architectures: tuple[Architecture, ...] = field(default_factory=tuple)
