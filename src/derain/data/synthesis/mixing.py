"""How a layer of rain lies over a picture."""

from __future__ import annotations

from typing import Literal

import numpy as np

from derain.data.synthesis.pixels import FloatArray, in_color

Mixing = Literal["additive", "screen", "linear"]


def mix(clean: FloatArray, layer: FloatArray, mixing: Mixing) -> FloatArray:
    """A rainy picture, (H, W, 3) in [0, 1].

    Args:
        clean: (H, W, 3) in [0, 1].
        layer: (H, W), brightness of the rain, at least 0.
        mixing: "additive", clipped at white, as most public sets are made; "screen", where bright
            ground shows less rain; "linear", where a drop covers the ground with white light in
            linear light (squares of the values), so that rain shows on dark ground above all.
    """
    layer = in_color(np.clip(layer, 0, 1))
    if mixing == "additive":
        return np.asarray(np.minimum(clean + layer, 1), np.float32)
    if mixing == "screen":
        return clean + layer * (1 - clean)
    light = clean * clean
    rainy: FloatArray = np.sqrt(light + layer * (1 - light))
    return rainy
