"""What a method that learns from rainy pictures alone provides; `restore/adapting.py` uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derain.methods.network import RainNetwork

Bytes = NDArray[np.uint8]
Progress = Callable[[int, int], None]  # steps done, and their total


class References(Protocol):
    """Several guesses of one clean picture, (H, W, 3) uint8 each."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Bytes: ...


@dataclass(frozen=True)
class Target:
    """What a rainy picture reveals about its clean version.

    Attributes:
        rainy: (1, 3, H, W) in [0, 1].
        rain_map: (H, W) uint8, where the method finds rain.
        references: several guesses of the clean picture, or None.
        mean: (1, 3, H, W) in [0, 1], the best guess.
        suspected: (1, 1, H, W) bool, whether a pixel may change.
        warning: what a user should know about this picture, or "".
    """

    rainy: Tensor
    rain_map: Bytes
    references: References | None
    mean: Tensor
    suspected: Tensor
    warning: str


@dataclass(frozen=True)
class Fit:
    """A network that was fitted to targets.

    Attributes:
        network: the network, on the CPU, in eval mode.
        ended: why fitting ended: "steps", "time" or "settled" (the loss no longer falls).
        losses: the loss of every step.
        seconds_to_restore: an estimate for all targets together.
    """

    network: RainNetwork
    ended: str
    losses: list[float] = field(repr=False)
    seconds_to_restore: float

    @property
    def note(self) -> str:
        """What a user should know about how fitting ended, or ""."""
        count = len(self.losses)
        return (
            f"time was up after {count} {'step' if count == 1 else 'steps'}" if self.ended == "time" else ""
        )


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    Attributes:
        together: whether one network is fitted to many pictures rather than to one.
        trained: whether the network is already trained; otherwise its weights are random.
        seconds: end early enough for all targets to be restored within this time, but not before the
            first step if a network is fitted `together`; None for no limit.
        device: the device on which to compute.
        precision: the precision in which to learn; weights stay float32.
        progress: called after each step.
    """

    together: bool = False
    trained: bool = False
    seconds: float | None = None
    device: torch.device | str = "cpu"
    precision: torch.dtype = torch.float32
    progress: Progress = lambda done, total: None


class SelfSupervision(Protocol):
    """One way to learn from rainy pictures alone."""

    @property
    def network(self) -> str:
        """The network to learn with by default, by its name in the registry."""
        ...

    @property
    def takes_trained(self) -> bool:
        """Whether it may start from an already trained network."""
        ...

    @property
    def safe_in_bfloat16(self) -> bool:
        """Whether results are as good when learning in bfloat16, so that it is used where it is faster."""
        ...

    @property
    def flips(self) -> bool:
        """Whether a result is the average over the four flips."""
        ...

    @property
    def seed(self) -> int:
        """The seed of random weights."""
        ...

    @property
    def least_side(self) -> int:
        """Smaller pictures are padded to this many pixels before a network sees them."""
        ...

    def rain_map(self, rainy: Bytes) -> tuple[Bytes, str]:
        """The published rain map (H, W) uint8 of an 8-bit picture (H, W, 3), and a note on it."""
        ...

    def target(self, rainy: Tensor, derained: Tensor | None = None) -> Target:
        """What a picture (1, 3, H, W) in [0, 1] reveals about its clean version.

        Args:
            rainy: the picture.
            derained: the result of an already trained network, of the same shape.

        Raises:
            DerainError: the picture is too small.
        """
        ...

    def fit(self, targets: Sequence[Target], network: RainNetwork, options: FitOptions) -> Fit:
        """Fits a network, untrained or trained, to targets; it is changed in place.

        Raises:
            DerainError: the loss is no longer finite.
        """
        ...

    def finished(self, target: Target, image: Tensor) -> Tensor:
        """The result, given the fitted network's output for the rainy picture; (1, 3, H, W) in [0, 1]."""
        ...
