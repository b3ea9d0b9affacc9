"""DRSformer's results without gradients, faster than `network.py` computes them.

What differs from the plain form:

- Weights are laid out once (`nn/prepared.py`): norms are part of the 1x1 convolutions after them,
  reductions part of the upsampling before them, and kernels are in oneDNN's layout.
- The wide layers run window by window (`nn/halo_windows.py`) on channels-last data, and those of the
  feed-forward parts a few channels at a time, so that their buffers stay in the processor's cache.
- Attention needs neither normalised Q and K nor A V (`nn/channel_attention.py`): the four matrices A
  are added up, and one product takes V to what is added to the block's input.
- Convolutions from two channels to one are depthwise ones and a sum.
- In mixed precision, the products of feed-forward parts, values and experts take bfloat16; all that the
  selections of attention depend on directly, and the sums that blocks add to, stay in float32.
- The linear end of an expert, its weight included, is one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.drsformer import network as plain
from derain.nn.channel_attention import CosineSums, merged_projection
from derain.nn.convolution import Activation, Convolution, laid_out_by_precision, mixed_precision
from derain.nn.halo_windows import CPU_NUMBERS, Sides, by_windows, crop, crop_to, padding
from derain.nn.joining import Joining, doubled, halved
from derain.nn.norms import ChannelNorm
from derain.nn.transformer_fast import BlockSequence

PAIRS = 32  # of hidden channels that a CPU computes at a time
NO_CHANNEL = -1
BAND_ROWS = 4  # rows per row of halo in the experts' windows: most experts need less than that halo

Parameters = tuple[Tensor, Tensor | None]  # weight and bias of a convolution


class FastDRSformer(plain.DRSformer):
    """`DRSformer` whose results without gradients come from this file."""

    @torch.no_grad()
    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """The values of `plain`."""
        mixed = mixed_precision(rainy.device.type)
        if mixed == torch.float16:
            return self.plain(rainy)
        with torch.autocast(rainy.device.type, enabled=False):
            layers = laid_out(self, mixed)
            # one by one, so that memory stays that of one
            each = [restored(layers, picture) for picture in torch.split(rainy, 1)]
        return {name: torch.cat([one[name] for one in each]) for name in each[0]}

    def activation_bytes(self, height: int, width: int) -> int:
        """Twelve maps of the embedding's width, the buffers of a window, and the weights laid out."""
        numbers = self.patch_embed.proj.weight.shape[0] * height * width
        weights = sum(p.numel() for p in self.parameters())
        return 4 * (weights + 12 * numbers + min(40 * numbers, 6 * CPU_NUMBERS))


def restored(n: Layers, rainy: Tensor) -> dict[str, Tensor]:
    """`DRSformer.plain(rainy)` up to rounding, for a batch of one."""
    experts = {}
    x = n.patch_embed(rainy.contiguous(memory_format=torch.channels_last))
    if n.encoder_level0 is not None:
        experts["encoder_experts"] = n.encoder_level0.weights(x)
        x = n.encoder_level0(x, experts["encoder_experts"])
    e1 = n.encoder_level1(x)
    e2 = n.encoder_level2(halved(n.down1_2(e1)))
    e3 = n.encoder_level3(halved(n.down2_3(e2)))
    x = n.latent(halved(n.down3_4(e3)))
    x = n.decoder_level3(n.up4_3(x, e3))
    x = n.decoder_level2(n.up3_2(x, e2))
    x = torch.cat([doubled(n.up2_1(x)), e1], 1)
    del e1, e2, e3  # a sixth of the peak memory, which follows
    x = n.decoder_level1(x)
    if n.refinement is not None:
        experts["refinement_experts"] = n.refinement.weights(x)
        x = n.refinement(x, experts["refinement_experts"])
    return {"image": n.output(x) + rainy, **experts}


@dataclass(frozen=True)
class Layers:
    """The network's layers as `restored` uses them."""

    patch_embed: Convolution
    encoder_level0: ExpertMixture | None
    encoder_level1: BlockSequence
    down1_2: Convolution
    encoder_level2: BlockSequence
    down2_3: Convolution
    encoder_level3: BlockSequence
    down3_4: Convolution
    latent: BlockSequence
    up4_3: Joining
    decoder_level3: BlockSequence
    up3_2: Joining
    decoder_level2: BlockSequence
    up2_1: Convolution
    decoder_level1: BlockSequence
    refinement: ExpertMixture | None
    output: Convolution


