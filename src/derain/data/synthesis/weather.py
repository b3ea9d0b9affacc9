"""What a user may change about any kind of synthetic rain: its angle, its amount, its brightness."""

from __future__ import annotations

from dataclasses import dataclass, replace

from derain.data.synthesis.presets import RainKind
from derain.data.synthesis.streaks import Range
from derain.errors import UsageError

STEEPEST = 80.0  # degrees from vertical
MOST = 10.0  # largest factor on a preset; beyond that, most turn nearly all of a picture white


@dataclass(frozen=True)
class Weather:
    """Changes to a kind of rain; by default there are none.

    Attributes:
        angle: angle of the fall in degrees from vertical, drawn from this range for each picture; positive
            leans to the right going down. None leaves it to the kind of rain.
        density: factor on the number of streaks, marks or drops; its two ends multiply those of the
            kind's range.
        brightness: factor on the brightness of streaks and marks, in the same way; drops on the glass are not
            affected.

    Raises:
        UsageError: a range is empty, or has impossible values.
    """

    angle: Range | None = None
    density: Range = (1.0, 1.0)
    brightness: Range = (1.0, 1.0)

    def __post_init__(self) -> None:
        if self.angle is not None and not -STEEPEST <= self.angle[0] <= self.angle[1] <= STEEPEST:
            raise UsageError(
                f"angle {_text(self.angle)}: "
                f"give degrees from -{STEEPEST:g} to {STEEPEST:g}, the smaller first."
            )
        for name, (low, high) in (("density", self.density), ("brightness", self.brightness)):
            if not 0 < low <= high <= MOST:
                raise UsageError(
                    f"{name} {_text((low, high))}: give numbers above 0, up to {MOST:g}, the smaller first."
                )

    def applied_to(self, kinds: tuple[RainKind, ...]) -> tuple[RainKind, ...]:
        """The same kinds of rain in this weather.

        Raises:
            UsageError: a change has no effect on any of them.
        """
        falls = any(rain.streaks or rain.near for rain in kinds)
        has_effect = {
            "angle": falls,
            "density": falls or any(rain.drops for rain in kinds),
            "brightness": falls,
        }
        for name, effective in has_effect.items():
            ends = getattr(self, name)
            if ends != getattr(ORDINARY, name) and not effective:
                lacks = "falling rain" if has_effect["density"] else "rain"
                raise UsageError(f"{name} {_text(ends)}: has no effect here, as the preset has no {lacks}.")
        return tuple(map(self._applied_to_one, kinds))

    def _applied_to_one(self, rain: RainKind) -> RainKind:
        streaks = tuple(
            replace(
                ranges,
                angle=self.angle or ranges.angle,
                coverage=_times(ranges.coverage, self.density),
                brightness=_times(ranges.brightness, self.brightness),
            )
            for ranges in rain.streaks
        )
        near = tuple(
            replace(
                ranges,
                angle=self.angle or ranges.angle,
                count=_times(ranges.count, self.density),
                opacity=_times(ranges.opacity, self.brightness, most=max(1.0, ranges.opacity[1])),
            )
            for ranges in rain.near
        )
        drops = rain.drops and replace(rain.drops, density=_times(rain.drops.density, self.density))
        return replace(rain, streaks=streaks, near=near, drops=drops)


ORDINARY = Weather()


def _times(ends: Range, factors: Range, most: float = float("inf")) -> Range:
    return min(ends[0] * factors[0], most), min(ends[1] * factors[1], most)


def _text(ends: Range) -> str:
    return f"{ends[0]:g}" if ends[0] == ends[1] else f"{ends[0]:g} to {ends[1]:g}"
