"""What the protocols measure: the name of each figure, how it is printed, and its best value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A figure of a picture.

    Attributes:
        title: the heading of its column.
        digits: how many decimals tables print.
        ideal: the best value; infinite where higher, or lower, is always better.
    """

    title: str
    digits: int
    ideal: float

    def distance(self, value: float) -> float:
        """Distance from the ideal, for sorting; the lowest is the best."""
        if math.isinf(self.ideal):
            return math.copysign(1, -self.ideal) * value
        return abs(value - self.ideal)


MEASURES = {
    "psnr": Measure("PSNR dB", 2, math.inf),
    "ssim": Measure("SSIM", 4, math.inf),
    "removed": Measure("rain removed", 2, 1),
    "harm": Measure("harm", 2, 0),
    "detail": Measure("detail kept", 3, 1),
    "brightness": Measure("brightness change", 2, 0),
    "niqe": Measure("NIQE", 2, -math.inf),
    "brisque": Measure("BRISQUE", 2, -math.inf),
    "flicker": Measure("flicker", 3, 0),
}


def figure(measure: str, value: float) -> str:
    """A value with the digits usual in the field's tables."""
    return f"{value:.{MEASURES[measure].digits}f}"


def described(values: Mapping[str, float]) -> str:
    """All values of a picture or a mean in a few words, e.g. "31.52 dB, SSIM 0.9412"."""
    return ", ".join(
        f"{figure(m, v)} dB" if m == "psnr" else f"{MEASURES[m].title} {figure(m, v)}"
        for m, v in values.items()
    )
