"""DRSformer's hyper-parameters, inferred from the names and shapes of a state dict."""

from __future__ import annotations

from typing import Any

from derain.errors import DerainError
from derain.methods.contract import StateDict
from derain.nn.expansion import expansion_factor

# No other network of this package has all of these parameters.
SIGNS = ("patch_embed.proj.weight", "encoder_level1.0.ffn.dwconv5x5_1.weight")
LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def recognise(state: StateDict) -> dict[str, Any] | None:
    """Keyword arguments of `DRSformer`, or None if the state dict is another network's.

    Raises:
        DerainError: it has a DRSformer's names, but impossible shapes.
    """
    if any(name not in state for name in SIGNS):
        return None
    dim, inp_channels = _shape(state, "patch_embed.proj.weight", 4)[:2]
    hidden = [_shape(state, f"{name}.0.ffn.project_out.weight", 4)[1] // 2 for name in LEVELS]
    return {
        "inp_channels": inp_channels,
        "out_channels": _shape(state, "output.weight", 4)[0],
        "dim": dim,
        "num_blocks": [_count(state, level) for level in LEVELS],
        "heads": [_shape(state, f"{level}.0.attn.temperature", 3)[0] for level in LEVELS],
        "ffn_expansion_factor": expansion_factor([dim * 2**level for level in range(len(LEVELS))], hidden),
        "bias": "output.bias" in state,
        "LayerNorm_type": "WithBias" if "encoder_level1.0.norm1.body.bias" in state else "BiasFree",
        "mefc": any(name.startswith("encoder_level0.") for name in state),
    }


def _shape(state: StateDict, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise DerainError(f"looks like drsformer, but {name} is missing.")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise DerainError(f"looks like drsformer, but {name} is {shape}, not of {dimensions} dimensions.")
    return shape


def _count(state: StateDict, level: str) -> int:
    count = 0
    while f"{level}.{count}.attn.temperature" in state:
        count += 1
    return count
