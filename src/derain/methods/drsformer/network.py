"""DRSformer: a sparse Transformer for deraining (Chen et al., "Learning A Sparse Transformer Network
for Effective Image Deraining", CVPR 2023).

A four-level encoder and decoder that predicts what to add to the rainy picture. Its blocks attend
across channels with the largest logits only (`selection.py`) and mix two scales in their
feed-forward part; two mixtures of small convolutional experts (MEFC) stand before the encoder and
after the decoder of the variant `full`.

Form, not value, differs from the published code: wide layers run window by window (`nn/windows.py`)
on channels-last data; the four attention matrices are blended before they meet V, together with the
projection after it; grouped convolutions of two channels are depthwise ones and a sum, on channels
ordered so that the partners lie in two blocks; what is linear at the end of the experts is one
matrix each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.errors import DerainError
from derain.methods.drsformer.selection import blended_attention
from derain.methods.network import RainNetwork, Spec
from derain.nn.channel_attention import CosineSums, merged_projection
from derain.nn.norms import ChannelNorm
from derain.nn.pixels import as_map, as_pixels
from derain.nn.resizing import Downsample, PatchEmbedding, Upsample
from derain.nn.tracing import is_tracing
from derain.nn.windows import CPU_NUMBERS, Sides, by_windows, conv, crop, crop_to

STEPS = 4
EXPERTS = 8
SEPARABLE = (1, 3, 5, 7)
DILATED = (3, 5, 7)

# Measured with the weights of the parity tests on real pictures: 16 to 23 dB from float32.
_RANKS_JUMP = "rounding changes which attention logits are kept, and the result with them"


class DRSformer(RainNetwork):
    """The network; state dict names and shapes are the published ones.

    Args:
        inp_channels, out_channels: of the pictures, 3.
        dim: channels at full size; doubled at each of the three smaller sizes.
        num_blocks: blocks at each of the four sizes, the same in encoder and decoder.
        heads: attention heads at each size.
        ffn_expansion_factor: hidden channels of half a feed-forward part, per channel.
        bias: whether convolutions have a bias.
        LayerNorm_type: "WithBias" or "BiasFree".
        mefc: whether the two mixtures of experts exist: true in `full`, false in `light`.

    Raises:
        DerainError: sizes that do not go together.
    """

    spec = Spec(multiple_of=8, refused_precisions={"bfloat16": _RANKS_JUMP, "float16": _RANKS_JUMP})

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
        _check(inp_channels, out_channels, dim, num_blocks, heads)

        def blocks(level: int, width: int) -> nn.Sequential:
            arguments = (
                width,
                heads[level],
                int(width * ffn_expansion_factor),
                bias,
                LayerNorm_type == "BiasFree",
            )
            return nn.Sequential(*[Block(*arguments) for _ in range(num_blocks[level])])

        self.patch_embed = PatchEmbedding(inp_channels, dim)
        if mefc:
            self.encoder_level0 = ExpertMixture(dim)
        self.encoder_level1 = blocks(0, dim)
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = blocks(1, 2 * dim)
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = blocks(2, 4 * dim)
        self.down3_4 = Downsample(4 * dim)
        self.latent = blocks(3, 8 * dim)
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = blocks(2, 4 * dim)
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = blocks(1, 2 * dim)
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = blocks(0, 2 * dim)
        if mefc:
            self.refinement = ExpertMixture(2 * dim)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)
        self.mefc = mefc

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` (B, 3, H, W), not clamped; with `mefc` also the softmax weights of the experts
        before the encoder and after the decoder, `encoder_experts` and `refinement_experts` (B, 4, 8).
        """
        if not torch.is_grad_enabled() and not is_tracing() and len(rainy) > 1:
            # one by one, so that memory stays that of one
            each = [self.plain(picture) for picture in torch.split(rainy, 1)]
            return {name: torch.cat([one[name] for one in each]) for name in each[0]}

        experts = {}
        x = self.patch_embed(rainy.contiguous(memory_format=torch.channels_last))
        if self.mefc:
            experts["encoder_experts"] = self.encoder_level0.expert_weights(x)
            x = self.encoder_level0(x)
        e1 = x = self.encoder_level1(x)
        e2 = x = self.encoder_level2(self.down1_2(x))
        e3 = x = self.encoder_level3(self.down2_3(x))
        x = self.latent(self.down3_4(x))
        x = self.decoder_level3(self.up4_3.joined(x, e3, self.reduce_chan_level3))
        x = self.decoder_level2(self.up3_2.joined(x, e2, self.reduce_chan_level2))
        x = torch.cat([self.up2_1(x), e1], 1)
        del e1, e2, e3  # a sixth of the memory at its peak, which follows
        x = self.decoder_level1(x)
        if self.mefc:
            experts["refinement_experts"] = self.refinement.expert_weights(x)
            x = self.refinement(x)
        return {"image": self.output(x) + rainy, **experts}

    def activation_bytes(self, height: int, width: int) -> int:
        """Twelve maps of the embedding's width, the buffers of a window, weights in another layout."""
        numbers = self.patch_embed.proj.weight.shape[0] * height * width
        weights = sum(p.numel() for p in self.parameters())
        return 4 * (weights + 12 * numbers + min(40 * numbers, 6 * CPU_NUMBERS))

    def multiply_adds(self, height: int, width: int) -> int:
        """Of the published formulation: 242.980 G for `full` and 175.372 G for `light` at 256x256."""
        pixels = height * width
        total = 0
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                total += module.weight.numel() * (pixels >> 2 * _size_level(name))
            elif isinstance(module, nn.Linear):
                total += module.weight.numel()
            elif isinstance(module, SparseAttention):  # one product with K, four with V
                total += 5 * module.channels**2 // module.heads * (pixels >> 2 * _size_level(name))
        return total