@laid_out_by_precision
def laid_out(n: plain.DRSformer) -> Layers:
    """The layers of a network with their weights laid out.

    The convolutions outside blocks, from and to colours or sums of many blocks, stay exact: their operands
    are not standardised, so that few digits tell pixels apart.
    """
    parts = Attention.of, FeedForward.of
    return Layers(
        patch_embed=Convolution.like(n.patch_embed.proj, exact=True),
        encoder_level0=ExpertMixture.of(n.encoder_level0) if n.mefc else None,
        encoder_level1=BlockSequence.of(n.encoder_level1, *parts),
        down1_2=Convolution.like(n.down1_2.body[0], exact=True),
        encoder_level2=BlockSequence.of(n.encoder_level2, *parts),
        down2_3=Convolution.like(n.down2_3.body[0], exact=True),
        encoder_level3=BlockSequence.of(n.encoder_level3, *parts),
        down3_4=Convolution.like(n.down3_4.body[0], exact=True),
        latent=BlockSequence.of(n.latent, *parts),
        up4_3=Joining.of(n.up4_3, n.reduce_chan_level3),
        decoder_level3=BlockSequence.of(n.decoder_level3, *parts),
        up3_2=Joining.of(n.up3_2, n.reduce_chan_level2),
        decoder_level2=BlockSequence.of(n.decoder_level2, *parts),
        up2_1=Convolution.like(n.up2_1.body[0], exact=True),
        decoder_level1=BlockSequence.of(n.decoder_level1, *parts),
        refinement=ExpertMixture.of(n.refinement) if n.mefc else None,
        output=Convolution.like(n.output, exact=True),
    )


