"""UDR-S2Former's restored picture without gradients, in less than half the time on a CPU.

What differs from the plain form:

- Pictures stay in channels-last memory, where a picture is a matrix of pixels by channels without a copy, and
  weights are laid out once (`nn/convolution.py`).
- A channel gate scales the weights of a convolution beside it instead of the picture. The gates of the
  refinement come after a 3x3 convolution; the means of its result follow from sums over its input.
- The rankings of a level are made once and not in each of its blocks, by sorting with NumPy.
- Of sampling attention, the four neighbours of each sample are summed by one `embedding_bag` that writes keys
  and values in window order; local attention runs over a few windows at a time.
- The refinement brings a level's features to its own width before they are enlarged (both are linear and
  commute), so one enlargement of few channels replaces two of many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.udr_s2former.blocks import BottleneckBlock, DecoderBlock, EncoderBlock
from derain.methods.udr_s2former.layers import ChannelGate
from derain.methods.udr_s2former.network import LEVELS, UDRS2Former
from derain.methods.udr_s2former.ranking import (
    BOOST,
    DAMPING,
    largest,
    one_where,
    scrambled_windows,
    share_of,
    with_ties,
)
from derain.methods.udr_s2former.refinement import GatedBlock, Refinement, ResidualGroup
from derain.methods.udr_s2former.window_attention import (
    LocalAttention,
    SamplingAttention,
    from_windows,
)
from derain.nn.channel_attention import widened
from derain.nn.convolution import Convolution, laid_out_by_precision, mixed_precision
from derain.nn.pixels import as_map, as_pixels, as_rows

WINDOWS_AT_ONCE = 64
EPSILON = 1e-5  # of the encoder's norm
SHORT = 1024  # entries; NumPy sorts shorter rows faster than it partitions them


class FastUDRS2Former(UDRS2Former):
    """`UDRS2Former` whose results without gradients come from this file."""

    @torch.no_grad()
    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` and `uncertainty` alone."""
        mixed = mixed_precision(rainy.device.type)
        if mixed == torch.float16:
            return self.plain(rainy)
        layers, part = _laid_out(self, mixed), self.get_submodule
        encoded: list[Tensor] = []
        x = self.embed(rainy.contiguous(memory_format=torch.channels_last))
        for k in LEVELS:
            for block in layers.encoder[k]:
                x = block(x)
            encoded.append(x)
            x = part(f"down{k}")(x)
        for bottleneck_block in self.latent:
            assert isinstance(bottleneck_block, BottleneckBlock)
            x = _bottleneck_block(bottleneck_block, x)
        decoded: list[Tensor] = []
        for k in reversed(LEVELS):
            gate, reduction = part(f"ca{k}"), part(f"reduce_chan_level{k}")
            assert isinstance(gate, ChannelGate)
            assert isinstance(reduction, nn.Conv2d)
            x = _reduced(gate, reduction, part(f"up{k}")(x), encoded[k])
            features = part(f"var_conv{k}.1")(part(f"var_conv{k}.0")(x))
            x = _decoder(layers.decoder[k], x, features, self.windows[k])
            decoded.insert(0, x)
        z = _refinement(self.refinement, layers.refinement, encoded, decoded)
        return {"image": self.out_final(z) + rainy, "uncertainty": F.elu(self.var_conv_final(z))}

    def activation_bytes(self, height: int, width: int) -> int:
        """Twenty-one maps of the embedding's width, and position indices and weights in another layout."""
        return 2 * sum(p.numel() for p in self.parameters()) + 84 * self.dims[0] * height * width


@dataclass(frozen=True)
class _Layers:
    """The layers of each level."""

    encoder: tuple[tuple[_EncoderBlock, ...], ...]
    decoder: tuple[tuple[_DecoderBlock, ...], ...]
    refinement: tuple[_ResidualGroup, ...]


@laid_out_by_precision
def _laid_out(network: UDRS2Former) -> _Layers:
    part = network.get_submodule
    return _Layers(
        tuple(tuple(map(_EncoderBlock.of, part(f"encoder_level{k}.0.model").children())) for k in LEVELS),
        tuple(tuple(map(_DecoderBlock.of, part(f"decoder_level{k}.model").children())) for k in LEVELS),
        tuple(_ResidualGroup.of(part(f"refinement.refine{k}")) for k in LEVELS),
    )