def _check(
    inp_channels: int, out_channels: int, dim: int, num_blocks: Sequence[int], heads: Sequence[int]
) -> None:
    if inp_channels != out_channels:
        raise DerainError(
            f"DRSformer adds to its input: inp_channels ({inp_channels}) and out_channels ({out_channels}) "
            "must be equal."
        )
    if len(num_blocks) != 4 or len(heads) != 4:
        raise DerainError("DRSformer has four levels: num_blocks and heads are lists of four numbers.")
    if dim < 2 or dim % 2:
        raise DerainError(f"DRSformer's dim must be even, not {dim}.")
    for level, count in enumerate(heads):
        width = dim * 2**level
        if count < 1 or width % count or width // count < 2:
            raise DerainError(
                f"DRSformer's heads[{level}] is {count}; it must divide {width} channels "
                "into heads of 2 channels or more."
            )


def _size_level(name: str) -> int:
    """How often the pictures that a module works on were halved: told by the first digit in its name."""
    top = name.split(".")[0]
    digit = re.search(r"\d", top.replace("latent", "latent4"))
    return max(int(digit.group()) - 1, 0) if digit else 0


class Block(nn.Module):
    """x + attention(norm1(x)), then x + feed_forward(norm2(x)); (B, C, H, W) -> the same."""

    def __init__(self, channels: int, heads: int, hidden: int, bias: bool, bias_free_norm: bool) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels, bias_free_norm)
        self.attn = SparseAttention(channels, heads, bias)
        self.norm2 = ChannelNorm(channels, bias_free_norm)
        self.ffn = FeedForward(channels, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(x, self.norm1)
        y: Tensor = self.ffn(x, self.norm2)
        return y


class SparseAttention(nn.Module):
    """Top-k sparse attention across channels (TKSA), with the norm before it and the skip around it."""

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.channels = channels
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        for number in range(1, 5):
            self.register_parameter(f"attn{number}", nn.Parameter(torch.tensor([0.2])))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor, norm: ChannelNorm) -> Tensor:
        """(B, C, H, W) -> x + attention(norm(x))."""
        v, logits = self.values_and_logits(x, norm)
        attention = blended_attention(logits, self.scales())
        matrix = merged_projection(self.project_out.weight.flatten(1), attention)
        y = torch.baddbmm(as_pixels(x), as_pixels(v), matrix.transpose(1, 2))
        if self.project_out.bias is not None:
            y = y + self.project_out.bias
        return as_map(y, x)

    def values_and_logits(self, x: Tensor, norm: ChannelNorm) -> tuple[Tensor, Tensor]:
        """V as (B, C, H, W) and the logits (B, heads, C/heads, C/heads) for features x."""
        sums = CosineSums(self.heads)
        weight, bias = norm.absorbed_by(self.qkv.weight, self.qkv.bias)

        def values(window: Tensor, sides: Sides) -> Tensor:
            qkv = pointwise(norm.standardised(window), weight, bias)
            qkv = conv(qkv, self.qkv_dwconv.weight, self.qkv_dwconv.bias, sides, groups=qkv.shape[1])
            inside = crop(window, sides, 1)
            q, k, v = crop_to(qkv, inside, sides).chunk(3, 1)
            sums.add(q, k)
            return v

        v = by_windows(values, x, halo=1, channels=3 * self.channels)
        return v, sums.logits(self.temperature)

    def scales(self) -> Tensor:
        """The weights of the four selections, (4,)."""
        return torch.cat([self.get_parameter(f"attn{number}") for number in range(1, 5)])


