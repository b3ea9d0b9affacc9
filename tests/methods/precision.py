"""What every network that bears bfloat16 promises."""

from __future__ import annotations

import torch
from torch import Tensor

from derain.methods.network import RainNetwork


def assert_bfloat16_stays_close(network: RainNetwork, rainy: Tensor) -> None:
    """The fast form in bfloat16 gives float32, not the plain form's values but within 45 dB of them."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = network(rainy)
    with torch.no_grad():
        exact = network.plain(rainy)["image"]
    assert half.dtype == torch.float32
    assert 0 < (half - exact).square().mean() < 10**-4.5
