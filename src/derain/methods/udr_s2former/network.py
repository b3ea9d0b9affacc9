"""UDR-S2Former: sparse sampling transformer with uncertainty-driven ranking (Chen et al., ICCV 2023).

A U-shaped network of four levels for rain streaks, raindrops and both at once. The encoder
is convolutional, the bottleneck uses global attention; in the decoder, blocks that fetch clean content
from afar (sampling attention) alternate with blocks that rebuild locally (local attention). Both are
steered by where the level is uncertain (`ranking.py`). A refinement at full resolution comes last.

`fast.py` computes the same without gradients, faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.errors import DerainError
from derain.methods.network import RainNetwork, Spec, Tile
from derain.methods.udr_s2former.blocks import BottleneckBlock, DecoderBlock, EncoderBlock
from derain.methods.udr_s2former.layers import ChannelGate, named
from derain.methods.udr_s2former.refinement import Refinement

LEVELS = (0, 1, 2, 3)


class UDRS2Former(RainNetwork):
    """The network; state dict names, shapes and order are the published ones.

    The result depends on the size of the picture (rankings over the whole of it, and a sampling grid
    stretched over it), so `restore` works in the published tiles.

    Args:
        dims: channels of levels 0 to 3 (level k has 1/2^k of the resolution) and of the bottleneck.
        heads: attention heads of levels 0 to 3; the bottleneck has twice those of level 3.
        encoder_blocks: blocks of levels 0 to 3 on the way down.
        decoder_blocks: blocks of levels 0 to 3 on the way up; even ones sample, odd ones attend locally.
        bottleneck_blocks: blocks at 1/16 of the resolution.
        windows: sides of the attention windows of levels 0 to 3.
        expand_ratios: hidden channels of an encoder block over its channels, levels 0 to 3.

    Raises:
        DerainError: widths, heads and windows do not fit together.
    """

    def __init__(
        self,
        dims: Sequence[int] = (16, 32, 64, 128, 256),
        heads: Sequence[int] = (1, 2, 4, 8),
        encoder_blocks: Sequence[int] = (4, 6, 7, 8),
        decoder_blocks: Sequence[int] = (3, 6, 7, 8),
        bottleneck_blocks: int = 8,
        windows: Sequence[int] = (8, 8, 8, 8),
        expand_ratios: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        _check_sizes(dims, heads, windows)
        self.dims, self.windows = tuple(dims), tuple(windows)
        self.spec = Spec(
            multiple_of=math.lcm(16, *(w * 2**k for k, w in enumerate(windows))),
            tile=Tile(320, 64),
            maps=("uncertainty",),
        )
        self.embed = named("down", nn.Sequential(nn.Conv2d(3, dims[0], 3, padding=1, bias=False)))
        for k in LEVELS:
            encoder = (EncoderBlock(dims[k], expand_ratios[k] * dims[k]) for _ in range(encoder_blocks[k]))
            self.add_module(f"encoder_level{k}", nn.Sequential(named("model", nn.Sequential(*encoder))))
            down = nn.Conv2d(dims[k], dims[k + 1], 3, stride=2, padding=1, bias=False)
            self.add_module(f"down{k}", named("down", nn.Sequential(down)))
        self.latent = nn.Sequential(
            *(BottleneckBlock(dims[4], 2 * heads[3]) for _ in range(bottleneck_blocks))
        )
        for k in reversed(LEVELS):
            c = dims[k]
            up = nn.ConvTranspose2d(dims[k + 1], c, 4, stride=2, padding=1)
            self.add_module(f"up{k}", named("up", nn.Sequential(nn.Sequential(up))))
            self.add_module(f"ca{k}", ChannelGate(2 * c, c // 2, nn.ReLU(), bias=False))
            self.add_module(f"reduce_chan_level{k}", nn.Conv2d(2 * c, c, 1, bias=False))
            decoder = (DecoderBlock(c, heads[k], windows[k], i % 2 == 0) for i in range(decoder_blocks[k]))
            self.add_module(f"decoder_level{k}", named("model", nn.Sequential(*decoder)))
        self.refinement = Refinement(dims[:4])
        self.out_final = nn.Conv2d(dims[0], 3, 3, padding=1)
        for k in reversed(LEVELS):
            self.add_module(f"var_conv{k}", _uncertainty_head(dims[k]))
        self.var_conv_final = _uncertainty_head(dims[0])
        for k in reversed(LEVELS):
            self.add_module(f"out{k}", nn.Conv2d(dims[k], 3, 3, padding=1))

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """The result and what the loss needs.

        Returns:
            `image` (B, 3, H, W), not clamped; `scale0` to `scale3`, (B, 3, H / 2^k, W / 2^k), restored
            by each level alone; `uncertainty` and `uncertainty0` to `uncertainty3`, of the same shapes:
            raw maps v > -1 per colour, an error of the size of exp(v) is expected.
        """
        part = self.get_submodule
        result = {}
        encoded: list[Tensor] = []
        x = self.embed(rainy)
        for k in LEVELS:
            encoded.append(part(f"encoder_level{k}")(x))
            x = part(f"down{k}")(encoded[k])
        x = self.latent(x)
        decoded: list[Tensor] = []
        for k in reversed(LEVELS):
            joined = torch.cat([part(f"up{k}")(x), encoded[k]], 1)
            x = part(f"reduce_chan_level{k}")(part(f"ca{k}")(joined))
            features = part(f"var_conv{k}.1")(part(f"var_conv{k}.0")(x))
            result[f"scale{k}"] = part(f"out{k}")(x) + _smaller(rainy, k)
            result[f"uncertainty{k}"] = F.elu(part(f"var_conv{k}.2")(features))
            x = x.permute(0, 2, 3, 1)
            for block in part(f"decoder_level{k}.model").children():
                x = block(x, features)
            x = x.permute(0, 3, 1, 2)
            decoded.insert(0, x)
        z = self.refinement(encoded, decoded)
        result["uncertainty"] = F.elu(self.var_conv_final(z))
        return {"image": self.out_final(z) + rainy, **result}


def _uncertainty_head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ELU(), nn.Conv2d(channels, 3, 3, padding=1)
    )


def _smaller(picture: Tensor, level: int) -> Tensor:
    """The picture at 1/2^level of its size, bicubic without antialiasing."""
    return F.interpolate(picture, scale_factor=0.5**level, mode="bicubic") if level else picture


def _check_sizes(dims: Sequence[int], heads: Sequence[int], windows: Sequence[int]) -> None:
    if dims[0] % 16:
        raise DerainError(f"dims[0] = {dims[0]}: the refinement needs a multiple of 16.")
    for k, (c, n, w) in enumerate(zip(dims, heads, windows, strict=False)):
        if c % n or c % w:
            raise DerainError(
                f"dims[{k}] = {c} must be a multiple of heads[{k}] = {n} and windows[{k}] = {w}."
            )
    if dims[4] % (2 * heads[3]):
        raise DerainError(f"dims[4] = {dims[4]} must be a multiple of twice heads[3] = {heads[3]}.")