class FeedForward(nn.Module):
    """Mixed-scale feed-forward part (MSFN), with the norm before it and the skip around it.

    u = project_in(z) has two halves of h channels, and so have a = relu(dwconv3x3(u)) = [a1; a2] and
    b = relu(dwconv5x5(u)) = [b1; b2]. The result is project_out([p; q]) with p made of a1 and b1 by
    3x3, q of a2 and b2 by 5x5 convolutions. So there are two chains that meet only at the end.
    """

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        both = 2 * hidden
        self.hidden = hidden
        self.project_in = nn.Conv2d(channels, both, 1, bias=bias)
        self.dwconv3x3 = nn.Conv2d(both, both, 3, padding=1, groups=both, bias=bias)
        self.dwconv5x5 = nn.Conv2d(both, both, 5, padding=2, groups=both, bias=bias)
        self.dwconv3x3_1 = nn.Conv2d(both, hidden, 3, padding=1, groups=hidden, bias=bias)
        self.dwconv5x5_1 = nn.Conv2d(both, hidden, 5, padding=2, groups=hidden, bias=bias)
        self.project_out = nn.Conv2d(both, channels, 1, bias=bias)

    def forward(self, x: Tensor, norm: ChannelNorm) -> Tensor:
        """(B, C, H, W) -> x + feed_forward(norm(x))."""
        project_in = norm.absorbed_by(self.project_in.weight, self.project_in.bias)
        chains = [
            self._chain(0, project_in, self.dwconv3x3_1),
            self._chain(1, project_in, self.dwconv5x5_1),
        ]

        def added(window: Tensor, sides: Sides) -> Tensor:
            z = norm.standardised(window)
            inside = crop(window, sides, 4)
            products = [product for chain in chains for product in chain.products(z, inside, sides)]
            y = as_map(sum_of_products(products), inside)
            if self.project_out.bias is not None:
                y = y + self.project_out.bias.view(-1, 1, 1)
            return y + inside

        return by_windows(added, x, halo=4, channels=len(chains[0].project_in))

    def _chain(self, half: int, project_in: tuple[Tensor, Tensor | None], second: nn.Conv2d) -> Chain:
        h, slots = self.hidden, _slots(self.hidden)
        odd = h % 2
        here = slice(half * h, half * h + h)

        def first(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
            return _evens_then_odds(weight[here], slots), (
                None if bias is None else _evens_then_odds(bias[here], slots)
            )

        of_a, of_b = torch.split(second.weight.flatten(0, 1).unsqueeze(1), h)
        bias_a = bias_b = None
        if second.bias is not None:
            # Each pair of channels has one bias: put it on the even partner in a, on the one that
            # is not shifted in b.
            bias_a = _pad(second.bias[: h - h // 2], 2 * slots)
            bias_b = _pad(second.bias[h - h // 2 :], slots)
            bias_b = torch.cat(
                [torch.zeros_like(bias_b), bias_b] if odd else [bias_b, torch.zeros_like(bias_b)]
            )
        out = self.project_out.weight[:, here, 0, 0].t()
        return Chain(
            *first(*project_in),
            *first(self.dwconv3x3.weight, self.dwconv3x3.bias),
            *first(self.dwconv5x5.weight, self.dwconv5x5.bias),
            _evens_then_odds(of_a, slots),
            bias_a,
            _evens_then_odds(of_b, slots),
            bias_b,
            _pad(out[: h - h // 2], slots),
            _pad(out[h - h // 2 :], slots - odd),
            h // 2 if odd else None,
        )


class Chain(NamedTuple):
    """The layers of one half of a feed-forward part, their hidden channels ordered evens, then odds.

    The convolutions over pairs (0, 1), (2, 3), ... of [a; b] become depthwise ones and the sum of
    two blocks of channels. When the number of channels is odd, the last one of a meets the first
    one of b, and the pairs inside b are (1, 2), (3, 4), ...: the block of evens is shifted by one.
    Each block is filled up with channels of zeros to a multiple of 16, as vector units like it.
    """

    project_in: Tensor
    bias_in: Tensor | None
    dw3: Tensor
    bias3: Tensor | None
    dw5: Tensor
    bias5: Tensor | None
    of_a: Tensor
    bias_a: Tensor | None
    of_b: Tensor
    bias_b: Tensor | None
    out_a: Tensor
    out_b: Tensor
    middle: int | None

    def products(self, z: Tensor, inside: Tensor, sides: Sides) -> Iterator[tuple[Tensor, Tensor]]:
        """Matrix products (B, pixels, slots) x (slots, C) whose sum is this chain's part of the result.

        z is the normalised window with a halo of 4 around `inside`.
        """
        u = pointwise(z, self.project_in, self.bias_in)
        groups = u.shape[1]
        a = conv(u, self.dw3, self.bias3, sides, groups=groups).relu_()
        b = conv(u, self.dw5, self.bias5, sides, groups=groups).relu_()
        a = crop_to(conv(a, self.of_a, self.bias_a, sides, groups=groups), inside, sides)
        b = crop_to(conv(b, self.of_b, self.bias_b, sides, groups=groups), inside, sides)
        a_even, a_odd = a.permute(0, 2, 3, 1).chunk(2, -1)
        b_even, b_odd = b.permute(0, 2, 3, 1).chunk(2, -1)
        p = a_even + a_odd
        if self.middle is None:
            q = b_even + b_odd
        else:
            p[..., self.middle] += b_even[..., 0]
            q = b_even[..., 1:] + b_odd[..., :-1]
        yield p.relu_().flatten(1, 2), self.out_a
        yield q.relu_().flatten(1, 2), self.out_b


def _slots(hidden: int) -> int:
    """Channels of one block: the even ones of `hidden`, filled up to a multiple of 16."""
    return -(-(hidden - hidden // 2) // 16) * 16


def _evens_then_odds(x: Tensor, slots: int) -> Tensor:
    """(h, ...) -> (2 slots, ...): entries 0, 2, 4, ..., zeros, entries 1, 3, 5, ..., zeros."""
    return torch.cat([_pad(x[::2], slots), _pad(x[1::2], slots)])


def _pad(x: Tensor, length: int) -> Tensor:
    """Zeros appended along the first axis."""
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, length - x.shape[0]))


class ExpertMixture(nn.Module):
    """Mixture of experts feature compensator (MEFC): (B, C, H, W) -> the same, not negative."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ExpertWeights(channels), ExpertSteps(channels)])

    def forward(self, z: Tensor) -> Tensor:
        y: Tensor = self.layers[1](z, self.expert_weights(z))
        return y

    def expert_weights(self, z: Tensor) -> Tensor:
        """(B, 4 steps, 8 experts), each step's sum is 1."""
        scores: Tensor = self.layers[0](z)
        return scores.softmax(-1)


class ExpertWeights(nn.Module):
    """(B, C, H, W) -> (B, 4 steps, 8 experts), from the means over the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ca_fc = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, STEPS * EXPERTS))

    def forward(self, z: Tensor) -> Tensor:
        scores: Tensor = self.ca_fc(z.mean((2, 3)))
        return scores.view(-1, STEPS, EXPERTS)


class ExpertSteps(nn.Module):
    """The four steps of an MEFC."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.preprocess = Operation(nn.Conv2d(channels, channels, 1, bias=False))
        self._ops = nn.ModuleList([Experts(channels) for _ in range(STEPS)])

    def forward(self, z: Tensor, weights: Tensor) -> Tensor:
        s = pointwise(z, self.preprocess.weight(0)).relu_()
        for number, step in enumerate(self._ops):
            s = step(s, weights[:, number])
        return s


class Experts(nn.Module):
    """One step: relu of the weighted experts' mix, plus the step's input.

    Everything after an expert's last depthwise convolution is linear: its 1x1 convolution, its
    weight and its part of `_out` are one C x C matrix per picture.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList(
            [Operation(*_separable(channels, k)) for k in SEPARABLE]
            + [Operation(*_separable(channels, k)[:2]) for k in DILATED]
        )
        self._out = nn.Sequential(nn.Conv2d(EXPERTS * channels, channels, 1, bias=False))

    def forward(self, s: Tensor, weights: Tensor) -> Tensor:
        """s (B, C, H, W), weights (B, 8) -> (B, C, H, W)."""
        channels = s.shape[1]
        matrices = self._matrices(weights)

        def step(window: Tensor, sides: Sides) -> Tensor:
            inside = crop(window, sides, 6)
            products = (
                (as_pixels(crop_to(self._features(e, window, sides), inside, sides)), m)
                for e, m in enumerate(matrices)
            )
            y = sum_of_products(products)
            return as_map(y.relu_(), inside) + inside

        return by_windows(step, s, halo=6, channels=channels)

    def _features(self, number: int, window: Tensor, sides: Sides) -> Tensor:
        """What the linear end of an expert is applied to, for a window with a halo of 6; may be larger."""
        channels = window.shape[1]
        if number == EXPERTS - 1:
            return F.avg_pool2d(crop(window, sides, 5), 3, 1, 1, count_include_pad=False)
        expert = self._ops[number]
        assert isinstance(expert, Operation)
        first = expert.weight(0)
        size = first.shape[-1]
        if number >= len(SEPARABLE):
            return conv(crop(window, sides, 7 - size), first, None, sides, dilation=2, groups=channels)
        if size == 1:  # a scale per channel: part of the matrix that follows
            return pointwise(crop(window, sides, 6), expert.weight(1) * first.transpose(0, 1)).relu_()
        x = conv(crop(window, sides, 7 - size), first, None, sides, groups=channels)
        x = pointwise(x, expert.weight(1)).relu_()
        return conv(x, expert.weight(3), None, sides, groups=channels)

    def _matrices(self, weights: Tensor) -> list[Tensor]:
        """For each expert (B, C, C), to be applied from the right."""
        out = self._out.get_parameter("0.weight").flatten(1)
        ends = []
        for expert, end in zip(self._ops, out.chunk(EXPERTS, 1), strict=False):
            assert isinstance(expert, Operation)
            if len(expert.op) == 2:
                end = end @ expert.weight(1).flatten(1)
            else:
                end = end @ expert.weight(4).flatten(1)
                if expert.weight(3).shape[-1] == 1:
                    end = end * expert.weight(3).flatten()
            ends.append(end)
        ends.append(out.chunk(EXPERTS, 1)[-1])
        return [weights[:, e, None, None] * end.t() for e, end in enumerate(ends)]


class Operation(nn.Module):
    """Layers below the published name `op`; a place for their weights."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    def weight(self, number: int) -> Tensor:
        return self.op.get_parameter(f"{number}.weight")


def _separable(channels: int, k: int) -> list[nn.Module]:
    """Depthwise and 1x1 convolution, twice."""

    def depthwise() -> nn.Conv2d:
        return nn.Conv2d(channels, channels, k, groups=channels, bias=False)

    def mixing() -> nn.Conv2d:
        return nn.Conv2d(channels, channels, 1, bias=False)

    return [depthwise(), mixing(), nn.ReLU(), depthwise(), mixing()]


def sum_of_products(products: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Sum of x @ m over pairs of x (B, P, K) and m (K, C) or (B, K, C), in one buffer: (B, P, C)."""
    y = None
    for x, m in products:
        m = m.expand(x.shape[0], -1, -1)
        # The explicit types are for autocast, which leaves operations in place alone.
        y = torch.bmm(x, m) if y is None else y.baddbmm_(x.to(y.dtype), m.to(y.dtype))
    assert y is not None
    return y


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution (C', C, 1, 1) of (B, C, H, W) as the matrix product it is on channels-last data."""
    flat = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    return as_map(F.linear(flat, weight.flatten(1), bias), x)
