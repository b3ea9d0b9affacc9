"""SPANet (CVPR 2019): network, loss, and how its checkpoints are recognised."""

from __future__ import annotations

from typing import Any

from derain.methods.contract import Architecture, Figure, Method, StateDict
from derain.methods.keys import shape_of
from derain.methods.spanet.loss import SPANetLoss
from derain.methods.spanet.network import SPANet


def _recognise(state: StateDict) -> dict[str, Any] | None:
    if "SAM1.irnn1.left_weight.weight" not in state or "conv_in.0.weight" not in state:
        return None
    return {"width": shape_of(state, "conv_in.0.weight")[0]}


METHOD = Method(
    name="spanet",
    title="SPANet (CVPR 2019)",
    paper="Wang et al., Spatial Attentive Single-Image Deraining with a High Quality Real Rain Dataset",
    architectures=(
        Architecture(
            name="spanet",
            build=SPANet,
            variants={"published": {"width": 32}},
            recognise=_recognise,
            tiny={"width": 8},
            figures=(Figure("published", "SPA-Data", 38.53, 0.9875, "skimage_rgb", "authors' README"),),
            unused_parameters=("SAM1.attention_layer",),
            loss=SPANetLoss,
        ),
    ),
)
