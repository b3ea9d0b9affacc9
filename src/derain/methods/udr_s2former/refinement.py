"""The refinement at full resolution, fed by all levels of encoder and decoder.

Form, not value, differs from the published code: a level's features are brought to the width of the
full resolution before they are enlarged (both are linear and commute), so one enlargement of few
channels replaces two of many.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.udr_s2former.layers import Squeeze, named, spatial_means

BLOCKS = 6


class Refinement(nn.Module):
    """Encoder and decoder features of the four levels -> features (B, C, H, W) of level 0.

    Args:
        dims: channels of levels 0 to 3.
    """

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        width = dims[0]
        for j in range(4):
            self.add_module(f"refine{j}", Stage(width))
        for k in (1, 2, 3):
            for side in ("enc", "dec"):
                layers = nn.Sequential(nn.Identity(), nn.Conv2d(dims[k], width, 1, bias=False))
                self.add_module(f"up_{side}{k}", named("up", layers))
        for j in range(4):
            self.add_module(f"conv_enc{j}", Gates(width))

    def forward(self, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        """Both hold levels 0 to 3, (B, dims[k], H / 2^k, W / 2^k)."""
        part = self.get_submodule
        z: Tensor = part("refine0")(decoded[0] + part("conv_enc0")(encoded[0] + decoded[0]))
        for k in (1, 2, 3):
            small = part(f"up_enc{k}")(encoded[k]) + part(f"up_dec{k}")(decoded[k])
            large = F.interpolate(small, scale_factor=2**k, mode="bilinear")
            z = part(f"refine{k}")(z + part(f"conv_enc{k}")(large))
        return z


class Stage(nn.Module):
    """Six gated residual blocks and a convolution, with a residual connection over all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.body = nn.Sequential(*(Block(width) for _ in range(BLOCKS)), last)

    def forward(self, z: Tensor) -> Tensor:
        change: Tensor = self.body(z)
        return z + change


class Block(nn.Module):
    """v + gate * conv(GELU(conv(v)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.CA = named("conv_du", Squeeze(width, width // 4, nn.ReLU(), bias=True))
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, v: Tensor) -> Tensor:
        y = self.body(v)
        return torch.addcmul(v, y, self.CA(spatial_means(y))[:, :, None, None])


class Gates(nn.Sequential):
    """Channel, pixel, channel and pixel gate in turn."""

    def __init__(self, width: int) -> None:
        gates = [gate for _ in range(2) for gate in (ChannelGate(width), PixelGate(width))]
        super().__init__(*gates)


class ChannelGate(nn.Module):
    """v * gate per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_du = Squeeze(width, width // 16, nn.ReLU(), bias=False)

    def forward(self, v: Tensor) -> Tensor:
        gate: Tensor = self.conv_du(spatial_means(v))
        return v * gate[:, :, None, None]


class PixelGate(nn.Module):
    """v * gate per pixel, one for all channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 16
        self.pa = nn.Sequential(nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, 1, 1))

    def forward(self, v: Tensor) -> Tensor:
        return v * torch.sigmoid(self.pa(v))
