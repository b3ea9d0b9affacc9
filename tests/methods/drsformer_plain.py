"""DRSformer written out step by step, with no thought of speed: the truth that the fast form must equal.

Every tensor exists whole, every layer is the library's, and each of the four selections is made by its
own top-k. State dict names and shapes are the published ones, as in `derain.methods.drsformer`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainDRSformer(nn.Module):
    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: str = "WithBias",
        mefc: bool = True,
    ) -> None:
        super().__init__()

        def blocks(level: int, width: int) -> nn.Sequential:
            arguments = width, heads[level], int(width * ffn_expansion_factor), bias, LayerNorm_type
            return nn.Sequential(*[Block(*arguments) for _ in range(num_blocks[level])])

        self.patch_embed = Inside("proj", nn.Conv2d(inp_channels, dim, 3, padding=1, bias=False))
        if mefc:
            self.encoder_level0 = Compensator(dim)
        self.encoder_level1 = blocks(0, dim)
        self.down1_2 = Inside("body", down(dim))
        self.encoder_level2 = blocks(1, 2 * dim)
        self.down2_3 = Inside("body", down(2 * dim))
        self.encoder_level3 = blocks(2, 4 * dim)
        self.down3_4 = Inside("body", down(4 * dim))
        self.latent = blocks(3, 8 * dim)
        self.up4_3 = Inside("body", up(8 * dim))
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = blocks(2, 4 * dim)
        self.up3_2 = Inside("body", up(4 * dim))
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = blocks(1, 2 * dim)
        self.up2_1 = Inside("body", up(2 * dim))
        self.decoder_level1 = blocks(0, 2 * dim)
        if mefc:
            self.refinement = Compensator(2 * dim)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)
        self.mefc = mefc

    def forward(self, x: Tensor) -> Tensor:
        f0 = self.patch_embed(x)
        if self.mefc:
            f0 = self.encoder_level0(f0)
        e1 = self.encoder_level1(f0)
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        deepest = self.latent(self.down3_4(e3))
        d3 = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(deepest), e3], 1)))
        d2 = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(d3), e2], 1)))
        d1 = self.decoder_level1(torch.cat([self.up2_1(d2), e1], 1))
        if self.mefc:
            d1 = self.refinement(d1)
        return self.output(d1) + x


class Inside(nn.Module):
    """Puts a layer below a name."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.name)(x)


def down(c: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, c // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


def up(c: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, 2 * c, 3, padding=1, bias=False), nn.PixelShuffle(2))


class Block(nn.Module):
    def __init__(self, c: int, heads: int, hidden: int, bias: bool, norm: str) -> None:
        super().__init__()
        self.norm1 = Inside("body", Norm(c, norm))
        self.attn = Attention(c, heads, bias)
        self.norm2 = Inside("body", Norm(c, norm))
        self.ffn = FeedForward(c, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Norm(nn.Module):
    def __init__(self, c: int, kind: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))
        self.bias = None if kind == "BiasFree" else nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        deviation = torch.sqrt((x - mean).square().mean(1, keepdim=True) + 1e-5)
        weight = self.weight.view(1, -1, 1, 1)
        if self.bias is None:
            return x / deviation * weight
        return (x - mean) / deviation * weight + self.bias.view(1, -1, 1, 1)


