"""NeRD-Rain: bidirectional multi-scale implicit neural representations (Chen et al., CVPR 2024).

The picture is restored at full, half and quarter size by three encoder-decoders that exchange
features. Coarse to fine, a small per-pixel network (INR) turns the deepest features of a scale into a
picture that is added to the input of the next finer scale, and the decoders' features are added to
those of the next finer scale. Fine to coarse, the full scale runs three passes, the half scale two
and the quarter scale one, and the deepest features of successive passes are fused and added to the
next coarser scale before it is decoded.

One thing differs in form from the published code, not in value: its INR is evaluated four times at
coordinates that cancel, so that once is enough. `fast.py` computes the picture faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.errors import DerainError
from derain.methods.network import RainNetwork, Spec, Tile
from derain.nn.channel_attention import cosines, join_heads, split_heads
from derain.nn.halo_windows import CPU_NUMBERS
from derain.nn.norms import is_bias_free
from derain.nn.pixels import halves
from derain.nn.pointwise import PointwiseConv2d
from derain.nn.resizing import Downsample, PatchEmbedding, Upsample
from derain.nn.transformer import transformer_blocks

INR_WIDTH = 256


class NeRDRain(RainNetwork):
    """The network; state dict names, shapes and order are the published ones.

    Args:
        dim: channels at the full size of each scale; doubled at each of the two smaller sizes.
        num_blocks: blocks at each of the three sizes.
        heads: attention heads at each of the three sizes.
        ffn_expansion_factor: hidden channels of half a feed-forward part, per channel.
        bias: whether the convolutions of blocks, reductions and outputs have a bias.
        LayerNorm_type: "WithBias" or "BiasFree".

    Raises:
        DerainError: inconsistent sizes, or another norm.
    """

    spec = Spec(
        multiple_of=16,
        # Attention spans the whole tile, so the published tiles of 256x256 are part of the result.
        tile=Tile(size=256, overlap=0),
    )

    def __init__(
        self,
        dim: int = 48,
        num_blocks: Sequence[int] = (2, 3, 3),
        heads: Sequence[int] = (1, 2, 4),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: str = "WithBias",
    ) -> None:
        super().__init__()
        _check_sizes(dim, num_blocks, heads)
        self.dim = dim
        bias_free = is_bias_free(LayerNorm_type)

        def blocks(level: int) -> nn.Sequential:
            width = dim << level
            hidden = int(width * ffn_expansion_factor)
            return transformer_blocks(
                num_blocks[level],
                width,
                attention=lambda: ChannelAttention(width, heads[level], bias),
                feed_forward=lambda: FeedForward(width, hidden, bias),
                bias_free_norm=bias_free,
            )

        def reduction(width: int) -> nn.Conv2d:
            return PointwiseConv2d(2 * width, width, bias=bias)

        def context() -> nn.Conv2d:
            return nn.Conv2d(dim, dim, 3, padding=1, bias=bias)

        def output() -> nn.Conv2d:
            return nn.Conv2d(dim, 3, 3, padding=1, bias=bias)

        def add_passes(scale: str, count: int) -> None:
            makers: dict[str, Callable[[], nn.Module]] = {
                "encoder_level1": lambda: blocks(0),
                "down1_2": lambda: Downsample(dim),
                "encoder_level2": lambda: blocks(1),
                "down2_3": lambda: Downsample(2 * dim),
                "latent": lambda: blocks(2),
                "up3_2": lambda: Upsample(4 * dim),
                "reduce_chan_level2": lambda: reduction(2 * dim),
                "decoder_level2": lambda: blocks(1),
                "up2_1": lambda: Upsample(2 * dim),
                "reduce_chan_level1": lambda: reduction(dim),
                "decoder_level1": lambda: blocks(0),
            }
            for layer, make in makers.items():
                for number in range(1, count + 1):
                    self.add_module(_name(layer, scale, number), make())

        self.patch_embed_small = PatchEmbedding(3, dim)
        add_passes("small", 1)
        self.output_small = output()
        self.INR = ImplicitRepresentation(dim)

        self.patch_embed_mid = PatchEmbedding(3, dim)
        add_passes("mid", 2)
        self.output_mid = output()
        self.output_mid_context = context()
        self.INR2 = ImplicitRepresentation(dim)

        self.patch_embed_max = PatchEmbedding(3, dim)
        add_passes("max", 3)
        self.output_max = output()
        self.output_max_context1 = context()
        self.output_max_context2 = context()

        self.BF1 = Fusion(4 * dim)
        self.BF2 = Fusion(4 * dim)
        self.BF3 = Fusion(4 * dim)
        self.upsmall2mid1 = Upsample(4 * dim)
        self.upsmall2mid2 = Upsample(2 * dim)
        self.upmid2max1 = Upsample(4 * dim)
        self.upmid2max2 = Upsample(2 * dim)

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """The result and what the loss needs, none of it clamped.

        Returns:
            `image` (B, 3, H, W); `half` and `quarter`, the restored pictures of those sizes;
            `inr_half` and `inr_quarter`, what the INRs made of those scales (the first is about
            twice as bright as a picture); `half_input`, what the half scale saw.
        """
        rainy_half, rainy_quarter = rainy[:, :, ::2, ::2], rainy[:, :, ::4, ::4]
        small, mid1, mid2 = self.layers("small", 1), self.layers("mid", 1), self.layers("mid", 2)
        max1, max2, max3 = (self.layers("max", number) for number in (1, 2, 3))

        # Coarse to fine: each scale adds a picture to the input of the next.
        quarter = small.encode(self.patch_embed_small(rainy_quarter))
        inr_quarter = rainy_quarter + self.INR(self.upsmall2mid2(self.upsmall2mid1(quarter.deepest)))
        half_input = rainy_half + twice(inr_quarter)
        half1 = mid1.encode(self.patch_embed_mid(half_input))
        inr_half = half_input + self.INR2(self.upmid2max2(self.upmid2max1(half1.deepest)))

        full1 = max1.encode(self.patch_embed_max(rainy + twice(inr_half)))
        full2 = max2.encode(self.output_max_context1(max1.decode(full1)))
        full3 = max3.encode(self.output_max_context2(max2.decode(full2)))

        # Fine to coarse: the deepest features of successive passes are added before a scale is decoded.
        feedback1 = every_second(self.BF1(full1.deepest, full2.deepest))
        feedback2 = every_second(self.BF2(full2.deepest, full3.deepest))
        half2 = mid2.encode(self.output_mid_context(mid1.decode(half1.plus(feedback1))))
        feedback3 = every_second(self.BF3(half1.deepest, half2.deepest))

        # Coarse to fine again: the decoders' features are added to those of the next finer scale.
        quarter_features = small.decode(quarter.plus(feedback3))
        half_features = mid2.decode(half2.plus(feedback2)) + twice(quarter_features)
        full_features = max3.decode(full3) + twice(half_features)
        return {
            "image": self.output_max(full_features) + rainy,
            "half": self.output_mid(half_features) + rainy_half,
            "quarter": self.output_small(quarter_features) + rainy_quarter,
            "inr_half": inr_half,
            "inr_quarter": inr_quarter,
            "half_input": half_input,
        }

    def layers(self, scale: str, number: int) -> Pass:
        """The layers of one pass of a scale, "small", "mid" or "max", by function."""
        names = {layer: _name(layer, scale, number) for layer in PASS_LAYERS}
        # As published, the third pass of the full scale takes the second one's reduction.
        names["reduce_chan_level1"] = _name("reduce_chan_level1", scale, min(number, 2))
        return Pass(**{layer: getattr(self, name) for layer, name in names.items()})

    def activation_bytes(self, height: int, width: int) -> int:
        """Eight maps of `dim` channels, the buffers of a window, weights in another layout."""
        pixels = height * width
        weights = sum(p.numel() for p in self.parameters())
        return 4 * (weights + 8 * self.dim * pixels + min(200 * pixels, 4 * CPU_NUMBERS))


class Encoded(NamedTuple):
    """What an encoder passes to its decoder."""

    level1: Tensor  # (B, dim, h, w)
    level2: Tensor  # (B, 2 dim, h/2, w/2)
    deepest: Tensor  # (B, 4 dim, h/4, w/4)

    def plus(self, feedback: Tensor) -> Encoded:
        """The same with something added to the deepest features."""
        return self._replace(deepest=self.deepest + feedback)


@dataclass(frozen=True)
class Pass:
    """One pass through an encoder and a decoder of three levels: (B, dim, h, w) -> the same."""

    encoder_level1: nn.Sequential
    down1_2: Downsample
    encoder_level2: nn.Sequential
    down2_3: Downsample
    latent: nn.Sequential
    up3_2: Upsample
    reduce_chan_level2: nn.Conv2d
    decoder_level2: nn.Sequential
    up2_1: Upsample
    reduce_chan_level1: nn.Conv2d
    decoder_level1: nn.Sequential

    def encode(self, x: Tensor) -> Encoded:
        level1 = self.encoder_level1(x)
        level2 = self.encoder_level2(self.down1_2(level1))
        return Encoded(level1, level2, self.latent(self.down2_3(level2)))

    def decode(self, encoded: Encoded) -> Tensor:
        x = self.reduce_chan_level2(torch.cat([self.up3_2(encoded.deepest), encoded.level2], 1))
        x = self.decoder_level2(x)
        x = self.reduce_chan_level1(torch.cat([self.up2_1(x), encoded.level1], 1))
        features: Tensor = self.decoder_level1(x)
        return features


PASS_LAYERS = tuple(field.name for field in fields(Pass))
RESIZERS = ("down1_2", "down2_3", "up3_2", "up2_1")


def _name(layer: str, scale: str, number: int) -> str:
    """A layer's published name. The quarter scale has one pass and no number; elsewhere levels and
    reductions count from 1, and what changes the size has a number from the second pass on."""
    bare = scale == "small" or (number == 1 and layer in RESIZERS)
    return f"{layer}_{scale}" if bare else f"{layer}_{scale}{number}"


def _check_sizes(dim: int, num_blocks: Sequence[int], heads: Sequence[int]) -> None:
    if dim < 2 or dim % 2:
        raise DerainError(f"NeRD-Rain's dim must be even and positive, not {dim}.")
    if len(num_blocks) != 3 or len(heads) != 3:
        raise DerainError("NeRD-Rain has three levels per scale: num_blocks and heads are lists of three.")
    for level, count in enumerate(heads):
        if count < 1 or (dim << level) % count:
            raise DerainError(
                f"NeRD-Rain's heads[{level}] is {count}; it must divide {dim << level} channels."
            )


def every_second(x: Tensor) -> Tensor:
    """The pixels of even rows and columns."""
    return x[:, :, ::2, ::2]


def twice(x: Tensor) -> Tensor:
    """Each pixel repeated 2x2."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class DepthwiseConv(nn.Module):
    """3x3 convolution of each channel by itself: (B, C, H, W) -> the same."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        return y


class ChannelAttention(nn.Module):
    """Attention across channels: Q, K and V of a head have one column per channel, over the pixels.

    V meets softmax(temperature cos(q_i, k_j)) over j (Zamir et al., "Restormer", CVPR 2022).
    (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = PointwiseConv2d(channels, 3 * channels, bias=bias)
        self.qkv_dwconv = DepthwiseConv(3 * channels, bias)
        self.project_out = PointwiseConv2d(channels, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        attention, v = self.attention_and_values(x)
        y: Tensor = self.project_out(join_heads(v @ attention.transpose(-2, -1), *x.shape[2:]))
        return y

    def attention_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, heads, C / heads, C / heads), whose rows add up to 1, and (B, heads, H W, C / heads)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, 1))
        return (self.temperature * cosines(q, k)).softmax(-1), v