@dataclass(frozen=True)
class Attention:
    """`network.SparseAttention` with the norm before it, up to the product with V."""

    norm: ChannelNorm
    queries_and_keys: tuple[Wide, ...]  # one for each head
    values: Wide
    temperature: Tensor  # (heads, 1, 1)
    scales: Tensor  # (4,)
    project_out: Tensor  # (C, C)
    bias: Tensor | None  # of the projection

    @classmethod
    def of(cls, norm: ChannelNorm, attn: plain.SparseAttention) -> Attention:
        wide = norm.absorbed_by(attn.qkv.weight, attn.qkv.bias)
        deep = attn.qkv_dwconv.weight, attn.qkv_dwconv.bias
        queries, keys, values = torch.arange(len(wide[0])).chunk(3)
        heads = zip(queries.chunk(attn.heads), keys.chunk(attn.heads), strict=True)
        return cls(
            norm=norm,
            queries_and_keys=tuple(Wide.of(wide, deep, torch.cat(head), exact=True) for head in heads),
            values=Wide.of(wide, deep, values),
            temperature=attn.temperature.detach(),
            scales=attn.scales(),
            project_out=attn.project_out.weight.detach().flatten(1),
            bias=attn.project_out.bias,
        )

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """V (1, C, h, w), and (1, C, C) that takes a pixel's row of V to what the attention adds."""
        logits, v = self.logits_and_values(x)
        attention = torch.stack(plain.sparse_attentions(logits, self.scales)).sum(0)
        return v, merged_projection(self.project_out, attention).transpose(1, 2)

    def logits_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(1, heads, C / heads, C / heads) and (1, C, h, w)."""
        sums = [CosineSums(heads=1) for _ in self.queries_and_keys]

        def values(window: Tensor, sides: Sides) -> Tensor:
            z, inside = self.norm.standardised(window), crop(window, sides, 1)
            for sums_of_head, head in zip(sums, self.queries_and_keys, strict=True):
                sums_of_head.add(*head(z, inside, sides).chunk(2, 1))
            return self.values(z, inside, sides)

        channels = x.shape[1]
        v = by_windows(values, x, halo=1, channels=max(channels, 2 * channels // len(sums)))
        logits = [s.logits(t[None]) for s, t in zip(sums, self.temperature, strict=True)]
        return torch.cat(logits, 1), v


@dataclass(frozen=True)
class Wide:
    """Some channels of a 1x1 convolution and the depthwise 3x3 convolution after it."""

    wide: Convolution
    depthwise: Convolution

    @classmethod
    def of(cls, wide: Parameters, deep: Parameters, channels: Tensor, exact: bool = False) -> Wide:
        widened = Convolution.of(*taken(wide, channels), exact=exact)
        return cls(widened, depthwise_convolution(*taken(deep, channels), exact))

    def __call__(self, z: Tensor, inside: Tensor, sides: Sides) -> Tensor:
        """For a window z with a halo of 1; as large as `inside`, the window without it."""
        return crop_to(windowed(self.depthwise, self.wide(z), sides), inside, sides)


@dataclass(frozen=True)
class FeedForward:
    """x + `network.FeedForward`, with the norm before it.

    Let h be the number of hidden channels. u = project_in(z) has two halves of h channels, and so have
    a = relu(dwconv3x3(u)) = [a1; a2] and b = relu(dwconv5x5(u)) = [b1; b2]. What the 3x3 convolution
    makes of [a1; b1] depends on the first half of u alone, and what the 5x5 convolution makes of
    [a2; b2] on the second.
    """

    norm: ChannelNorm
    halves: tuple[Half, Half]
    halo: ClassVar = 4
    buffer_channels: ClassVar = 2 * PAIRS

    @classmethod
    def of(cls, norm: ChannelNorm, ffn: plain.FeedForward) -> FeedForward:
        project_in = norm.absorbed_by(ffn.project_in.weight, ffn.project_in.bias)
        bias = ffn.project_out.bias
        first = Half.of(0, project_in, ffn, ffn.dwconv3x3_1, bias)
        return cls(norm, (first, Half.of(1, project_in, ffn, ffn.dwconv5x5_1)))

    def __call__(self, x: Tensor, sides: Sides) -> Tensor:
        """A window with a halo of 4 -> its inside; x may be overwritten."""
        z = self.norm.standardised(x).to(self.halves[0].pairs[0].project_in.dtype)
        y = crop(x, sides, self.halo).contiguous(memory_format=torch.channels_last)
        for half in self.halves:
            y = half.add_to(y, z, sides)
        return y


@dataclass(frozen=True)
class Half:
    """One half of a feed-forward part.

    Its second convolutions take pairs (0, 1), (2, 3), ... of the channels of [a; b] to one each. With h
    even these are the same pairs in a and in b. With h odd the last channel of a meets the first one
    of b, and the pairs in b are (1, 2), (3, 4), ...

    So channels are computed as evens 0, 2, 4, ... and odds 1, 3, 5, ..., some of each at a time. In a
    the i-th even meets the i-th odd; so it does in b with h even, while with h odd the i-th odd meets
    the even after it. The last even has no odd then: it gets channel 0, whose b meets its a.
    """

    pairs: tuple[Pairs, ...]
    shifted: bool  # h is odd
    project_out: Convolution  # for each of the pairs: of their sums in a, then of those in b

    @classmethod
    def of(
        cls,
        number: int,
        project_in: Parameters,
        ffn: plain.FeedForward,
        second: nn.Conv2d,
        bias: Tensor | None = None,
    ) -> Half:
        h = len(second.weight)
        own = torch.arange(number * h, number * h + h)
        wide = taken(project_in, own)
        first3 = taken((ffn.dwconv3x3.weight, ffn.dwconv3x3.bias), own)
        first5 = taken((ffn.dwconv5x5.weight, ffn.dwconv5x5.bias), own)
        second_a, second_b = torch.split(second.weight.flatten(0, 1).unsqueeze(1), h)
        project_out = ffn.project_out.weight[:, own].transpose(0, 1)

        evens = torch.arange(0, h, 2)
        odds = (evens + 1) % h
        sums_a, sums_b = torch.arange(h).tensor_split([h // 2])  # the results that the pairs make
        if h % 2:
            sums_a, sums_b = F.pad(sums_a, (0, 1), value=NO_CHANNEL), sums_b.roll(-1)

        def pairs(even: Tensor, odd: Tensor, sum_a: Tensor, sum_b: Tensor) -> Pairs:
            channels, none = torch.cat([even, odd]), torch.full_like(even, NO_CHANNEL)
            bias_a = bias_b = None
            if second.bias is not None:  # of each sum, so one of its two channels has it
                bias_a = rows(second.bias, torch.cat([sum_a, none]))
                bias_b = rows(second.bias, torch.cat([none, sum_b]))
            return Pairs(
                project_in=Convolution.of(*taken(wide, channels)),
                first3=depthwise_convolution(*taken(first3, channels)),
                first5=depthwise_convolution(*taken(first5, channels)),
                second_a=depthwise_convolution(rows(second_a, channels), bias_a),
                second_b=depthwise_convolution(rows(second_b, channels), bias_b),
            )

        parts = list(zip(*(_parts(x) for x in (evens, odds, sums_a, sums_b)), strict=True))
        in_order = torch.cat([torch.cat([sum_a, sum_b]) for _, _, sum_a, sum_b in parts])
        out = Convolution.of(rows(project_out, in_order).transpose(0, 1), bias)
        return cls(tuple(pairs(*part) for part in parts), bool(h % 2), out)

    def add_to(self, y: Tensor, z: Tensor, sides: Sides) -> Tensor:
        """y (1, C, h, w) plus this half's part of the result, for a window z with a halo of 4."""
        count = self.pairs[0].second_a.groups  # sums of each of the pairs, in a and in b
        shape = len(y), count * len(self.pairs), *y.shape[2:]
        sums = torch.empty(shape, dtype=z.dtype, device=z.device, memory_format=torch.channels_last)
        after = None
        for pairs, part in zip(reversed(self.pairs), reversed(sums.split(count, 1)), strict=True):
            a, b = pairs.mapped(z, y, sides)
            (a_even, a_odd), (b_even, b_odd) = a.chunk(2, 1), b.chunk(2, 1)
            of_a, of_b = part.chunk(2, 1)
            torch.add(a_even, a_odd, out=of_a)
            if self.shifted:
                # The last sum is replaced by the next line; without it, odd counts take three times as long.
                torch.add(b_odd, b[:, 1 : 1 + b_odd.shape[1]], out=of_b)
                torch.add(b_odd[:, -1:], a_even[:, -1:] if after is None else after, out=of_b[:, -1:])
                after = b_even[:, :1]
            else:
                torch.add(b_odd, b_even, out=of_b)
            part.relu_()
        return self.project_out.add_to(y, sums)


