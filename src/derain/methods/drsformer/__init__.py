"""DRSformer (CVPR 2023): a sparse Transformer, and how its checkpoints are recognised."""

from __future__ import annotations

from typing import Any

from derain.methods.contract import AbsoluteError, Architecture, Figure, Method
from derain.methods.drsformer.fast import FastDRSformer
from derain.methods.drsformer.recognition import recognise

_PUBLISHED: dict[str, Any] = {
    "inp_channels": 3,
    "out_channels": 3,
    "dim": 48,
    "num_blocks": (4, 6, 6, 8),
    "heads": (1, 2, 4, 8),
    "ffn_expansion_factor": 2.66,
    "bias": False,
    "LayerNorm_type": "WithBias",
}

_FIGURES = tuple(
    Figure(variant, dataset, psnr, ssim, protocol, "authors' README, camera-ready table")
    for variant, dataset, psnr, ssim, protocol in (
        ("light", "Rain200L", 41.23, 0.9894, "matlab_y_uint8"),
        ("full", "Rain200H", 32.17, 0.9326, "matlab_y_uint8"),
        ("full", "DID-Data", 35.35, 0.9646, "matlab_y_double"),
        ("full", "DDN-Data", 34.35, 0.9588, "matlab_y_double"),
        ("light", "SPA-Data", 48.54, 0.9924, "matlab_y_uint8"),
    )
)

METHOD = Method(
    name="drsformer",
    title="DRSformer (CVPR 2023)",
    paper="Chen et al., Learning A Sparse Transformer Network for Effective Image Deraining",
    architectures=(
        Architecture(
            name="drsformer",
            build=FastDRSformer,
            variants={"full": {**_PUBLISHED, "mefc": True}, "light": {**_PUBLISHED, "mefc": False}},
            recognise=recognise,
            tiny={"dim": 8, "num_blocks": (1, 1, 1, 1), "heads": (1, 2, 2, 4)},
            figures=_FIGURES,
            loss=AbsoluteError,
        ),
    ),
)
