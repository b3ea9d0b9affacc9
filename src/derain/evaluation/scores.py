"""Scores of a set: collected picture by picture, and summarised under the protocol's name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from derain.errors import UsageError
from derain.evaluation.levels import AnyPicture, Quantise
from derain.evaluation.registry import protocol


@dataclass(frozen=True)
class PictureScore:
    """The figures of one picture, {measure: value}."""

    name: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class SetScore:
    """The figures of a set under one protocol.

    Attributes:
        protocol: its name.
        pictures: the scores of pictures that could be scored.
        failed: why others could not be; one message each.
    """

    protocol: str
    pictures: tuple[PictureScore, ...]
    failed: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.pictures)

    @property
    def infinite(self) -> int:
        """The number of pictures equal to their clean ones, whose PSNR is infinite."""
        return sum(not _finite(picture) for picture in self.pictures)

    @property
    def mean(self) -> dict[str, float]:
        """Arithmetic mean of each measure over the pictures; of decibels, not of squared errors."""
        return _mean(self.pictures)

    @property
    def mean_finite(self) -> dict[str, float] | None:
        """The mean without the infinite pictures; None if nothing remains."""
        finite = [picture for picture in self.pictures if _finite(picture)]
        return _mean(finite) if finite else None

    def to_json(self) -> dict[str, Any]:
        """`pictures`, `mean`, `count`, `infinite`; also `mean_finite` if a value is infinite, and `failed`
        if a picture could not be scored.

        JSON has no infinity: an infinite value is null.
        """
        content: dict[str, Any] = {
            "pictures": [{"name": p.name, **_plain(p.values)} for p in self.pictures],
            "mean": _plain(self.mean),
            "count": self.count,
            "infinite": self.infinite,
        }
        if self.infinite:
            content["mean_finite"] = self.mean_finite
        if self.failed:
            content["failed"] = list(self.failed)
        return content


class Scores:
    """Accumulates a set's scores under one protocol, as a validation loop does.

        scores = Scores("matlab_y_uint8")
        scores.update(network(rainy), clean)      # (B, 3, H, W), or one picture of any kind
        scores.compute().mean["psnr"]

    Args:
        name: the name of the protocol.
        quantise: how floats become bytes where the protocol reads bytes: "round" or "floor".
    """

    def __init__(self, name: str, quantise: Quantise = "round") -> None:
        self.protocol = protocol(name)
        self.quantise = quantise
        self._pictures: list[PictureScore] = []

    def update(
        self,
        restored: AnyPicture,
        clean: AnyPicture | None = None,
        names: Sequence[str] | None = None,
        **others: AnyPicture | None,
    ) -> None:
        """Adds a picture, or a batch (B, 3, H, W) of them; names are counted from 1 unless given.

        Args:
            restored, clean: pictures in a form that the protocol takes.
            names: the names of the pictures.
            others: what else the protocol compares with, such as `rainy` and `mask`.

        Raises:
            DerainError: the pictures cannot be compared; nothing of the batch is then added.
            UsageError: the numbers of pictures or of names differ.
        """
        is_batch = restored.ndim == 4
        batch = list(restored) if is_batch else [restored]
        given = {"clean": clean, **others}
        partners = {k: list(p) if is_batch else [p] for k, p in given.items() if p is not None}
        first = len(self._pictures) + 1
        names = [str(first + i) for i in range(len(batch))] if names is None else names
        counts = {"restored": len(batch), **{k: len(p) for k, p in partners.items()}, "names": len(names)}
        if len(set(counts.values())) > 1:
            numbers = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            raise UsageError(f"a batch of {numbers}; the numbers must be equal.")
        self._pictures += [
            PictureScore(
                name,
                self.protocol(picture, quantise=self.quantise, **{k: p[i] for k, p in partners.items()}),
            )
            for i, (name, picture) in enumerate(zip(names, batch, strict=True))
        ]

    def compute(self) -> SetScore:
        """The scores so far.

        Raises:
            UsageError: no picture has been added yet.
        """
        if not self._pictures:
            raise UsageError(f"{self.protocol.name}: there are no pictures to average over.")
        return SetScore(self.protocol.name, tuple(self._pictures))


def _finite(picture: PictureScore) -> bool:
    return all(math.isfinite(value) for value in picture.values.values())


def _mean(pictures: Sequence[PictureScore]) -> dict[str, float]:
    measures = pictures[0].values
    return {m: math.fsum(p.values[m] for p in pictures) / len(pictures) for m in measures}


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
