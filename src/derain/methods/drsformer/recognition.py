"""DRSformer's hyper-parameters, inferred from the names and shapes of a state dict."""

from __future__ import annotations

from typing import Any

from derain.methods.contract import StateDict
from derain.methods.keys import count_below, shape_of
from derain.nn.expansion import expansion_factor

# No other network of this package has all of these parameters.
SIGNATURE = ("patch_embed.proj.weight", "encoder_level1.0.ffn.dwconv5x5_1.weight")
LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def recognise(state: StateDict) -> dict[str, Any] | None:
    """Keyword arguments of `DRSformer`, or None if the state dict is another network's.

    Raises:
        DerainError: it has a DRSformer's names, but impossible shapes.
    """
    if any(name not in state for name in SIGNATURE):
        return None
    dim, inp_channels = shape_of(state, "patch_embed.proj.weight")[:2]
    hidden = [shape_of(state, f"{name}.0.ffn.project_out.weight")[1] // 2 for name in LEVELS]
    return {
        "inp_channels": inp_channels,
        "out_channels": shape_of(state, "output.weight")[0],
        "dim": dim,
        "num_blocks": [count_below(state, level) for level in LEVELS],
        "heads": [shape_of(state, f"{level}.0.attn.temperature", 3)[0] for level in LEVELS],
        "ffn_expansion_factor": expansion_factor([dim * 2**level for level in range(len(LEVELS))], hidden),
        "bias": "output.bias" in state,
        "LayerNorm_type": "WithBias" if "encoder_level1.0.norm1.body.bias" in state else "BiasFree",
        "mefc": any(name.startswith("encoder_level0.") for name in state),
    }
