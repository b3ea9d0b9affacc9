"""How to restore: the settings that a user can choose, and what they mean on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypedDict

import torch

from derain.errors import Remedy, UsageError, number_wanted, refuse_unknown
from derain.precisions import PRECISIONS, precision_name
from derain.strength import MAX_STRENGTH

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Settings:
    """How to restore.

    Attributes:
        device: one of `DEVICES`.
        precision: one of `PRECISIONS`, or "auto": float32, but bfloat16 for pictures of 8 bits where the
            processor supports it and the network tolerates it (`Spec.safe_in_bfloat16`).
        tile: side of a tile in pixels; None chooses by the available memory, 0 never tiles.
        overlap: pixels that neighbouring tiles share; None takes what the network needs.
        ensemble: average over positions of the picture: "flips", four times the work; "turns", the eight
            flips and quarter turns, eight times the work; True, those that the weights were trained with.
        phases: pixel-shuffle-down: restore the four half-size phases (even and odd rows and columns) one by
            one; said to help networks that were trained on synthetic rain with real pictures, and to cost
            detail. Large pictures are then not reduced.
        full_size: look for rain at full size, not in reduced copies of pictures larger than the network's
            working size (`Spec.working_side`). Finds thinner streaks but hardly any wide ones, and takes
            longer.
        strength: how much of the change to apply, 0 (none) to 1.5; 0.5 is half-way between the rainy
            and the restored picture, and above 1 the change is exaggerated, at the user's own risk.

    Raises:
        UsageError: a value is not one of these.
    """

    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    overlap: int | None = None
    ensemble: bool | str = False
    strength: float = 1.0
    phases: bool = False
    full_size: bool = False

    def __post_init__(self) -> None:
        refuse_unknown("device", self.device, DEVICES)
        if isinstance(self.precision, str):
            object.__setattr__(self, "precision", precision_name(self.precision))
        refuse_unknown("precision", self.precision, ("auto", *PRECISIONS))
        if self.tile is not None and not (_is_a(Integral, self.tile) and self.tile >= 0):
            raise UsageError(f"tile {self.tile!r}: give a positive number of pixels, or 0 for no tiles.")
        if self.overlap is not None and not (_is_a(Integral, self.overlap) and self.overlap >= 0):
            raise UsageError(f"overlap {self.overlap!r}: give 0 or a positive number of pixels.")
        if self.tile and self.overlap is not None and self.overlap >= self.tile:
            raise UsageError(f"overlap {self.overlap} must be smaller than tile {self.tile}.")
        if not (isinstance(self.ensemble, int | str) and self.ensemble in (False, True, "flips", "turns")):
            raise UsageError(f"ensemble {self.ensemble!r}: choose flips or turns.")
        if not (_is_a(Real, self.strength) and 0 <= self.strength <= MAX_STRENGTH):
            wanted = number_wanted(self.strength, whole=False, least=0, most=MAX_STRENGTH)
            raise UsageError(f"strength {self.strength!r}: {wanted}.")


def _is_a(kind: type, value: object) -> bool:
    """Whether a value, of whatever type the caller passed, is a number of this kind."""
    return isinstance(value, kind) and not isinstance(value, bool)


class Changes(TypedDict, total=False):
    """Some of the attributes of `Settings`, as keywords."""

    device: str
    precision: str
    tile: int | None
    overlap: int | None
    ensemble: bool | str
    strength: float
    phases: bool
    full_size: bool


@dataclass(frozen=True)
class VideoOptions:
    """How videos are restored and written.

    Attributes:
        codec: h264, h265, vp9, mpeg4, ffv1, prores or gif; None chooses by the container and the depth.
        crf: the codec's quality setting; lower is better. None takes 18 for H.264, 20 for H.265, 24 for VP9.
        resume: continue from the segments that an interrupted run left beside the result.
        frame_by_frame: do not correct frames by their neighbours; see `derain.restore.neighbours`.
        temporal: reduce flicker where neighbouring frames agree; see `derain.restore.temporal`.
        keep_fields: refuse interlaced videos, which are otherwise deinterlaced.
    """

    codec: str | None = None
    crf: int | None = None
    resume: bool = False
    frame_by_frame: bool = False
    temporal: bool = False
    keep_fields: bool = False


def choose_device(name: str) -> torch.device:
    """The device that one of `DEVICES` stands for. Raises `UsageError` if it is not available."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in present.items() if there))
    if not present[name]:
        raise UsageError(
            f"device '{name}' is not available here.", Remedy("use the best available", {"device": "auto"})
        )
    return torch.device(name)
