"""UDR-S2Former: sparse sampling transformer with uncertainty-driven ranking (Chen et al., ICCV 2023).

A U-shaped network of four levels for rain streaks, raindrops and both at once. The encoder is of
convolutions, the bottleneck of global attention; in the decoder, blocks that fetch clean content
from afar (sampling attention) alternate with blocks that rebuild locally (local attention). Both are
steered by where the level is uncertain (`ranking.py`). A refinement at full resolution ends it.

Form, not value, differs from the published code: pictures stay in channels-last memory; the rankings
of a level are made once and not in each of its blocks; channel gates scale the weights of the
convolution that follows; `forward` makes nothing that only the loss needs. See also
`window_attention.py` and `refinement.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.errors import UsageError
from derain.methods.network import RainNetwork, Spec, Tile
from derain.methods.udr_s2former.layers import Squeeze, by_pixels, gated_1x1, named, spatial_means
from derain.methods.udr_s2former.ranking import constraint, modulation
from derain.methods.udr_s2former.refinement import BLOCKS, Refinement
from derain.methods.udr_s2former.window_attention import LocalAttention, SamplingAttention
from derain.nn.pixels import as_pixels

LEVELS = (0, 1, 2, 3)


class UDRS2Former(RainNetwork):
    """The network; state dict names, shapes and order are the published ones.

    The result depends on the size of the picture (rankings over the whole of it, and a sampling grid
    stretched over it), so `restore` works in the published tiles.

    Args:
        dims: channels of levels 0 to 3 (level k has 1/2^k of the resolution) and of the bottleneck.
        heads: attention heads of levels 0 to 3; the bottleneck has twice those of level 3.
        encoder_blocks: of levels 0 to 3.
        decoder_blocks: of levels 0 to 3; even ones sample, odd ones attend locally.
        bottleneck_blocks: at 1/16 of the resolution.
        windows: sides of the attention windows of levels 0 to 3.
        expand_ratios: hidden channels of an encoder block over its channels, levels 0 to 3.

    Raises:
        UsageError: widths, heads and windows do not fit each other.
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
        self.dims, self.heads, self.windows = tuple(dims), tuple(heads), tuple(windows)
        self.encoder_blocks, self.decoder_blocks = tuple(encoder_blocks), tuple(decoder_blocks)
        self.bottleneck_blocks, self.expand_ratios = bottleneck_blocks, tuple(expand_ratios)
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
            squeeze = Squeeze(2 * c, c // 2, nn.ReLU(), bias=False)
            self.add_module(f"ca{k}", named("conv_du", squeeze))
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
        """The result and what the loss takes.

        Returns:
            `image` (B, 3, H, W), not clamped; `scale0` to `scale3`, (B, 3, H / 2^k, W / 2^k), restored
            by each level alone; `uncertainty` and `uncertainty0` to `uncertainty3`, of the same shapes:
            raw maps v > -1 per colour, an error of the size of exp(v) is expected.
        """
        return self._compute(rainy, all_outputs=True)

    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` and `uncertainty` alone."""
        return self._compute(rainy, all_outputs=False)

    def _compute(self, rainy: Tensor, all_outputs: bool) -> dict[str, Tensor]:
        part = self.get_submodule
        result = {}
        encoded: list[Tensor] = []
        x = self.embed(rainy.contiguous(memory_format=torch.channels_last))
        for k in LEVELS:
            encoded.append(part(f"encoder_level{k}")(x))
            x = part(f"down{k}")(encoded[k])
        x = self.latent(x)
        decoded: list[Tensor] = []
        for k in reversed(LEVELS):
            reduced = self._reduced(k, part(f"up{k}")(x), encoded[k])
            uncertainty = part(f"var_conv{k}.0")(reduced)
            uncertainty = part(f"var_conv{k}.1")(uncertainty)
            if all_outputs:
                result[f"scale{k}"] = part(f"out{k}")(reduced) + _smaller(rainy, k)
                result[f"uncertainty{k}"] = F.elu(part(f"var_conv{k}.2")(uncertainty))
            x = self._decoder(k, reduced, uncertainty)
            decoded.insert(0, x)
        z = self.refinement(encoded, decoded)
        return {"image": self.out_final(z) + rainy, "uncertainty": F.elu(self.var_conv_final(z)), **result}

    def _reduced(self, k: int, up: Tensor, encoded: Tensor) -> Tensor:
        """Gate and 1x1 convolution of concat(up, encoded), without making that: (B, dims[k], h, w)."""
        gate = self.get_submodule(f"ca{k}")(torch.cat([spatial_means(up), spatial_means(encoded)], 1))
        gates = gate.chunk(2, 1)
        weights = self.get_parameter(f"reduce_chan_level{k}.weight").chunk(2, 1)
        first = gated_1x1(up, gates[0], weights[0], up.new_zeros(()))
        return gated_1x1(encoded, gates[1], weights[1], first)

    def _decoder(self, k: int, x: Tensor, uncertainty: Tensor) -> Tensor:
        blocks = self.get_submodule(f"decoder_level{k}.model")
        sampling = constraint(uncertainty)
        local = modulation(uncertainty, self.windows[k])
        x = x.permute(0, 2, 3, 1).contiguous()
        for number, block in enumerate(blocks.children()):
            x = block(x, local if number % 2 else sampling)
        return x.permute(0, 3, 1, 2)

    def activation_bytes(self, height: int, width: int) -> int:
        """Twenty-one maps of the embedding's width, and position indices and weights in another layout."""
        return 2 * sum(p.numel() for p in self.parameters()) + 84 * self.dims[0] * height * width

    def multiply_adds(self, height: int, width: int) -> int:
        """18.9 G at 256 x 256 as published: convolutions, linear layers and matrix products."""
        c, area = self.dims, [(height >> k) * (width >> k) for k in range(5)]
        total = (3 * 27 * c[0] + 9 * c[0] ** 2) * area[0]
        for k in LEVELS:
            window = self.windows[k] ** 2
            hidden, decoder_blocks = self.expand_ratios[k] * c[k], self.decoder_blocks[k]
            encoder = self.encoder_blocks[k] * (2 * c[k] * hidden + 18 * hidden)
            ranking = 9 * c[k] ** 2 + window * c[k]
            decoder = decoder_blocks * (12 * c[k] ** 2 + 2 * window * c[k])
            reduction = 4 * c[k] * c[k + 1] + 2 * c[k] ** 2
            total += area[k] * (encoder + ranking + decoder + reduction) + area[k + 1] * 9 * c[k] * c[k + 1]
            samplers = (decoder_blocks + 1) // 2
            total += samplers * area[k] // window * 4 * self.heads[k] * c[k]
        d = c[4]
        total += self.bottleneck_blocks * area[4] * (7 * d * d + 77 * d + 2 * area[4] * d)
        stage = (2 * BLOCKS + 1) * 9 * c[0] ** 2 + 2 * (c[0] + 1) * (c[0] // 16)
        return total + 4 * area[0] * stage + sum(2 * c[0] * c[k] * area[k] for k in (1, 2, 3))


class EncoderBlock(nn.Module):
    """x + a gated branch of depthwise convolutions, (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(dim, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            named("body", NormedGELU(hidden)),
            nn.Identity(),  # the GELU is applied with the norm
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            named("channel_map", Squeeze(hidden, hidden // 4, nn.LeakyReLU(), bias=True)),
            nn.Conv2d(hidden, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        d = self.conv[:5](x)
        narrow = self.conv[6]
        assert isinstance(narrow, nn.Conv2d)
        assert narrow.bias is not None
        return x + gated_1x1(d, self.conv[5](spatial_means(d)), narrow.weight, narrow.bias)


class NormedGELU(nn.Module):
    """GELU of each pixel over the standard deviation of its channels; the mean is not removed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, a: Tensor) -> Tensor:
        normed = by_pixels(self._pixels, a.permute(0, 2, 3, 1), len(self.weight))
        return normed.permute(0, 3, 1, 2)

    def _pixels(self, a: Tensor) -> Tensor:
        centred = a - a.mean(1, keepdim=True)
        variance = (centred * centred).mean(1, keepdim=True)
        return F.gelu(a * torch.rsqrt(variance + 1e-5) * self.weight)


class BottleneckBlock(nn.Module):
    """Global attention, whose result replaces its input, and a gated feed-forward; (B, C, H, W)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = named("body", nn.LayerNorm(dim))
        self.norm3 = named("body", nn.LayerNorm(dim))
        self.attn_nn = GlobalAttention(dim, heads)
        self.ffn = FeedForward(dim)
        for module in self.modules():
            _published_initialisation(module)

    def forward(self, z: Tensor) -> Tensor:
        z = self.attn_nn(_over_channels(self.norm1, z))
        change: Tensor = self.ffn(_over_channels(self.norm3, z))
        return z + change


class GlobalAttention(nn.Module):
    """Attention over all pixels plus a depthwise convolution."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, t: Tensor) -> Tensor:
        b, c, h, w = t.shape
        tokens = as_pixels(t)
        q, k, v = (
            x.view(b, h * w, self.heads, -1).transpose(1, 2)
            for x in (self.q(tokens), *self.kv(tokens).chunk(2, -1))
        )
        s = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h, w, c)
        mixed: Tensor = self.proj(s.permute(0, 3, 1, 2)) + self.conv(t)
        return mixed


class FeedForward(nn.Module):
    """Two halves of a widened map, after convolutions of three sizes, multiplied."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, 2 * dim, 1)
        self.conv33 = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim)
        self.conv55 = nn.Conv2d(2 * dim, 2 * dim, 5, padding=2, groups=2 * dim)
        self.conv4 = nn.Conv2d(dim, dim, 1)

    def forward(self, y: Tensor) -> Tensor:
        u = self.conv1(y)
        first, second = (u + self.conv33(u) + self.conv55(u)).chunk(2, 1)
        out: Tensor = self.conv4(first * second)
        return out


class DecoderBlock(nn.Module):
    """Attention and feed-forward with residual connections on (B, H, W, C)."""

    def __init__(self, dim: int, heads: int, window: int, samples: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = (SamplingAttention if samples else LocalAttention)(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.dim = dim
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor, ranking: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), ranking)
        return by_pixels(self._feed_forward, x, 4 * self.dim)

    def _feed_forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return out


def _over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    normed: Tensor = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return normed


def _uncertainty_head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ELU(), nn.Conv2d(channels, 3, 3, padding=1)
    )


def _smaller(picture: Tensor, level: int) -> Tensor:
    """The picture at 1/2^level of its size, bicubic without antialiasing."""
    return F.interpolate(picture, scale_factor=0.5**level, mode="bicubic") if level else picture


def _published_initialisation(module: nn.Module) -> None:
    """That of the bottleneck; the other layers keep PyTorch's."""
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)


def _check_sizes(dims: Sequence[int], heads: Sequence[int], windows: Sequence[int]) -> None:
    if dims[0] % 16:
        raise UsageError(f"dims[0] = {dims[0]}: the refinement needs a multiple of 16.")
    for k, (c, n, w) in enumerate(zip(dims, heads, windows, strict=False)):
        if c % n or c % w:
            raise UsageError(
                f"dims[{k}] = {c} must be a multiple of heads[{k}] = {n} and windows[{k}] = {w}."
            )
    if dims[4] % (2 * heads[3]):
        raise UsageError(f"dims[4] = {dims[4]} must be a multiple of twice heads[3] = {heads[3]}.")