@dataclass(frozen=True)
class Pairs:
    """Layers of some hidden channels of a half: first the evens, then as many odds."""

    project_in: Convolution
    first3: Convolution
    first5: Convolution
    second_a: Convolution
    second_b: Convolution

    def mapped(self, z: Tensor, inside: Tensor, sides: Sides) -> tuple[Tensor, Tensor]:
        """What the pairs' sums are made of, in a and in b: (1, evens and odds, h, w) each."""
        u = self.project_in(z)
        a = windowed(self.second_a, windowed(self.first3, u, sides, "relu"), sides)
        b = windowed(self.second_b, windowed(self.first5, u, sides, "relu"), sides)
        return crop_to(a, inside, sides), crop_to(b, inside, sides)


def _parts(channels: Tensor) -> tuple[Tensor, ...]:
    """Parts of equal length, at most about `PAIRS`, of which the first begins with missing channels."""
    count = -(-len(channels) // PAIRS)
    each = 8 * -(-len(channels) // (8 * count))  # kernels are slower on odd numbers
    return torch.split(F.pad(channels, (each * count - len(channels), 0), value=NO_CHANNEL), each)


@dataclass(frozen=True)
class ExpertMixture:
    """`network.ExpertMixture`."""

    scores: nn.Module
    preprocess: Convolution
    steps: tuple[ExpertStep, ...]

    @classmethod
    def of(cls, mixture: plain.ExpertMixture) -> ExpertMixture:
        scores, steps = mixture.layers
        assert isinstance(steps, plain.ExpertSteps)
        (preprocess,) = _convolutions(steps.preprocess)
        return cls(
            scores,
            Convolution.like(preprocess, exact=True),
            tuple(ExpertStep.of(step) for step in steps._ops),
        )

    def weights(self, x: Tensor) -> Tensor:
        """(1, 4 steps, 8 experts)."""
        scores: Tensor = self.scores(x)
        return scores.softmax(-1)

    def __call__(self, x: Tensor, weights: Tensor) -> Tensor:
        """(1, C, h, w) -> the same."""
        x = self.preprocess(x, "relu")
        for step, weights_of_step in zip(self.steps, weights[0], strict=True):
            x = step(x, weights_of_step)
        return x


@dataclass(frozen=True)
class ExpertStep:
    """x + `network.Experts`."""

    experts: tuple[Expert, ...]
    halo: ClassVar = 6

    @classmethod
    def of(cls, step: nn.Module) -> ExpertStep:
        assert isinstance(step, plain.Experts)
        (mixing,) = _convolutions(step._out)
        ends = mixing.weight.flatten(1).chunk(plain.EXPERTS, 1)
        return cls(tuple(Expert.of(*each) for each in zip(step._ops, ends, strict=True)))

    def __call__(self, x: Tensor, weights: Tensor) -> Tensor:
        """(1, C, h, w) and (8,) -> (1, C, h, w)."""
        ends = torch.cat(
            [weight * expert.end for weight, expert in zip(weights, self.experts, strict=True)], 1
        )
        products = self.experts[0].layers[0].dtype
        end = Convolution.of(ends[:, :, None, None].to(products))

        def step(window: Tensor, sides: Sides) -> Tensor:
            inside = crop(window, sides, self.halo)
            z = window.to(products)
            features = [
                crop_to(expert.features(crop(z, sides, self.halo - expert.halo), sides), inside, sides)
                for expert in self.experts
            ]
            return inside + end(torch.cat(features, 1), "relu")

        return by_windows(step, x, self.halo, x.shape[1], band_rows=BAND_ROWS)


@dataclass(frozen=True)
class Expert:
    """One expert, as layers and a matrix: what is linear at its end, and its part of the mixing."""

    layers: tuple[Convolution, ...]  # none for the mean filter
    end: Tensor  # (C, C)

    @classmethod
    def of(cls, expert: nn.Module, end: Tensor) -> Expert:
        layers = _convolutions(expert)
        if not layers:
            return cls((), end)
        *others, depthwise, last = layers
        end = end @ last.weight.flatten(1)
        if depthwise.kernel_size == (1, 1):  # scales, which matrices take in
            first, mixing = others
            mixed = Convolution.of(mixing.weight * first.weight.transpose(0, 1))
            return cls((mixed,), end * depthwise.weight.flatten())
        return cls(tuple(Convolution.like(layer) for layer in (*others, depthwise)), end)

    @property
    def halo(self) -> int:
        """Pixels around a result that it depends on, to each side."""
        return sum(layer.halo for layer in self.layers) if self.layers else 1

    def features(self, window: Tensor, sides: Sides) -> Tensor:
        """What the matrix is applied to, for a window with the expert's halo, which `crop_to` takes off."""
        if not self.layers:
            return F.avg_pool2d(window, 3, stride=1, padding=1, count_include_pad=False)
        for layer in self.layers:
            window = windowed(layer, window, sides, "relu" if layer.groups == 1 else "none")
        return window


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def windowed(layer: Convolution, x: Tensor, sides: Sides, activation: Activation = "none") -> Tensor:
    """A layer on a window: zeros around the picture's own sides, real neighbours at the others."""
    return layer(x, activation, padding(sides, layer.halo))


def depthwise_convolution(weight: Tensor, bias: Tensor | None, exact: bool = False) -> Convolution:
    """From (C, 1, k, k) and (C,) or None."""
    return Convolution.of(weight, bias, groups=len(weight), exact=exact)


def taken(parameters: Parameters, channels: Tensor) -> Parameters:
    """Weight and bias of some channels of a convolution's result."""
    weight, bias = parameters
    return rows(weight, channels), None if bias is None else rows(bias, channels)


def rows(x: Tensor, places: Tensor) -> Tensor:
    """x[places] along the first axis, with zeros for `NO_CHANNEL`."""
    zeros = x.new_zeros(1, *x.shape[1:])
    return torch.cat([x, zeros])[places.to(x.device)]