class FeedForward(nn.Module):
    """project_out(GELU(a) b), a and b two halves of the widened input: (B, C, H, W) -> the same."""

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.project_in = PointwiseConv2d(channels, 2 * hidden, bias=bias)
        self.dwconv = DepthwiseConv(2 * hidden, bias)
        self.project_out = PointwiseConv2d(hidden, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        a, b = halves(self.dwconv(self.project_in(x)))
        y: Tensor = self.project_out(F.gelu(a) * b)
        return y


class Fusion(nn.Module):
    """Two bottlenecks of one scale, (B, C, H, W) each -> feedback to the coarser one, (B, C, H, W).

    s = sigmoid(query(x) key(y)); g = gamma1([x; s x]); k = gamma2([y; s y]); the feedback is
    g_0 x + g_1 s x + k_0 y + k_1 s y.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.key_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.gamma1 = nn.Conv2d(2 * channels, 2, 3, padding=1)
        self.gamma2 = nn.Conv2d(2 * channels, 2, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        s = torch.sigmoid(self.query_conv(x) * self.key_conv(y))
        g0, g1 = self.gamma1(torch.cat([x, s * x], 1)).chunk(2, 1)
        k0, k1 = self.gamma2(torch.cat([y, s * y], 1)).chunk(2, 1)
        feedback: Tensor = g0 * x + g1 * s * x + k0 * y + k1 * s * y
        return feedback


class ImplicitRepresentation(nn.Module):
    """INR: features (B, C, H, W) -> picture (B, 3, H, W), by a small network at each pixel.

    It sees the 3x3 neighbourhood of the features, 9 C numbers, and 20 coordinates: differences between
    the queried position and the pixel's, and the size of a pixel. As the pixel itself is what the
    published code queries, the differences are always 0, and the size is always 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(9 * channels + 20, INR_WIDTH), nn.ReLU()]
        layers += [nn.Linear(INR_WIDTH, INR_WIDTH), nn.ReLU(), nn.Linear(INR_WIDTH, INR_WIDTH), nn.ReLU()]
        self.imnet = nn.ModuleDict({"layers": nn.Sequential(*layers, nn.Linear(INR_WIDTH, 3))})

    def forward(self, features: Tensor) -> Tensor:
        near = F.unfold(features, 3, padding=1)  # (B, 9 C, H W)
        differences = torch.zeros_like(near[:, :1]).expand(-1, 18, -1)
        sizes = torch.full_like(near[:, :1], 2).expand(-1, 2, -1)
        seen = torch.cat([near, differences, sizes], 1).transpose(1, 2)
        picture: Tensor = self.imnet["layers"](seen).transpose(1, 2)
        return picture.reshape(-1, 3, *features.shape[2:])
