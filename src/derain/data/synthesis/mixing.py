"""How a layer of rain is combined with a picture."""

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
        mixing: "additive", clipped at white, as in most public sets; "screen", where bright
            backgrounds show less rain; "linear", where a drop covers the background with white in
            linear light (squares of the values), so that rain shows mainly on dark backgrounds.
    """
    layer = in_color(np.clip(layer, 0, 1))
    if mixing == "additive":
        return np.asarray(np.minimum(clean + layer, 1), np.float32)
    if mixing == "screen":
        return clean + layer * (1 - clean)
    light = clean * clean
    rainy: FloatArray = np.sqrt(light + layer * (1 - light))
    return rainy
