"""NeRD-Rain's restored picture without gradients, faster than `network.py` computes it.

What differs from the plain form:

- Weights are laid out once (`nn/prepared.py`): norms are part of the 1x1 convolutions after them,
  reductions part of the upsampling before them, and kernels are in oneDNN's layout.
- The wide layers of a block run window by window (`nn/halo_windows.py`) on channels-last data.
- Attention needs neither normalised Q and K nor A V (`nn/channel_attention.py`): a matrix maps V to
  what is added to the block's input, and the windows of the feed-forward part apply it.
- In mixed precision, products inside the blocks, INRs and fusions take bfloat16; norms, logits, softmax, the
  sums that blocks add to and the convolutions of these sums stay in float32.
- The INRs are convolutions, the fusions compute only the positions that survive their decimation, and
  no picture is made for a scale whose picture only the loss needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.nerd_rain import network as plain
from derain.nn.channel_attention import CosineSums, merged_projection
from derain.nn.convolution import Activation, Convolution, laid_out_by_precision, mixed_precision
from derain.nn.halo_windows import Sides, by_windows, crop, crop_to, padding
from derain.nn.joining import Joining, doubled, halved
from derain.nn.norms import ChannelNorm
from derain.nn.resizing import Upsample
from derain.nn.transformer_fast import BlockSequence


class FastNeRDRain(plain.NeRDRain):
    """`NeRDRain` whose results without gradients come from this file."""

    @torch.no_grad()
    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` alone."""
        device = rainy.device.type
        mixed = mixed_precision(device)
        if mixed == torch.float16:
            return self.plain(rainy)
        # On a CPU one by one, so that memory stays that of one.
        pictures = torch.split(rainy, 1 if device == "cpu" else len(rainy))
        with torch.autocast(device, enabled=False):
            layers = laid_out(self, mixed)
            return {"image": torch.cat([restored(layers, picture) for picture in pictures])}


def restored(n: Layers, rainy: Tensor) -> Tensor:
    """`NeRDRain.plain(rainy)["image"]` up to rounding."""
    rainy = rainy.contiguous(memory_format=torch.channels_last)
    rainy_half, rainy_quarter = rainy[:, :, ::2, ::2], rainy[:, :, ::4, ::4]

    quarter = n.small.encode(n.embed_small(rainy_quarter))
    half_input = plus_twice(rainy_half, rainy_quarter + n.inr_small(quarter.deepest))
    half1 = n.mid1.encode(n.embed_mid(half_input))
    full1 = n.max1.encode(n.embed_max(plus_twice(rainy, half_input + n.inr_mid(half1.deepest))))
    full2 = n.max2.encode(n.context_max1(n.max1.decode(full1)))
    feedback1 = n.fusion1(full1.deepest, full2.deepest)
    del full1
    full3 = n.max3.encode(n.context_max2(n.max2.decode(full2)))
    feedback2 = n.fusion2(full2.deepest, full3.deepest)
    del full2

    half2 = n.mid2.encode(n.context_mid(n.mid1.decode(half1.plus(feedback1))))
    feedback3 = n.fusion3(half1.deepest, half2.deepest)
    quarter_features = n.small.decode(quarter.plus(feedback3))
    half_features = plus_twice(n.mid2.decode(half2.plus(feedback2)), quarter_features)
    full_features = plus_twice(n.max3.decode(full3), half_features)
    return n.output(full_features) + rainy


def plus_twice(x: Tensor, coarse: Tensor) -> Tensor:
    """x (B, C, 2h, 2w) plus each pixel of `coarse` (B, C, h, w) repeated 2x2."""
    batch, channels, height, width = coarse.shape
    four = x.view(batch, channels, height, 2, width, 2)
    return (four + coarse[:, :, :, None, :, None]).view(x.shape)


@dataclass(frozen=True)
class Layers:
    """The network's layers as `restored` uses them."""

    small: Pass
    mid1: Pass
    mid2: Pass
    max1: Pass
    max2: Pass
    max3: Pass
    embed_small: Convolution
    embed_mid: Convolution
    embed_max: Convolution
    context_mid: Convolution
    context_max1: Convolution
    context_max2: Convolution
    output: Convolution
    inr_small: ImplicitRepresentation
    inr_mid: ImplicitRepresentation
    fusion1: Fusion
    fusion2: Fusion
    fusion3: Fusion


