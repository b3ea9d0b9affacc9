"""NeRD-Rain's hyper-parameters, read off the names and shapes of a state dict."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch

from derain.errors import DerainError
from derain.methods.contract import StateDict

PUBLISHED_EXPANSION = 2.66
STAGES = ("encoder_level1_small", "encoder_level2_small", "latent_small")


def recognise(state: StateDict) -> dict[str, Any] | None:
    """Keyword arguments of `NeRDRain`, or None when the state dict belongs to another network.

    Raises:
        DerainError: it is ours, but a tensor that tells a hyper-parameter is missing or odd.
    """
    if "patch_embed_small.proj.weight" not in state or "INR2.imnet.layers.0.weight" not in state:
        return None
    dim = _shape(state, "patch_embed_small.proj.weight", 4)[0]
    hidden = [_shape(state, f"{stage}.0.ffn.project_out.weight", 4)[1] for stage in STAGES]
    return {
        "dim": dim,
        "num_blocks": tuple(_count_blocks(state, stage) for stage in STAGES),
        "heads": tuple(_shape(state, f"{stage}.0.attn.temperature", 3)[0] for stage in STAGES),
        "ffn_expansion_factor": expansion_factor([dim, 2 * dim, 4 * dim], hidden),
        "bias": "output_small.bias" in state,
        "LayerNorm_type": "WithBias" if f"{STAGES[0]}.0.norm1.body.bias" in state else "BiasFree",
    }


def _shape(state: StateDict, name: str, axes: int) -> torch.Size:
    if name not in state:
        raise DerainError(f"a NeRD-Rain state dict without {name}, which tells the size of the network.")
    if state[name].dim() != axes:
        raise DerainError(f"{name} of NeRD-Rain must have {axes} axes, not {tuple(state[name].shape)}.")
    return state[name].shape


def _count_blocks(state: StateDict, stage: str) -> int:
    return next(n for n in itertools.count() if f"{stage}.{n}.attn.temperature" not in state)


def expansion_factor(widths: Sequence[int], hidden: Sequence[int]) -> float:
    """A factor f with int(width * f) equal to the hidden width, for all: the published 2.66 when it
    fits, else the shortest decimal number.

    Raises:
        DerainError: no factor does that.
    """

    def fits(factor: float) -> bool:
        return all(int(width * factor) == wide for width, wide in zip(widths, hidden, strict=True))

    if fits(PUBLISHED_EXPANSION):
        return PUBLISHED_EXPANSION
    least = max(wide / width for width, wide in zip(widths, hidden, strict=True))
    for digits in range(10):
        scale = float(10**digits)
        factor = math.ceil(least * scale) / scale
        if fits(factor):
            return factor
    raise DerainError(
        f"NeRD-Rain's ffn_expansion_factor cannot be read: no factor turns widths {list(widths)} "
        f"into the hidden widths {list(hidden)}."
    )
