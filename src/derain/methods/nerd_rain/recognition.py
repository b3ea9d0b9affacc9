"""NeRD-Rain's hyper-parameters, inferred from the names and shapes of a state dict."""

from __future__ import annotations

from typing import Any

from derain.methods.contract import StateDict
from derain.methods.keys import count_below, shape_of
from derain.nn.expansion import expansion_factor

LEVELS = ("encoder_level1_small", "encoder_level2_small", "latent_small")


def recognise(state: StateDict) -> dict[str, Any] | None:
    """Keyword arguments of `NeRDRain`, or None if the state dict belongs to another network.

    Raises:
        DerainError: it is NeRD-Rain's, but a tensor that determines a hyper-parameter is missing or odd.
    """
    if "patch_embed_small.proj.weight" not in state or "INR2.imnet.layers.0.weight" not in state:
        return None
    dim = shape_of(state, "patch_embed_small.proj.weight")[0]
    hidden = [shape_of(state, f"{level}.0.ffn.project_out.weight")[1] for level in LEVELS]
    return {
        "dim": dim,
        "num_blocks": tuple(count_below(state, level) for level in LEVELS),
        "heads": tuple(shape_of(state, f"{level}.0.attn.temperature", 3)[0] for level in LEVELS),
        "ffn_expansion_factor": expansion_factor([dim, 2 * dim, 4 * dim], hidden),
        "bias": "output_small.bias" in state,
        "LayerNorm_type": "WithBias" if f"{LEVELS[0]}.0.norm1.body.bias" in state else "BiasFree",
    }