@laid_out_by_precision
def laid_out(n: plain.NeRDRain) -> Layers:
    """The layers of a network with their weights laid out.

    The convolutions outside blocks, from and to colours or sums of many blocks, stay exact: their operands
    are not standardised, so that few digits tell pixels apart.
    """
    return Layers(
        small=Pass.of(n.layers("small", 1)),
        mid1=Pass.of(n.layers("mid", 1)),
        mid2=Pass.of(n.layers("mid", 2)),
        max1=Pass.of(n.layers("max", 1)),
        max2=Pass.of(n.layers("max", 2)),
        max3=Pass.of(n.layers("max", 3)),
        embed_small=Convolution.like(n.patch_embed_small.proj, exact=True),
        embed_mid=Convolution.like(n.patch_embed_mid.proj, exact=True),
        embed_max=Convolution.like(n.patch_embed_max.proj, exact=True),
        context_mid=Convolution.like(n.output_mid_context, exact=True),
        context_max1=Convolution.like(n.output_max_context1, exact=True),
        context_max2=Convolution.like(n.output_max_context2, exact=True),
        output=Convolution.like(n.output_max, exact=True),
        inr_small=ImplicitRepresentation.of(n.upsmall2mid1, n.upsmall2mid2, n.INR),
        inr_mid=ImplicitRepresentation.of(n.upmid2max1, n.upmid2max2, n.INR2),
        fusion1=Fusion.of(n.BF1),
        fusion2=Fusion.of(n.BF2),
        fusion3=Fusion.of(n.BF3),
    )


@dataclass(frozen=True)
class Pass:
    """`network.Pass`."""

    encoder_level1: BlockSequence
    down1_2: Convolution
    encoder_level2: BlockSequence
    down2_3: Convolution
    latent: BlockSequence
    up3_2: Joining
    decoder_level2: BlockSequence
    up2_1: Joining
    decoder_level1: BlockSequence

    @classmethod
    def of(cls, layers: plain.Pass) -> Pass:
        parts = Attention.of, FeedForward.of
        return cls(
            encoder_level1=BlockSequence.of(layers.encoder_level1, *parts),
            down1_2=Convolution.like(_only(layers.down1_2.body)),
            encoder_level2=BlockSequence.of(layers.encoder_level2, *parts),
            down2_3=Convolution.like(_only(layers.down2_3.body)),
            latent=BlockSequence.of(layers.latent, *parts),
            up3_2=Joining.of(layers.up3_2, layers.reduce_chan_level2),
            decoder_level2=BlockSequence.of(layers.decoder_level2, *parts),
            up2_1=Joining.of(layers.up2_1, layers.reduce_chan_level1),
            decoder_level1=BlockSequence.of(layers.decoder_level1, *parts),
        )

    def encode(self, x: Tensor) -> plain.Encoded:
        level1 = self.encoder_level1(x)
        level2 = self.encoder_level2(halved(self.down1_2(level1)))
        return plain.Encoded(level1, level2, self.latent(halved(self.down2_3(level2))))

    def decode(self, encoded: plain.Encoded) -> Tensor:
        x = self.decoder_level2(self.up3_2(encoded.deepest, encoded.level2))
        return self.decoder_level1(self.up2_1(x, encoded.level1))


@dataclass(frozen=True)
class Attention:
    """`network.ChannelAttention` with the norm before it, up to the product with V."""

    norm: ChannelNorm
    qkv: Convolution
    depthwise: Convolution
    temperature: Tensor  # (heads, 1, 1)
    project_out: Tensor  # (C, C)
    bias: Tensor | None  # of the projection

    @classmethod
    def of(cls, norm: ChannelNorm, attn: plain.ChannelAttention) -> Attention:
        return cls(
            norm=norm,
            qkv=Convolution.of(*norm.absorbed_by(attn.qkv.weight, attn.qkv.bias)),
            depthwise=Convolution.like(_only(attn.qkv_dwconv.main)),
            temperature=attn.temperature,
            project_out=attn.project_out.weight.flatten(1),
            bias=attn.project_out.bias,
        )

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """V (B, C, h, w), and (B, C, C) that takes a pixel's row of V to what the attention adds."""
        sums = CosineSums(len(self.temperature))

        def values(window: Tensor, sides: Sides) -> Tensor:
            wide = self.qkv(self.norm.standardised(window))
            deep = self.depthwise(wide, padding=padding(sides, 1))
            q, k, v = crop_to(deep, crop(window, sides, 1), sides).chunk(3, 1)
            sums.add(q, k)
            return v

        v = by_windows(values, x, halo=1, channels=3 * x.shape[1])
        matrix = merged_projection(self.project_out, sums.logits(self.temperature).softmax(-1))
        return v, matrix.transpose(1, 2)


