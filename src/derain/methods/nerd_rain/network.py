"""NeRD-Rain: bidirectional multi-scale implicit neural representations (Chen et al., CVPR 2024).

The picture is restored at full, half and quarter size by three encoder-decoders that talk to each
other. Coarse to fine, a small per-pixel network (INR) turns the deepest features of a scale into a
picture that is added to the input of the next finer scale, and the decoders' features are added to
those of the next finer scale. Fine to coarse, the full scale runs three passes, the half scale two
and the quarter scale one, and what successive passes found deepest is fused and added to the next
coarser scale before it is decoded.

Form, not value, differs from the published code. Its INR evaluates a local implicit function four
times at coordinates that cancel: that is one 3x3 convolution and three 1x1 ones. The block's wide
layers run window by window (`nn/windows.py`) on channels-last data, attention meets V together with
the projection after it, no picture is made for a scale that nobody asked for, and the fusions
compute the positions that survive their decimation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.errors import DerainError
from derain.methods.network import RainNetwork, Spec, Tile
from derain.nn.channel_attention import CosineSums, merged_projection
from derain.nn.norms import ChannelNorm
from derain.nn.pixels import as_map, as_pixels, plus_product
from derain.nn.pointwise import pointwise
from derain.nn.resizing import Downsample, PatchEmbedding, Upsample
from derain.nn.windows import CPU_NUMBERS, Sides, by_windows, conv, crop, crop_to

# The scales as the published names call them, with the passes that each one runs.
PASSES = {"small": 1, "mid": 2, "max": 3}
RESIZERS = ("down1_2", "down2_3", "up3_2", "up2_1")
INR_WIDTH = 256
INR_COORDINATES = 20


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
        DerainError: sizes that do not go together.
    """

    spec = Spec(
        multiple_of=16,
        # Attention looks at the whole window, so the published cut into windows is part of the result.
        tile=Tile(size=256, overlap=0),
        refused_precisions={
            "bfloat16": "on real pictures it came within 46 dB of float32 with fresh weights, "
            "13 dB with weights whose features grow from block to block"
        },
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
        _check_sizes(dim, num_blocks, heads, LayerNorm_type)
        self.dim = dim

        def stage(level: int) -> nn.Sequential:
            width = dim << level
            hidden = int(width * ffn_expansion_factor)
            bias_free = LayerNorm_type == "BiasFree"
            blocks = (Block(width, heads[level], hidden, bias, bias_free) for _ in range(num_blocks[level]))
            return nn.Sequential(*blocks)

        def reduction(width: int) -> nn.Conv2d:
            return nn.Conv2d(2 * width, width, 1, bias=bias)

        makers: dict[str, Callable[[], nn.Module]] = {
            "encoder_level1": lambda: stage(0),
            "down1_2": lambda: Downsample(dim),
            "encoder_level2": lambda: stage(1),
            "down2_3": lambda: Downsample(2 * dim),
            "latent": lambda: stage(2),
            "up3_2": lambda: Upsample(4 * dim),
            "reduce_chan_level2": lambda: reduction(2 * dim),
            "decoder_level2": lambda: stage(1),
            "up2_1": lambda: Upsample(2 * dim),
            "reduce_chan_level1": lambda: reduction(dim),
            "decoder_level1": lambda: stage(0),
        }
        for scale, passes in PASSES.items():
            self.add_module(f"patch_embed_{scale}", PatchEmbedding(3, dim))
            for kind, make in makers.items():
                for number in range(1, passes + 1):
                    self.add_module(_name(kind, scale, number), make())
            self.add_module(f"output_{scale}", nn.Conv2d(dim, 3, 3, padding=1, bias=bias))
            for suffix in {"small": (), "mid": ("",), "max": ("1", "2")}[scale]:
                context = nn.Conv2d(dim, dim, 3, padding=1, bias=bias)
                self.add_module(f"output_{scale}_context{suffix}", context)
            if scale == "small":
                self.INR = ImplicitRepresentation(dim)
            elif scale == "mid":
                self.INR2 = ImplicitRepresentation(dim)
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
        d = self._decoded(rainy)
        return {
            "image": self._picture("max", d.full) + rainy,
            "half": self._picture("mid", d.half) + rainy[:, :, ::2, ::2],
            "quarter": self._picture("small", d.quarter) + rainy[:, :, ::4, ::4],
            "inr_half": d.inr_half,
            "inr_quarter": d.inr_quarter,
            "half_input": d.half_input,
        }

    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` alone."""
        return {"image": self._picture("max", self._decoded(rainy).full) + rainy}

    def _decoded(self, rainy: Tensor) -> Decoded:
        """The whole network up to the last convolution of each scale."""
        _check_picture(rainy)
        quarter = self._encode(self._embed("small", rainy[:, :, ::4, ::4]), "small")
        features = self.upsmall2mid2(self.upsmall2mid1(quarter.deepest))
        inr_quarter = rainy[:, :, ::4, ::4] + self.INR(features)

        half_input = rainy[:, :, ::2, ::2] + _twice(inr_quarter)
        half1 = self._encode(self._embed("mid", half_input), "mid", 1)
        inr_half = half_input + self.INR2(self.upmid2max2(self.upmid2max1(half1.deepest)))

        full1 = self._encode(self._embed("max", rainy + _twice(inr_half)), "max", 1)
        t = self.get_submodule("output_max_context1")(self._decode(full1, "max", 1))
        full2 = self._encode(t, "max", 2)
        feedback1 = self.BF1(full1.deepest, full2.deepest)
        del full1
        t = self.get_submodule("output_max_context2")(self._decode(full2, "max", 2))
        full3 = self._encode(t, "max", 3)
        feedback2 = self.BF2(full2.deepest, full3.deepest)
        del full2

        t = self._decode(half1.plus(feedback1), "mid", 1)
        half2 = self._encode(self.get_submodule("output_mid_context")(t), "mid", 2)
        feedback3 = self.BF3(half1.deepest, half2.deepest)

        quarter_features = self._decode(quarter.plus(feedback3), "small")
        half_features = self._decode(half2.plus(feedback2), "mid", 2) + _twice(quarter_features)
        full_features = self._decode(full3, "max", 3) + _twice(half_features)
        return Decoded(full_features, half_features, quarter_features, inr_half, inr_quarter, half_input)

    def _embed(self, scale: str, picture: Tensor) -> Tensor:
        picture = picture.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.get_submodule(f"patch_embed_{scale}")(picture)
        return features

    def _encode(self, x: Tensor, scale: str, number: int = 1) -> Encoded:
        def part(kind: str) -> nn.Module:
            return self.get_submodule(_name(kind, scale, number))

        e1 = part("encoder_level1")(x)
        e2 = part("encoder_level2")(part("down1_2")(e1))
        return Encoded(e1, e2, part("latent")(part("down2_3")(e2)))

    def _decode(self, encoded: Encoded, scale: str, number: int = 1) -> Tensor:
        def part(kind: str) -> nn.Module:
            return self.get_submodule(_name(kind, scale, number))

        def joined(up: str, reduction: str, x: Tensor, skip: Tensor) -> Tensor:
            upsample, layer = part(up), self.get_submodule(reduction)
            assert isinstance(upsample, Upsample)
            assert isinstance(layer, nn.Conv2d)
            return upsample.joined(x, skip, layer)

        e1, e2, z = encoded
        u = part("decoder_level2")(joined("up3_2", _name("reduce_chan_level2", scale, number), z, e2))
        # The published third pass of the full scale takes the second one's reduction.
        reduction = _name("reduce_chan_level1", scale, min(number, 2))
        features: Tensor = part("decoder_level1")(joined("up2_1", reduction, u, e1))
        return features

    def _picture(self, scale: str, features: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, 3, h, w), what is added to the scale's picture."""
        picture: Tensor = self.get_submodule(f"output_{scale}")(features)
        return picture

    def activation_bytes(self, height: int, width: int) -> int:
        """Eight maps of `dim` channels, the buffers of a window, weights in another layout."""
        pixels = height * width
        weights = sum(p.numel() for p in self.parameters())
        return 4 * (weights + 8 * self.dim * pixels + min(200 * pixels, 4 * CPU_NUMBERS))

    def multiply_adds(self, height: int, width: int) -> int:
        """Of `fast`: 136 G for the default network and 64 G for `s` at 256x256."""
        return sum(count * height * width // area for area, count in self._multiply_adds_per_pixel())

    def _multiply_adds_per_pixel(self) -> Iterator[tuple[int, int]]:
        """(pixels of the picture per pixel of the layer, multiply-adds per pixel of the layer)."""
        for name, module in self.named_modules():
            area = _area(name)
            if isinstance(module, Block):
                yield area, module.multiply_adds
            elif isinstance(module, ImplicitRepresentation):
                yield area, 9 * self.dim * INR_WIDTH + 2 * INR_WIDTH**2 + 3 * INR_WIDTH
            elif isinstance(module, Fusion):
                channels = 4 * self.dim
                yield area, 2 * 9 * channels**2
                yield 4 * area, 2 * 9 * 2 * channels * 2
            elif isinstance(module, nn.Conv2d) and name.split(".")[0] not in ("output_small", "output_mid"):
                inside = name.split(".", 1)[-1]
                if name.startswith("reduce"):  # half of it is merged into the layer before
                    yield area, module.weight.numel() // 2
                elif inside == name or inside.startswith(("proj", "body")):
                    yield area, module.weight.numel()


class Encoded(NamedTuple):
    """What an encoder leaves for its decoder."""

    level1: Tensor  # (B, dim, h, w)
    level2: Tensor  # (B, 2 dim, h/2, w/2)
    deepest: Tensor  # (B, 4 dim, h/4, w/4)

    def plus(self, feedback: Tensor) -> Encoded:
        """The same with something added to the deepest features."""
        return self._replace(deepest=self.deepest + feedback)


class Decoded(NamedTuple):
    """What the three scales end in, before it becomes pictures."""

    full: Tensor  # (B, dim, H, W)
    half: Tensor  # (B, dim, H/2, W/2)
    quarter: Tensor  # (B, dim, H/4, W/4)
    inr_half: Tensor  # (B, 3, H/2, W/2)
    inr_quarter: Tensor  # (B, 3, H/4, W/4)
    half_input: Tensor  # (B, 3, H/2, W/2)


def _name(kind: str, scale: str, number: int) -> str:
    """A module's published name. The quarter scale has one pass and no number; elsewhere stages and
    reductions count from 1, and what changes the size has a number from the second pass on."""
    bare = scale == "small" or (number == 1 and kind in RESIZERS)
    return f"{kind}_{scale}" if bare else f"{kind}_{scale}{number}"


def _check_sizes(dim: int, num_blocks: Sequence[int], heads: Sequence[int], norm: str) -> None:
    if dim < 2 or dim % 2:
        raise DerainError(f"NeRD-Rain's dim must be even and positive, not {dim}.")
    if len(num_blocks) != 3 or len(heads) != 3:
        raise DerainError("NeRD-Rain has three sizes per scale: num_blocks and heads are lists of three.")
    for level, count in enumerate(heads):
        if count < 1 or (dim << level) % count:
            raise DerainError(
                f"NeRD-Rain's heads[{level}] is {count}; it must divide {dim << level} channels."
            )
    if norm not in ("WithBias", "BiasFree"):
        raise DerainError(f"NeRD-Rain's LayerNorm_type must be 'WithBias' or 'BiasFree', not '{norm}'.")


def _check_picture(rainy: Tensor) -> None:
    if rainy.dim() != 4 or rainy.shape[1] != 3:
        raise DerainError(f"NeRD-Rain needs RGB pictures (B, 3, H, W), not {tuple(rainy.shape)}.")


def _area(name: str) -> int:
    """How many pixels of the picture there are for one pixel of the module of that name."""
    top = name.split(".")[0]
    inside_scale = {"INR": 4, "INR2": 2, "BF1": 1, "BF2": 1, "BF3": 2}
    scale = inside_scale.get(top) or (4 if "small" in top else 2 if "mid" in top else 1)
    level = 1
    if top.startswith(("down2_3", "up2_1", "reduce_chan_level2", "encoder_level2", "decoder_level2")) or (
        top in ("upsmall2mid2", "upmid2max2")
    ):
        level = 2
    elif top.startswith(("up3_2", "latent", "BF", "upsmall2mid1", "upmid2max1")):
        level = 4
    return (scale * level) ** 2


def _twice(x: Tensor) -> Tensor:
    """Each pixel repeated 2x2."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Block(nn.Module):
    """x + attention(norm1(x)), then x + feed_forward(norm2(x)); (B, C, H, W) -> the same.

    While no gradients are recorded, the input serves as memory: its values are lost.
    """

    def __init__(self, channels: int, heads: int, hidden: int, bias: bool, bias_free_norm: bool) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels, bias_free_norm)
        self.attn = ChannelAttention(channels, heads, bias)
        self.norm2 = ChannelNorm(channels, bias_free_norm)
        self.ffn = FeedForward(channels, hidden, bias)
        # 1x1 layers with the merged projection, depthwise layers, Q K^T
        self.multiply_adds = (
            (4 * channels + 3 * hidden) * channels + 9 * (3 * channels + 2 * hidden) + channels**2 // heads
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(x, self.norm1)
        y: Tensor = self.ffn(x, self.norm2)
        return y


class DepthwiseConv(nn.Module):
    """The 3x3 depthwise convolution below its published name."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias))

    @property
    def weight(self) -> Tensor:
        """(C, 1, 3, 3)."""
        weight = self.main[0].weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """(C,) or None."""
        bias = self.main[0].bias
        assert bias is None or isinstance(bias, Tensor)
        return bias


class ChannelAttention(nn.Module):
    """Attention across channels, with the norm before it and the skip around it."""

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.channels = channels
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = DepthwiseConv(3 * channels, bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor, norm: ChannelNorm) -> Tensor:
        """(B, C, H, W) -> x + attention(norm(x)), written into x while no gradients are recorded."""
        v, attention = self.values_and_attention(x, norm)
        matrix = merged_projection(self.project_out.weight.flatten(1), attention)
        y = plus_product(as_pixels(x), as_pixels(v), matrix.transpose(1, 2))
        if self.project_out.bias is not None:
            y = y + self.project_out.bias
        return as_map(y, x)

    def values_and_attention(self, x: Tensor, norm: ChannelNorm) -> tuple[Tensor, Tensor]:
        """V (B, C, H, W) and the matrices after the softmax (B, heads, C/heads, C/heads)."""
        sums = CosineSums(self.heads)
        weight, bias = norm.absorbed_by(self.qkv.weight, self.qkv.bias)

        def values(window: Tensor, sides: Sides) -> Tensor:
            qkv = pointwise(norm.standardised(window), weight, bias)
            qkv = conv(qkv, self.qkv_dwconv.weight, self.qkv_dwconv.bias, sides, groups=qkv.shape[1])
            q, k, v = crop_to(qkv, crop(window, sides, 1), sides).chunk(3, 1)
            sums.add(q, k)
            return v

        v = by_windows(values, x, halo=1, channels=3 * self.channels)
        return v, sums.logits(self.temperature).softmax(-1)


class FeedForward(nn.Module):
    """project_out(GELU(a) b), a and b two halves, with the norm before it and the skip around it."""

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.hidden = hidden
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = DepthwiseConv(2 * hidden, bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor, norm: ChannelNorm) -> Tensor:
        """(B, C, H, W) -> x + feed_forward(norm(x))."""
        spare = -self.hidden % 8  # channels of zeros: kernels are slower on odd numbers such as 127
        wide = norm.absorbed_by(self.project_in.weight, self.project_in.bias)
        # Gating is faster on two tensors than on two parts of one.
        first, second = (
            self._half(slice(None, self.hidden), spare, *wide),
            self._half(slice(self.hidden, None), spare, *wide),
        )
        project_out = F.pad(self.project_out.weight, (0, 0, 0, 0, 0, spare))

        def added(window: Tensor, sides: Sides) -> Tensor:
            z, inside = norm.standardised(window), crop(window, sides, 1)
            gated = F.gelu(first.of(z, inside, sides)).mul_(second.of(z, inside, sides))
            return pointwise(gated, project_out, self.project_out.bias).add_(inside)

        # Both halves exist at once.
        return by_windows(added, x, halo=1, channels=3 * self.hidden // 2)

    def _half(self, channels: slice, spare: int, weight: Tensor, bias: Tensor | None) -> Half:
        def part(parameter: Tensor) -> Tensor:
            return _with_zeros(parameter[channels], spare)

        deep = self.dwconv
        return Half(
            weight=part(weight),
            bias=None if bias is None else part(bias),
            depthwise_weight=part(deep.weight),
            depthwise_bias=None if deep.bias is None else part(deep.bias),
        )


class Half(NamedTuple):
    """Parameters of one half of the wide layers: 1x1, then depthwise 3x3."""

    weight: Tensor
    bias: Tensor | None
    depthwise_weight: Tensor
    depthwise_bias: Tensor | None

    def of(self, z: Tensor, inside: Tensor, sides: Sides) -> Tensor:
        """For a window z with a halo of 1; as large as `inside`, the window without it."""
        wide = pointwise(z, self.weight, self.bias)
        y = conv(wide, self.depthwise_weight, self.depthwise_bias, sides, groups=wide.shape[1])
        return crop_to(y, inside, sides)


def _with_zeros(parameter: Tensor, count: int) -> Tensor:
    """So many more zeros along the first axis."""
    return F.pad(parameter, (0, 0) * (parameter.dim() - 1) + (0, count))


class Fusion(nn.Module):
    """Two bottlenecks (B, C, H, W) of one scale -> feedback (B, C, H/2, W/2) to the coarser one.

    s = sigmoid(query(x) key(y)); g = gamma1([x; s x]); k = gamma2([y; s y]); the feedback is
    g_0 x + g_1 s x + k_0 y + k_1 s y at even rows and columns.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.key_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.gamma1 = nn.Conv2d(2 * channels, 2, 3, stride=2, padding=1)
        self.gamma2 = nn.Conv2d(2 * channels, 2, 3, stride=2, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        s = torch.sigmoid(self.query_conv(x) * self.key_conv(y))
        return self._weighted(self.gamma1, x, s * x) + self._weighted(self.gamma2, y, s * y)

    def _weighted(self, gamma: nn.Conv2d, x: Tensor, gated: Tensor) -> Tensor:
        own, other = gamma(torch.cat([x, gated], 1)).chunk(2, 1)
        weighted: Tensor = own * x[:, :, ::2, ::2] + other * gated[:, :, ::2, ::2]
        return weighted


class ImplicitRepresentation(nn.Module):
    """INR: features (B, C, H, W) -> picture (B, 3, H, W).

    The first layer's columns are the 3x3 neighbourhood of the features (9 channel + 3 row + column),
    eighteen coordinate differences that are always zero and a cell size that is always 2, 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        layers: list[nn.Module] = [nn.Linear(9 * channels + INR_COORDINATES, INR_WIDTH), nn.ReLU()]
        layers += [nn.Linear(INR_WIDTH, INR_WIDTH), nn.ReLU(), nn.Linear(INR_WIDTH, INR_WIDTH), nn.ReLU()]
        self.imnet = nn.ModuleDict({"layers": nn.Sequential(*layers, nn.Linear(INR_WIDTH, 3))})

    def forward(self, features: Tensor) -> Tensor:
        layers = self.imnet["layers"]
        assert isinstance(layers, nn.Sequential)
        first, second, third, last = (layer for layer in layers if isinstance(layer, nn.Linear))
        neighbourhood, cell = first.weight[:, : 9 * self.channels], first.weight[:, -2:]
        kernel = neighbourhood.reshape(-1, self.channels, 3, 3)
        bias = first.bias + 2 * cell.sum(1)

        def colours(window: Tensor, sides: Sides) -> Tensor:
            z = F.relu(conv(window, kernel, bias, sides))
            for layer in (second, third):
                z = F.relu(pointwise(z, layer.weight[:, :, None, None], layer.bias))
            picture = pointwise(z, last.weight[:, :, None, None], last.bias)
            return crop_to(picture, crop(window, sides, 1), sides)

        return by_windows(colours, features, halo=1, channels=INR_WIDTH)