class Attention(nn.Module):
    def __init__(self, c: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.attn1 = nn.Parameter(torch.tensor([0.2]))
        self.attn2 = nn.Parameter(torch.tensor([0.2]))
        self.attn3 = nn.Parameter(torch.tensor([0.2]))
        self.attn4 = nn.Parameter(torch.tensor([0.2]))
        self.qkv = nn.Conv2d(c, 3 * c, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * c, 3 * c, 3, padding=1, groups=3 * c, bias=bias)
        self.project_out = nn.Conv2d(c, c, 1, bias=bias)

    def forward(self, z: Tensor) -> Tensor:
        n, c, h, w = z.shape
        flat = (n, self.heads, c // self.heads, h * w)
        q, k, v = (part.reshape(flat) for part in self.qkv_dwconv(self.qkv(z)).chunk(3, 1))
        logits = self.temperature * F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        result = torch.zeros_like(v)
        for scale, mask in zip(self.scales(), masks(logits), strict=True):
            result = result + scale * (logits.masked_fill(~mask, float("-inf")).softmax(-1) @ v)
        return self.project_out(result.reshape(n, c, h, w))

    def scales(self) -> list[Tensor]:
        return [self.attn1, self.attn2, self.attn3, self.attn4]


def masks(logits: Tensor) -> list[Tensor]:
    """Which entries of every row are among the k largest, for the four k."""
    c = logits.shape[-1]
    chosen = [logits.topk(k, dim=-1).indices for k in (c // 2, c * 2 // 3, c * 3 // 4, c * 4 // 5)]
    return [torch.zeros_like(logits, dtype=torch.bool).scatter(-1, index, True) for index in chosen]


class FeedForward(nn.Module):
    def __init__(self, c: int, hidden: int, bias: bool) -> None:
        super().__init__()
        both = 2 * hidden
        self.project_in = nn.Conv2d(c, both, 1, bias=bias)
        self.dwconv3x3 = nn.Conv2d(both, both, 3, padding=1, groups=both, bias=bias)
        self.dwconv5x5 = nn.Conv2d(both, both, 5, padding=2, groups=both, bias=bias)
        self.dwconv3x3_1 = nn.Conv2d(both, hidden, 3, padding=1, groups=hidden, bias=bias)
        self.dwconv5x5_1 = nn.Conv2d(both, hidden, 5, padding=2, groups=hidden, bias=bias)
        self.project_out = nn.Conv2d(both, c, 1, bias=bias)

    def forward(self, z: Tensor) -> Tensor:
        u = self.project_in(z)
        a1, a2 = F.relu(self.dwconv3x3(u)).chunk(2, 1)
        b1, b2 = F.relu(self.dwconv5x5(u)).chunk(2, 1)
        p = F.relu(self.dwconv3x3_1(torch.cat([a1, b1], 1)))
        q = F.relu(self.dwconv5x5_1(torch.cat([a2, b2], 1)))
        return self.project_out(torch.cat([p, q], 1))


class Compensator(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ExpertWeights(c), Steps(c)])

    def forward(self, z: Tensor) -> Tensor:
        return self.layers[1](z, self.layers[0](z).softmax(-1))


class ExpertWeights(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.ca_fc = nn.Sequential(nn.Linear(c, 64), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, z: Tensor) -> Tensor:
        return self.ca_fc(z.mean((2, 3))).view(-1, 4, 8)


class Steps(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.preprocess = Inside("op", nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.ReLU()))
        self._ops = nn.ModuleList([Experts(c) for _ in range(4)])

    def forward(self, z: Tensor, weights: Tensor) -> Tensor:
        s = self.preprocess(z)
        for number, step in enumerate(self._ops):
            s = F.relu(step(s, weights[:, number]) + s)
        return s


class Experts(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        experts = [Inside("op", separable(c, k)) for k in (1, 3, 5, 7)]
        experts += [Inside("op", dilated(c, k)) for k in (3, 5, 7)]
        self._ops = nn.ModuleList([*experts, nn.AvgPool2d(3, 1, 1, count_include_pad=False)])
        self._out = nn.Sequential(nn.Conv2d(8 * c, c, 1, bias=False), nn.ReLU())

    def forward(self, s: Tensor, weights: Tensor) -> Tensor:
        weighted = [weights[:, e].view(-1, 1, 1, 1) * expert(s) for e, expert in enumerate(self._ops)]
        return self._out(torch.cat(weighted, 1))


def separable(c: int, k: int) -> nn.Sequential:
    def depthwise() -> nn.Conv2d:
        return nn.Conv2d(c, c, k, padding=k // 2, groups=c, bias=False)

    def pointwise() -> nn.Conv2d:
        return nn.Conv2d(c, c, 1, bias=False)

    return nn.Sequential(depthwise(), pointwise(), nn.ReLU(), depthwise(), pointwise())


def dilated(c: int, k: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c, c, k, padding=k - 1, dilation=2, groups=c, bias=False), nn.Conv2d(c, c, 1, bias=False)
    )
