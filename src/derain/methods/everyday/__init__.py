"""Everyday: this project's own network, made for speed on ordinary machines."""

from __future__ import annotations

from typing import Any

from derain.methods.contract import Architecture, Method, StateDict
from derain.methods.everyday.fast import FastEveryday
from derain.methods.everyday.loss import EverydayLoss
from derain.methods.keys import count_below, shape_of


def _recognise(state: StateDict) -> dict[str, Any] | None:
    if "stem.weight" not in state or "encoder.0.0.first.weight" not in state:
        return None
    levels = 1 + count_below(state, "down")
    return {
        "widths": tuple(shape_of(state, f"encoder.{level}.0.first.weight")[0] for level in range(levels)),
        "encoder": tuple(count_below(state, f"encoder.{level}") for level in range(levels)),
        "decoder": tuple(count_below(state, f"decoder.{level}") for level in range(levels - 1)),
    }


METHOD = Method(
    name="everyday",
    title="Everyday (this project)",
    paper="none: a plain U-Net, described in its folder",
    architectures=(
        Architecture(
            name="everyday",
            build=FastEveryday,
            variants={
                "default": {
                    "widths": (32, 64, 128, 176),
                    "encoder": (2, 2, 2, 4),
                    "decoder": (2, 2, 2),
                },
                # For cameras: the same levels, a ninth of the multiply-adds.
                "small": {"widths": (16, 32, 48, 64), "encoder": (1, 1, 1, 2), "decoder": (1, 1, 1)},
            },
            recognise=_recognise,
            tiny={"widths": (8, 12), "encoder": (1, 1), "decoder": (1,)},
            loss=EverydayLoss,
        ),
    ),
)
