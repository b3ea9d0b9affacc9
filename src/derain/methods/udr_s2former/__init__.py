"""UDR-S2Former (ICCV 2023): network, loss, and how its checkpoints are recognised."""

from __future__ import annotations

import math
from typing import Any

from derain.methods.contract import Architecture, Figure, Method, StateDict
from derain.methods.keys import count_below, shape_of
from derain.methods.udr_s2former.fast import FastUDRS2Former
from derain.methods.udr_s2former.loss import UDRS2FormerLoss
from derain.methods.udr_s2former.network import LEVELS


def _recognise(state: StateDict) -> dict[str, Any] | None:
    """Everything is inferred from names and shapes; only the bottleneck's heads leave no trace there, and
    are taken to be twice those of level 3, as published."""
    tables = [f"decoder_level{k}.model.0.attn.relative_position_bias_table" for k in LEVELS]
    widen = [f"encoder_level{k}.0.model.0.conv.0.weight" for k in LEVELS]
    needed = [*tables, *widen, "down3.down.0.weight", "latent.0.attn_nn.q.weight"]
    if any(name not in state for name in needed):
        return None
    return {
        "dims": (
            *(shape_of(state, name)[1] for name in widen),
            shape_of(state, "down3.down.0.weight")[0],
        ),
        "heads": tuple(shape_of(state, name, 2)[1] for name in tables),
        "encoder_blocks": tuple(count_below(state, f"encoder_level{k}.0.model") for k in LEVELS),
        "decoder_blocks": tuple(count_below(state, f"decoder_level{k}.model") for k in LEVELS),
        "bottleneck_blocks": count_below(state, "latent"),
        "windows": tuple((math.isqrt(shape_of(state, name, 2)[0]) + 1) // 2 for name in tables),
        "expand_ratios": tuple(shape_of(state, name)[0] // shape_of(state, name)[1] for name in widen),
    }


_TABLE = "authors' table: paper and project page"

METHOD = Method(
    name="udr_s2former",
    title="UDR-S2Former (ICCV 2023)",
    paper="Chen et al., Sparse Sampling Transformer with Uncertainty-Driven Ranking for Unified "
    "Removal of Raindrops and Rain Streaks",
    architectures=(
        Architecture(
            name="udr_s2former",
            build=FastUDRS2Former,
            variants={
                "published": {
                    "dims": (16, 32, 64, 128, 256),
                    "heads": (1, 2, 4, 8),
                    "encoder_blocks": (4, 6, 7, 8),
                    "decoder_blocks": (3, 6, 7, 8),
                    "bottleneck_blocks": 8,
                    "windows": (8, 8, 8, 8),
                    "expand_ratios": (2, 2, 2, 2),
                }
            },
            recognise=_recognise,
            tiny={
                "dims": (16, 16, 16, 32, 32),
                "heads": (1, 1, 2, 2),
                "encoder_blocks": (1, 1, 1, 1),
                "decoder_blocks": (2, 2, 2, 2),
                "bottleneck_blocks": 1,
            },
            loss=UDRS2FormerLoss,
            figures=tuple(
                Figure("published", dataset, psnr, ssim, "udr_test_y", _TABLE)
                for dataset, psnr, ssim in (
                    ("RainDS-Syn streaks", 42.39, 0.988),
                    ("RainDS-Syn drops", 39.78, 0.983),
                    ("RainDS-Syn both", 36.91, 0.966),
                    ("RainDS-Real streaks", 27.90, 0.745),
                    ("RainDS-Real drops", 26.01, 0.709),
                    ("RainDS-Real both", 25.52, 0.691),
                )
            ),
        ),
    ),
)
