"""Learning rates as pure functions of the step, as the published methods use them.

Steps count from 0 here: the first update has the rate of step 0. If a method changes its rate once
per epoch, `every` is the number of steps of an epoch and all other counts are in epochs.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


class _Schedule(BaseModel):
    """The base of all schedules.

    Attributes:
        every: steps per unit of all other counts: 1 to count in steps, an epoch's length to count in epochs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: PositiveInt = 1


class Constant(_Schedule):
    """Always the optimizer's rate."""

    name: Literal["constant"] = "constant"


class Steps(_Schedule):
    """Multiplied by `factor` at each of the milestones.

    Attributes:
        milestones: when the rate changes; the first update is number 0.
        factor: the factor by which the rate is multiplied.
    """

    name: Literal["steps"]
    milestones: list[PositiveInt]
    factor: PositiveFloat = 0.1


class Cosine(_Schedule):
    """Rises linearly from 0 over `warmup`, holds until `start`, falls to `floor` within `length`.

    Attributes:
        warmup: how long the rate rises.
        start: when it begins to fall.
        length: how long it falls.
        floor: the rate at the end.
    """

    name: Literal["cosine"]
    warmup: NonNegativeInt = 0
    start: NonNegativeInt = 0
    length: PositiveInt
    floor: NonNegativeFloat = 0.0


class Cyclic(_Schedule):
    """A triangle wave from the optimizer's rate up to `top` times it and back.

    Attributes:
        top: the highest rate, relative to the optimizer's.
        up, down: how long the rate rises and falls.
    """

    name: Literal["cyclic"]
    top: PositiveFloat = 1.2
    up: PositiveInt
    down: PositiveInt


Schedule = Annotated[Constant | Steps | Cosine | Cyclic, Field(discriminator="name")]


def rate_at(schedule: Constant | Steps | Cosine | Cyclic, base: float, step: int) -> float:
    """The learning rate of update number `step`, the first being 0; `base` is the optimizer's."""
    time = step // schedule.every
    match schedule:
        case Constant():
            return base
        case Steps():
            passed = sum(milestone <= time for milestone in schedule.milestones)
            return base * schedule.factor**passed
        case Cosine():
            if time < schedule.warmup:
                return base * time / schedule.warmup
            phase = min(max(time - schedule.start, 0) / schedule.length, 1)
            return schedule.floor + (base - schedule.floor) * (1 + math.cos(math.pi * phase)) / 2
        case Cyclic():
            place = time % (schedule.up + schedule.down)
            rise = place / schedule.up
            fall = (schedule.up + schedule.down - place) / schedule.down
            return base * (1 + (schedule.top - 1) * min(rise, fall))
