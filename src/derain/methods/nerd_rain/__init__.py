"""NeRD-Rain (CVPR 2024): network, loss, and how its checkpoints are recognised."""

from __future__ import annotations

from typing import Any

from derain.methods.contract import Architecture, Figure, Method
from derain.methods.nerd_rain.fast import FastNeRDRain
from derain.methods.nerd_rain.loss import NeRDRainLoss
from derain.methods.nerd_rain.recognition import recognise

_PUBLISHED: dict[str, Any] = {
    "num_blocks": (2, 3, 3),
    "heads": (1, 2, 4),
    "ffn_expansion_factor": 2.66,
    "bias": False,
    "LayerNorm_type": "WithBias",
}

_FIGURES = tuple(
    Figure(variant, dataset, psnr, ssim, protocol, "paper, table 1")
    for dataset, protocol, base, small in (
        ("Rain200L", "matlab_y_uint8", (41.71, 0.9903), (41.30, 0.9895)),
        ("Rain200H", "matlab_y_uint8", (32.40, 0.9373), (32.06, 0.9315)),
        ("DID-Data", "matlab_y_double", (35.53, 0.9659), (35.36, 0.9647)),
        ("DDN-Data", "matlab_y_double", (34.45, 0.9596), (34.25, 0.9578)),
        ("SPA-Data", "matlab_y_uint8", (49.58, 0.9940), (48.90, 0.9936)),
    )
    for variant, (psnr, ssim) in (("base", base), ("s", small))
)

METHOD = Method(
    name="nerd_rain",
    title="NeRD-Rain (CVPR 2024)",
    paper="Chen, Pan, Dong, Bidirectional Multi-Scale Implicit Neural Representations for Image Deraining",
    architectures=(
        Architecture(
            name="nerd_rain",
            build=FastNeRDRain,
            variants={"base": {"dim": 48, **_PUBLISHED}, "s": {"dim": 32, **_PUBLISHED}},
            recognise=recognise,
            tiny={"dim": 8, "num_blocks": (1, 2, 1), "heads": (1, 2, 4)},
            unused_parameters=("reduce_chan_level1_max3",),
            figures=_FIGURES,
            loss=NeRDRainLoss,
        ),
    ),
)