@dataclass(frozen=True)
class _EncoderBlock:
    """`blocks.EncoderBlock`."""

    widen: Convolution
    deep: Convolution
    norm: Tensor
    deeper: Convolution
    gate: ChannelGate
    narrow: nn.Conv2d

    @classmethod
    def of(cls, block: nn.Module) -> _EncoderBlock:
        assert isinstance(block, EncoderBlock)
        widen, deep, _, _, deeper, gate, narrow = block.conv
        assert isinstance(gate, ChannelGate)
        assert isinstance(narrow, nn.Conv2d)
        return cls(
            Convolution.like(widen),
            Convolution.like(deep),
            block.get_parameter("conv.2.body.weight"),
            Convolution.like(deeper),
            gate,
            narrow,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        deep = self.deeper(_normed_gelu(self.deep(self.widen(x)), self.norm))
        assert self.narrow.bias is not None
        return x + _gated_1x1(deep, _factors(self.gate, _means(deep)), self.narrow.weight, self.narrow.bias)


def _normed_gelu(x: Tensor, weight: Tensor) -> Tensor:
    """The norm and the GELU after it, (B, C, H, W): a layer norm that gets its mean back."""
    pixels = x.permute(0, 2, 3, 1)
    rows = pixels.reshape(-1, len(weight))
    for piece in _pieces_of_pixels(rows, len(weight)):
        centred, mean, inverse = torch.native_layer_norm(piece, weight.shape, weight, None, EPSILON)
        torch.ops.aten.gelu_(torch.addcmul(centred, mean.mul_(inverse), weight, out=piece))
    return rows.view(pixels.shape).permute(0, 3, 1, 2)


def _bottleneck_block(block: BottleneckBlock, z: Tensor) -> Tensor:
    """(B, C, H, W) -> the same."""
    t = block.norm1(z.permute(0, 2, 3, 1))
    b, h, w, c = t.shape
    attn = block.attn_nn
    tokens = t.view(b, h * w, c)
    q, k, v = (
        x.view(b, h * w, attn.heads, -1).transpose(1, 2)
        for x in (attn.q(tokens), *attn.kv(tokens).chunk(2, -1))
    )
    s = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h, w, c)
    z = attn.proj(s.permute(0, 3, 1, 2)) + attn.conv(t.permute(0, 3, 1, 2))
    change: Tensor = block.ffn(block.norm3(z.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    return z + change


def _reduced(gate: ChannelGate, reduction: nn.Conv2d, up: Tensor, encoded: Tensor) -> Tensor:
    """Gate and 1x1 convolution of concat(up, encoded), without making that: (B, C, H, W)."""
    gates = _factors(gate, torch.cat([_means(up), _means(encoded)], 1)).chunk(2, 1)
    weights = reduction.weight.chunk(2, 1)
    first = _gated_1x1(up, gates[0], weights[0], up.new_zeros(()))
    return _gated_1x1(encoded, gates[1], weights[1], first)


@dataclass(frozen=True)
class _DecoderBlock:
    """`blocks.DecoderBlock`."""

    attention: _Sampling | _Local
    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    first: Convolution
    last: Convolution

    @classmethod
    def of(cls, block: nn.Module) -> _DecoderBlock:
        assert isinstance(block, DecoderBlock)
        attn = block.attn
        attention = _Sampling.of(attn) if isinstance(attn, SamplingAttention) else _Local.of(attn)
        first, last = (_matrix(block.mlp[name]) for name in ("fc1", "fc2"))
        return cls(attention, block.norm1, block.norm2, first, last)

    def __call__(self, x: Tensor, factors: Tensor, boosts: Tensor) -> Tensor:
        """(B, H, W, C) -> the same; for `factors` and `boosts` see `_constraint` and `_modulation`."""
        t, attention = self.norm1(x), self.attention
        change = attention(t, factors) if isinstance(attention, _Sampling) else attention(t, boosts)
        x = change.add_(x)
        for rows in _pieces_of_pixels(x.view(-1, x.shape[-1]), 4 * x.shape[-1]):
            hidden = self.first(_as_column(self.norm2(rows)), "gelu")
            rows.add_(as_rows(self.last(hidden)))
        return x


def _matrix(layer: nn.Module) -> Convolution:
    """A linear layer or 1x1 convolution."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    return Convolution.of(weight.view(*weight.shape[:2], 1, 1), bias)


def _as_column(rows: Tensor) -> Tensor:
    """(N, C) as a map of one pixel's width, (1, C, N, 1)."""
    return rows.t()[None, :, :, None]


def _decoder(blocks: Sequence[_DecoderBlock], x: Tensor, uncertainty: Tensor, window: int) -> Tensor:
    """The blocks of a level on (B, C, H, W), with the level's uncertainty features."""
    factors, boosts = _constraint(uncertainty), _modulation(uncertainty, window)
    x = x.permute(0, 2, 3, 1).contiguous()
    for block in blocks:
        x = block(x, factors, boosts)
    return x.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Sampling:
    """`window_attention.SamplingAttention`; keys and values of a head are side by side, so that one look-up
    fetches both."""

    attn: SamplingAttention
    query: Convolution
    key_value: Convolution
    projection: Convolution
    position: Tensor  # (1, heads, w^2, w^2)

    @classmethod
    def of(cls, attn: SamplingAttention) -> _Sampling:
        weight, bias, n = attn.qkv.weight, attn.qkv.bias, attn.heads
        assert bias is not None
        c = weight.shape[1]
        by_head = weight[c:].view(2, n, c // n, c).transpose(0, 1).reshape(2 * c, c, 1, 1)
        return cls(
            attn,
            Convolution.of(weight[:c], bias[:c]),
            Convolution.of(by_head, bias[c:].view(2, n, c // n).transpose(0, 1).flatten()),
            _matrix(attn.proj),
            attn.position_bias()[None],
        )

    def __call__(self, t: Tensor, constraint: Tensor) -> Tensor:
        """On (B, H, W, C), with the factors (B, C, H, W) of the ranking."""
        b, h, w, c = t.shape
        n, window = self.attn.heads, self.attn.window
        x = t.permute(0, 3, 1, 2)
        index, factors = self._neighbours(x * constraint)
        rows = as_rows(self.key_value(x)).view(b * h * w * n, 2 * c // n)
        sampled = F.embedding_bag(index, rows, per_sample_weights=factors.to(rows.dtype), mode="sum")
        k, v = sampled.view(-1, n, window**2, 2, c // n).unbind(3)
        q = _to_windows(as_rows(self.query(x)).view(b, h, w, 1, c), n, window)[0]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.position.to(q.dtype))
        return _on_pixels(self.projection, from_windows(out, h, w, window))

    def _neighbours(self, steered: Tensor) -> tuple[Tensor, Tensor]:
        """The four pixels around each sampling position, as rows of (B, H, W, heads), and their weights.

        Both (B * windows * heads * window^2, 4); a neighbour outside the picture has weight 0.
        """
        b, _, h, w = steered.shape
        attn, n = self.attn, self.attn.heads
        pooled = attn.sampling_biases[:2](steered)
        x, y = attn.coordinates(attn.sampling_biases[2](pooled), attn.sampling_scales[2](pooled), h, w)
        left_right, factor_x = _two_neighbours(x.permute(0, 2, 3, 1, 4), w)
        above_below, factor_y = _two_neighbours(y.permute(0, 2, 3, 1, 4), h)
        sample = torch.arange(b, device=steered.device).view(b, 1, 1, 1, 1, 1)
        head = torch.arange(n, device=steered.device).view(n, 1, 1)
        row = (sample * h + above_below) * (w * n) + head  # (B, H/w, W/w, heads, w, 2)
        below, beside = _crossed(row, left_right * n)
        factor_below, factor_beside = _crossed(factor_y, factor_x)
        return (below + beside).view(-1, 4), (factor_below * factor_beside).view(-1, 4)


def _two_neighbours(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Normalised positions (...) -> indices and linear weights of the two nearest pixels, (..., 2)."""
    position = (coordinate + 1) * ((size - 1) / 2)
    low = position.floor()
    ends = torch.stack([low, low + 1], -1)
    factors = torch.stack([low + 1 - position, position - low], -1)
    inside = (ends >= 0) & (ends <= size - 1)
    return ends.long().clamp(0, size - 1), factors * inside


def _crossed(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Of w rows and w columns with two neighbours each, (..., w, 2): those of all w x w positions with four,
    (..., w, 1, 4) and (..., 1, w, 4), to be combined."""
    return rows.repeat_interleave(2, -1).unsqueeze(-2), torch.cat([columns, columns], -1).unsqueeze(-3)


@dataclass(frozen=True)
class _Local:
    """`window_attention.LocalAttention`, whose queries come scaled."""

    heads: int
    window: int
    query_key_value: Convolution
    projection: Convolution
    position: Tensor  # (heads, w^2, w^2)

    @classmethod
    def of(cls, attn: LocalAttention) -> _Local:
        weight, bias = attn.qkv.weight, attn.qkv.bias
        c = weight.shape[1]
        scale = weight.new_ones(3 * c, 1)
        scale[:c] = (c // attn.heads) ** -0.5
        scaled = Convolution.of((scale * weight)[:, :, None, None], scale[:, 0] * bias)
        return cls(attn.heads, attn.window, scaled, _matrix(attn.proj), attn.position_bias())

    def __call__(self, t: Tensor, modulation: Tensor) -> Tensor:
        """On (B, H, W, C), with the factors (B * windows, w^2, w^2) of the ranking."""
        b, h, w, c = t.shape
        wide = _on_pixels(self.query_key_value, t).view(b, h, w, 3, c)
        q, k, v = _to_windows(wide, self.heads, self.window)
        position, out = self.position.to(q.dtype), torch.empty_like(q)
        count = max(1, WINDOWS_AT_ONCE // self.heads)
        for queries, keys, values, factors, into in _pieces(count, q, k, v, modulation, out):
            logits = torch.addcmul(position, queries @ keys.transpose(2, 3), factors.unsqueeze(1))
            into.copy_(torch.softmax(logits, -1) @ values)
        return _on_pixels(self.projection, from_windows(out, h, w, self.window))


def _on_pixels(convolution: Convolution, t: Tensor) -> Tensor:
    """A 1x1 convolution on (B, H, W, C)."""
    return convolution(t.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _to_windows(x: Tensor, heads: int, window: int) -> Tensor:
    """(B, H, W, parts, heads * D) -> (parts, B * windows, heads, window^2, D)."""
    b, h, w, parts, c = x.shape
    x = x.view(b, h // window, window, w // window, window, parts, heads, c // heads)
    return x.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(parts, -1, heads, window**2, c // heads)


def _constraint(uncertainty: Tensor) -> Tensor:
    """`ranking.constraint`, in the memory format of the uncertainty."""
    positions = uncertainty.flatten(2).contiguous()
    factors = factors_outside(positions, share_of(positions.shape[2]), DAMPING)
    return factors.view(uncertainty.shape).contiguous(memory_format=torch.channels_last)


def _modulation(uncertainty: Tensor, window: int) -> Tensor:
    """`ranking.modulation`, a few windows at a time, ranked in float32, where entries are rarely equal."""
    slices, count = scrambled_windows(uncertainty, window), share_of(window * window)
    factors = slices.new_empty(len(slices), window * window, window * window)
    with torch.autocast(slices.device.type, enabled=False):
        for v, into in _pieces(WINDOWS_AT_ONCE, slices, factors):
            v = widened(v)
            into.copy_(factors_outside(torch.bmm(v, v.transpose(1, 2)), count, BOOST))
    return factors


def factors_outside(x: Tensor, count: int, factor: float) -> Tensor:
    """1 at the `count` largest entries along the last axis (of equal ones, at the first), else `factor`.

    On a CPU by NumPy, 10 times faster than a top-k.
    """
    if x.device.type != "cpu":
        return one_where(largest(x, count), factor, x.dtype)
    position = x.shape[-1] - count
    rows = x.to(torch.promote_types(x.dtype, torch.float32)).numpy()
    ordered = np.sort(rows) if x.shape[-1] <= SHORT else np.partition(rows, position)
    threshold = torch.from_numpy(ordered[..., position : position + 1].copy()).to(x.dtype)
    kept = torch.ge(x, threshold, out=torch.empty_like(x))
    if not bool((kept.sum(-1, dtype=torch.float32) == count).all()):  # entries equal another at the cut
        kept = with_ties(x, threshold, count)
    return one_where(kept, factor, x.dtype)


def _refinement(
    module: Refinement, groups: Sequence[_ResidualGroup], encoded: Sequence[Tensor], decoded: Sequence[Tensor]
) -> Tensor:
    """Levels 0 to 3 of both, (B, dims[k], H / 2^k, W / 2^k) -> features (B, C, H, W) of level 0."""
    part = module.get_submodule
    z = groups[0](decoded[0] + part("conv_enc0")(encoded[0] + decoded[0]))
    for k in (1, 2, 3):
        small = part(f"up_enc{k}.up.1")(encoded[k]) + part(f"up_dec{k}.up.1")(decoded[k])
        large = F.interpolate(small, scale_factor=2**k, mode="bilinear")
        z = groups[k](z + part(f"conv_enc{k}")(large))
    return z


@dataclass(frozen=True)
class _ResidualGroup:
    """`refinement.ResidualGroup`."""

    blocks: tuple[_GatedBlock, ...]
    last: Convolution

    @classmethod
    def of(cls, group: nn.Module) -> _ResidualGroup:
        assert isinstance(group, ResidualGroup)
        *blocks, last = group.body
        return cls(tuple(map(_GatedBlock.of, blocks)), Convolution.like(last))

    def __call__(self, z: Tensor) -> Tensor:
        """(B, C, H, W) -> the same; pictures one by one, as their gates differ."""
        return torch.cat([self._one(picture) for picture in z.split(1)])

    def _one(self, z: Tensor) -> Tensor:
        v = z
        for block in self.blocks:
            v = block(v)
        return self.last.plus(z, v)


@dataclass(frozen=True)
class _GatedBlock:
    """`refinement.GatedBlock`."""

    first: Convolution
    second: Convolution
    gate: ChannelGate

    @classmethod
    def of(cls, block: nn.Module) -> _GatedBlock:
        assert isinstance(block, GatedBlock)
        first, _, second = block.body
        return cls(Convolution.like(first), Convolution.like(second), block.CA)

    def __call__(self, v: Tensor) -> Tensor:
        """(1, C, H, W) -> the same."""
        y = self.first(v, "gelu")
        weight, bias = self.second.weight, self.second.bias
        assert bias is not None
        (factors,) = _factors(self.gate, _means_of_convolved(y, weight, bias))
        gated = replace(self.second, weight=factors[:, None, None, None] * weight, bias=factors * bias)
        return gated.plus(v, y)


def _means_of_convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The means (B, C') of a 3x3 convolution of x (B, C, H, W), without computing it.

    A weight multiplies all pixels but those of the row and the column that it does not reach.
    """
    top, bottom = x[:, :, 0], x[:, :, -1]  # (B, C, W)
    none = x.new_zeros(x.shape[:2])
    rows = torch.stack([bottom.sum(2), none, top.sum(2)], 2)
    columns = torch.stack([x[..., -1].sum(2), none, x[..., 0].sum(2)], 2)
    corners = torch.stack(
        [torch.stack([row[..., -1], none, row[..., 0]], 2) for row in (bottom, torch.zeros_like(top), top)], 2
    )
    sums = x.sum((2, 3))[..., None, None] - rows[..., None] - columns[:, :, None] + corners
    return F.linear(sums.flatten(1) / (x.shape[2] * x.shape[3]), weight.flatten(1), bias)


def _factors(gate: ChannelGate, means: Tensor) -> Tensor:
    """The gate (B, C) of means (B, C)."""
    first, activation, last, sigmoid = gate.get_submodule(gate.name).children()
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.Conv2d)
    inner = activation(F.linear(means, first.weight.flatten(1), first.bias))
    factors: Tensor = sigmoid(F.linear(inner, last.weight.flatten(1), last.bias))
    return factors


def _means(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C)."""
    return x.mean((2, 3))


def _gated_1x1(x: Tensor, gate: Tensor, weight: Tensor, onto: Tensor) -> Tensor:
    """onto + (1x1 convolution of x * gate), where the gate scales the weights instead of the picture.

    Args:
        x: (B, C, H, W).
        gate: (B, C).
        weight: (D, C, 1, 1).
        onto: a bias (D,) or a picture (B, D, H, W).
    """
    if onto.dim() == 4:
        onto = as_pixels(onto)
    weights = gate.unsqueeze(2) * weight.flatten(1).t()
    return as_map(torch.baddbmm(onto, as_pixels(x), weights), x)


def _pieces(size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors cut along their first axis into pieces that stay in a CPU's cache; elsewhere whole."""
    if tensors[0].device.type != "cpu":
        return iter([tensors])
    return zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)


def _pieces_of_pixels(rows: Tensor, width: int) -> Iterator[Tensor]:
    """Views of (N, C), so small that arrays of `width` channels stay in a CPU's cache."""
    return (piece for (piece,) in _pieces(max(1024, 2**20 // width), rows))