@dataclass(frozen=True)
class FeedForward:
    """x + `network.FeedForward`, with the norm before it; gating is faster on two tensors than on two
    parts of one."""

    norm: ChannelNorm
    first: WideHalf
    second: WideHalf
    project_out: Convolution
    buffer_channels: int
    halo: ClassVar = 1

    @classmethod
    def of(cls, norm: ChannelNorm, ffn: plain.FeedForward) -> FeedForward:
        hidden = ffn.project_out.weight.shape[1]
        spare = -hidden % 8  # channels of zeros: kernels are slower on odd numbers such as 127
        wide = norm.absorbed_by(ffn.project_in.weight, ffn.project_in.bias)
        deep = _only(ffn.dwconv.main)
        project_out = F.pad(ffn.project_out.weight, (0, 0, 0, 0, 0, spare))
        return cls(
            norm=norm,
            first=WideHalf.of(wide, (deep.weight, deep.bias), slice(None, hidden), spare),
            second=WideHalf.of(wide, (deep.weight, deep.bias), slice(hidden, None), spare),
            project_out=Convolution.of(project_out, ffn.project_out.bias),
            buffer_channels=3 * hidden // 2,  # both halves are alive at once
        )

    def __call__(self, x: Tensor, sides: Sides) -> Tensor:
        """A window with a halo of 1 -> its inside."""
        inside = crop(x, sides, self.halo)
        z = self.norm.standardised(x).to(self.first.wide.dtype)
        gated = self.first(z, inside, sides, "gelu").mul_(self.second(z, inside, sides, "none"))
        return self.project_out.add_to(inside, gated)


Parameters = tuple[Tensor, Tensor | None]  # weight and bias of a convolution


@dataclass(frozen=True)
class WideHalf:
    """One half of the wide layers: 1x1, then depthwise."""

    wide: Convolution
    depthwise: Convolution

    @classmethod
    def of(cls, wide: Parameters, deep: Parameters, channels: slice, spare: int) -> WideHalf:
        """Of these channels, and a given number of zero channels."""

        def part(parameter: Tensor) -> Tensor:
            return F.pad(parameter[channels], (0, 0) * (parameter.dim() - 1) + (0, spare))

        def convolution(weight: Tensor, bias: Tensor | None, groups: int) -> Convolution:
            return Convolution.of(part(weight), None if bias is None else part(bias), groups)

        count = len(range(len(wide[0]))[channels]) + spare
        return cls(convolution(*wide, groups=1), convolution(*deep, groups=count))

    def __call__(self, z: Tensor, inside: Tensor, sides: Sides, activation: Activation) -> Tensor:
        """For a window z with a halo of 1; as large as `inside`, the window without it."""
        deep = self.depthwise(self.wide(z), activation, padding(sides, 1))
        return crop_to(deep, inside, sides)


@dataclass(frozen=True)
class Fusion:
    """`network.Fusion` at even rows and columns."""

    query: Convolution
    key: Convolution
    gamma1: nn.Conv2d
    gamma2: nn.Conv2d

    @classmethod
    def of(cls, fusion: plain.Fusion) -> Fusion:
        query, key = Convolution.like(fusion.query_conv), Convolution.like(fusion.key_conv)
        return cls(query, key, fusion.gamma1, fusion.gamma2)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, C, h, w) twice -> (B, C, h/2, w/2)."""
        s = self.query(x).mul_(self.key(y)).sigmoid_()
        return _weighted(self.gamma1, x, s * x) + _weighted(self.gamma2, y, s * y)


def _weighted(gamma: nn.Conv2d, x: Tensor, gated: Tensor) -> Tensor:
    weights = F.conv2d(torch.cat([x, gated], 1), gamma.weight, gamma.bias, stride=2, padding=1)
    own, other = weights.chunk(2, 1)
    return own * plain.every_second(x) + other * plain.every_second(gated)


@dataclass(frozen=True)
class ImplicitRepresentation:
    """`network.ImplicitRepresentation` after the two upsamplings that lead to it, as convolutions."""

    upsampling: tuple[Convolution, Convolution]
    layers: tuple[Convolution, ...]

    @classmethod
    def of(
        cls, first: Upsample, second: Upsample, inr: plain.ImplicitRepresentation
    ) -> ImplicitRepresentation:
        linear = [layer for layer in inr.imnet.modules() if isinstance(layer, nn.Linear)]
        weight, bias = linear[0].weight, linear[0].bias
        # The coordinates are eighteen zeros and twice 2.
        kernel = weight[:, :-20].reshape(len(weight), -1, 3, 3)
        layers = [Convolution.of(kernel, bias + 2 * weight[:, -2:].sum(1))]
        for layer in linear[1:]:
            last = layer is linear[-1]
            layers.append(Convolution.of(layer.weight[:, :, None, None], layer.bias, exact=last))
        return cls((Convolution.like(_only(first.body)), Convolution.like(_only(second.body))), tuple(layers))

    def __call__(self, deepest: Tensor) -> Tensor:
        """(B, 4 dim, h, w) -> (B, 3, 4h, 4w)."""
        features = deepest
        for layer in self.upsampling:
            features = doubled(layer(features))

        def colours(window: Tensor, sides: Sides) -> Tensor:
            z = self.layers[0](window, "relu", padding(sides, 1))
            for layer in self.layers[1:-1]:
                z = layer(z, "relu")
            return crop_to(self.layers[-1](z), crop(window, sides, 1), sides)

        return by_windows(colours, features, halo=1, channels=plain.INR_WIDTH)


def _only(container: nn.Sequential) -> nn.Conv2d:
    """The one layer that a published name leads to."""
    (layer,) = container.children()
    assert isinstance(layer, nn.Conv2d)
    return layer
