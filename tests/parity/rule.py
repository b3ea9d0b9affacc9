"""Weights and pictures that anyone can make again: every value follows from a name and a place.

The numbers in this folder came out of the published implementations with weights and pictures made by
this rule, so neither had to be stored. Value i of the tensor NAME is SplitMix64 of i, with a seed that
is the CRC-32 of the name, scaled by what the tensor is for.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STEP = 0x9E3779B97F4A7C15
SCALARS = ("temperature", "gamma", "beta", "alpha")


def uniform(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Values in [-1, 1) for the tensor called `name`."""
    with np.errstate(over="ignore"):
        place = np.arange(1, np.prod(shape, dtype=np.int64) + 1, dtype=np.uint64)
        x = np.uint64(zlib.crc32(name.encode())) * np.uint64(STEP) + place * np.uint64(STEP)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        x = x ^ (x >> np.uint64(31))
    return (2 * (x >> np.uint64(11)).astype(np.float64) / 2**53 - 1).reshape(shape)


def filled(state: Mapping[str, Tensor], gain: Mapping[str, float]) -> dict[str, Tensor]:
    """A state dict of the same names and shapes.

    Args:
        state: any values.
        gain: {ending of a name: factor}, the first that fits counts; "4d" is for kernels.
    """
    return {name: _value(name, like) * _gain(name, like, gain) for name, like in state.items()}


def _value(name: str, like: Tensor) -> Tensor:
    if not like.is_floating_point():
        return like.clone()
    shape, last = tuple(like.shape), name.rpartition(".")[2]
    u = uniform(name, shape)
    if last == "running_var":
        u = 1 + u / 2
    elif last in ("running_mean", "bias"):
        u = u / 10
    elif last == "weight" and like.ndim >= 2:
        u = u * np.sqrt(3 / np.prod(shape[1:]))
    elif like.ndim <= 1 or last in SCALARS:
        u = 1 + u / 10
    else:
        u = u / 2
    return torch.from_numpy(u).to(like.dtype)


def _gain(name: str, like: Tensor, gain: Mapping[str, float]) -> float:
    if not like.is_floating_point():
        return 1
    fitting = (f for end, f in gain.items() if name.endswith(end) or (end == "4d" and like.ndim == 4))
    return next(fitting, 1)


def picture(name: str, height: int, width: int) -> Tensor:
    """(1, 3, height, width) float32 in [0, 1]: smooth, with fine texture and streaks."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    planes = [
        0.5
        + 0.2 * np.sin(x / 17 + 3 * a) * np.cos(y / 23 + 3 * b)
        + 0.15 * np.sin((x + 0.35 * y) / 3 + 3 * c) ** 8
        + 0.05 * d
        for a, b, c, d in uniform(name, (3, 4))
    ]
    noise = uniform(f"{name}/noise", (3, height, width))
    return torch.from_numpy(np.clip(np.stack(planes) + 0.03 * noise, 0, 1)).float()[None]


def levels(name: str, height: int, width: int) -> NDArray[np.float64]:
    """The picture as (height, width, 3) whole numbers from 0 to 255."""
    scaled: NDArray[np.float64] = np.floor(
        255 * picture(name, height, width)[0].permute(1, 2, 0).double().numpy() + 0.5
    )
    return scaled


def sampled(values: Tensor | NDArray[np.float32], count: int = 1500) -> NDArray[np.float64]:
    """At most `count` values spread evenly over a tensor."""
    flat = np.asarray(values, np.float64).ravel()
    return flat[np.linspace(0, len(flat) - 1, min(count, len(flat))).round().astype(int)]
