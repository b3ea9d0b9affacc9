"""NeRD-Rain's hyper-parameters, inferred from the names and shapes of a state dict."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from derain.errors import DerainError
from derain.methods.contract import StateDict
from derain.nn.expansion import expansion_factor

STAGES = ("encoder_level1_small", "encoder_level2_small", "latent_small")


def recognise(state: StateDict) -> dict[str, Any] | None:
    """Keyword arguments of `NeRDRain`, or None if the state dict belongs to another network.

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
