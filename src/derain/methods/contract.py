"""What every method of this package states about itself.

`methods/__init__.py` finds these descriptors; `checkpoints/`, `training/` and the rest read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from derain.methods.network import RainNetwork
from derain.methods.self_supervision import SelfSupervision

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Loss:
    """A training loss: a frozen dataclass, whose fields are the options that recipes may set under `loss`."""

    def __call__(self, outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        """The terms, {name: scalar}, each with its weight applied; the loss is their sum.

        Args:
            outputs: the outputs of the network's `plain`.
            clean: (B, 3, H, W) in [0, 1].
            rainy: the network's input, of the same shape.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class AbsoluteError(Loss):
    """The mean absolute error alone."""

    def __call__(self, outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        return {"l1": F.l1_loss(outputs["image"], clean)}


@dataclass(frozen=True)
class Figure:
    """A published score of a variant on a test set, with its source."""

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
        name: what users type, e.g. "drsformer".
        build: the network's class, called with plain keyword arguments.
        variants: {variant name: keyword arguments}; the first one is the default. Users name the
            default variant by the architecture alone and the others as "architecture-variant".
        recognise: keyword arguments for `build`, inferred from the names and shapes of a state dict,
            or None if the state dict belongs to another network. Raises `DerainError` if it
            belongs to this one but lacks something needed.
        tiny: keyword arguments of a network small enough for tests.
        figures: published scores.
        unused_parameters: parts of the names of parameters that the published network has but
            that never influence its output.
        loss: its training loss; None if the network is not trained with pairs.
    """

    name: str
    build: Callable[..., RainNetwork]
    variants: Mapping[str, Mapping[str, Any]]
    recognise: Callable[[StateDict], dict[str, Any] | None]
    tiny: Mapping[str, Any]
    figures: tuple[Figure, ...] = ()
    unused_parameters: tuple[str, ...] = ()
    loss: type[Loss] | None = None

    def called(self, variant: str | None) -> str:
        """The user-facing name of a variant; for None, an unusual size, that of the architecture."""
        is_default = variant in (None, next(iter(self.variants)))
        return self.name if is_default else f"{self.name}-{variant}"


@dataclass(frozen=True)
class Method:
    """One published system: a folder below `methods/` that exports this as `METHOD`.

    Attributes:
        name: the name of the folder.
        title: the system and where it was published.
        paper: authors and title.
        architectures: its networks.
        self_supervision: returns the ways to learn from rainy pictures alone, {preset: way}, the default
            first; None for methods that need clean pictures.
    """

    name: str
    title: str
    paper: str
    architectures: tuple[Architecture, ...] = field(default_factory=tuple)
    self_supervision: Callable[[], Mapping[str, SelfSupervision]] | None = None
