"""The refinement at full resolution, fed by all levels of encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from derain.methods.udr_s2former.layers import ChannelGate, named

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
            self.add_module(f"refine{j}", ResidualGroup(width))
        for k in (1, 2, 3):
            for side in ("enc", "dec"):
                enlarge = nn.Upsample(scale_factor=2**k, mode="bilinear")
                layers = nn.Sequential(enlarge, nn.Conv2d(dims[k], width, 1, bias=False))
                self.add_module(f"up_{side}{k}", named("up", layers))
        for j in range(4):
            self.add_module(f"conv_enc{j}", Gates(width))

    def forward(self, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        """Both hold levels 0 to 3, (B, dims[k], H / 2^k, W / 2^k)."""
        part = self.get_submodule
        z: Tensor = part("refine0")(decoded[0] + part("conv_enc0")(encoded[0] + decoded[0]))
        for k in (1, 2, 3):
            enlarged = part(f"up_enc{k}")(encoded[k]) + part(f"up_dec{k}")(decoded[k])
            z = part(f"refine{k}")(z + part(f"conv_enc{k}")(enlarged))
        return z


class ResidualGroup(nn.Module):
    """Six gated residual blocks and a convolution, with a residual connection over all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.body = nn.Sequential(*(GatedBlock(width) for _ in range(BLOCKS)), last)

    def forward(self, z: Tensor) -> Tensor:
        change: Tensor = self.body(z)
        return z + change


class GatedBlock(nn.Module):
    """v + gate * conv(GELU(conv(v)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.CA = ChannelGate(width, width // 4, nn.ReLU(), bias=True)
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, v: Tensor) -> Tensor:
        change: Tensor = self.CA(self.body(v))
        return v + change


class Gates(nn.Sequential):
    """Channel, pixel, channel and pixel gate in turn."""

    def __init__(self, width: int) -> None:
        inner = width // 16
        super().__init__(
            ChannelGate(width, inner, nn.ReLU(), bias=False),
            PixelGate(width, inner),
            ChannelGate(width, inner, nn.ReLU(), bias=False),
            PixelGate(width, inner),
        )


class PixelGate(nn.Module):
    """v times a factor in (0, 1) for each pixel, one for all channels."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.pa = nn.Sequential(nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, 1, 1))

    def forward(self, v: Tensor) -> Tensor:
        return v * torch.sigmoid(self.pa(v))
