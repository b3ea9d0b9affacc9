"""UDR-S2Former without gradients: the same numbers, two to three times as fast on a CPU.

Pictures stay in channels-last memory, where a picture is a matrix of pixels by channels without a copy.
The rankings of a level are made once and not in each of its blocks, by a partition instead of a sort.
Channel gates scale the weights of the 1x1 convolution that follows instead of the picture. Of sampling
attention, the four neighbours of each sample are summed by one `embedding_bag` that writes keys and
values in window order; local attention runs over a few windows at a time. The refinement brings a
level's features to its own width before they are enlarged (both are linear and commute), so one
enlargement of few channels replaces two of many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.udr_s2former.blocks import BottleneckBlock, DecoderBlock, EncoderBlock
from derain.methods.udr_s2former.layers import ChannelGate
from derain.methods.udr_s2former.ranking import (
    BOOST,
    DAMPING,
    largest,
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
from derain.nn.pixels import as_map, as_pixels

WINDOWS_AT_ONCE = 64


def encoder_block(block: EncoderBlock, x: Tensor) -> Tensor:
    """(B, C, H, W) -> the same."""
    widen, deep, _, _, deeper, gate, narrow = block.conv
    assert isinstance(gate, ChannelGate)
    assert isinstance(narrow, nn.Conv2d)
    assert narrow.bias is not None
    d = deeper(_normed_gelu(deep(widen(x)), block.get_parameter("conv.2.body.weight")))
    return x + _gated_1x1(d, _factors(gate, _means(d)), narrow.weight, narrow.bias)


def _normed_gelu(a: Tensor, weight: Tensor) -> Tensor:
    """The norm and the GELU after it, (B, C, H, W); `a` may be overwritten."""
    pixels = a.permute(0, 2, 3, 1)
    rows = pixels.reshape(-1, len(weight))
    for piece in _pieces_of_pixels(rows, len(weight)):
        centred = piece - piece.mean(1, keepdim=True)
        variance = centred.square_().mean(1, keepdim=True)
        torch.ops.aten.gelu_(piece.mul_(torch.rsqrt(variance + 1e-5)).mul_(weight))
    return rows.view(pixels.shape).permute(0, 3, 1, 2)


def bottleneck_block(block: BottleneckBlock, z: Tensor) -> Tensor:
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


def reduced(gate: ChannelGate, reduction: nn.Conv2d, up: Tensor, encoded: Tensor) -> Tensor:
    """Gate and 1x1 convolution of concat(up, encoded), without making that: (B, C, H, W)."""
    gates = _factors(gate, torch.cat([_means(up), _means(encoded)], 1)).chunk(2, 1)
    weights = reduction.weight.chunk(2, 1)
    first = _gated_1x1(up, gates[0], weights[0], up.new_zeros(()))
    return _gated_1x1(encoded, gates[1], weights[1], first)


def decoder(blocks: nn.Module, x: Tensor, uncertainty: Tensor, window: int) -> Tensor:
    """The blocks of a level on (B, C, H, W), with the level's uncertainty features."""
    factors, boosts = _constraint(uncertainty), _modulation(uncertainty, window)
    x = x.permute(0, 2, 3, 1).contiguous()
    for block in blocks.children():
        assert isinstance(block, DecoderBlock)
        t, attn = block.norm1(x), block.attn
        change = (
            _sampling(attn, t, factors) if isinstance(attn, SamplingAttention) else _local(attn, t, boosts)
        )
        x = change.add_(x)
        for rows in _pieces_of_pixels(x.view(-1, x.shape[-1]), 4 * x.shape[-1]):
            rows.add_(block.mlp["fc2"](torch.ops.aten.gelu_(block.mlp["fc1"](block.norm2(rows)))))
    return x.permute(0, 3, 1, 2)


def _sampling(attn: SamplingAttention, t: Tensor, constraint: Tensor) -> Tensor:
    """On (B, H, W, C), with the factors (B, C, H, W) of the ranking."""
    b, h, w, c = t.shape
    n, d = attn.heads, c // attn.heads
    weight, bias = attn.qkv.weight.flatten(1), attn.qkv.bias
    assert bias is not None
    q = F.linear(t, weight[:c], bias[:c])
    # Key and value of one head side by side, so that one look-up fetches both.
    by_head = weight[c:].view(2, n, d, c).transpose(0, 1).reshape(2 * c, c)
    kv = F.linear(t, by_head, bias[c:].view(2, n, d).transpose(0, 1).flatten())

    index, factors = _neighbours(attn, t.permute(0, 3, 1, 2) * constraint)
    rows = kv.view(b * h * w * n, 2 * d)
    sampled = F.embedding_bag(index, rows, per_sample_weights=factors.to(kv.dtype), mode="sum")
    k, v = sampled.view(-1, n, attn.window**2, 2, d).unbind(3)
    q = _to_windows(q.unsqueeze(3), n, attn.window)[0]
    position = attn.position_bias().to(q.dtype).unsqueeze(0)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=position)
    return F.linear(from_windows(out, h, w, attn.window), attn.proj.weight.flatten(1), attn.proj.bias)


def _neighbours(attn: SamplingAttention, steered: Tensor) -> tuple[Tensor, Tensor]:
    """The four pixels around each sampling position, as rows of (B, H, W, heads), and their weights.

    Both (B * windows * heads * window^2, 4); a neighbour outside the picture has weight 0.
    """
    b, _, h, w = steered.shape
    n = attn.heads
    pooled = attn.sampling_biases[:2](steered)
    x, y = attn.coordinates(attn.sampling_biases[2](pooled), attn.sampling_scales[2](pooled), h, w)
    left_right, factor_x = _two_neighbours(x.permute(0, 2, 3, 1, 4), w)
    above_below, factor_y = _two_neighbours(y.permute(0, 2, 3, 1, 4), h)
    sample = torch.arange(b, device=steered.device).view(b, 1, 1, 1, 1, 1)
    head = torch.arange(n, device=steered.device).view(n, 1, 1)
    row = (sample * h + above_below) * (w * n) + head  # (B, H/w, W/w, heads, w, 2)
    index = row[..., :, None, :, None] + (left_right * n)[..., None, :, None, :]
    factors = factor_y[..., :, None, :, None] * factor_x[..., None, :, None, :]
    return index.view(-1, 4), factors.reshape(-1, 4)


def _two_neighbours(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Normalised positions (...) -> indices and linear weights of the two nearest pixels, (..., 2)."""
    position = (coordinate + 1) * ((size - 1) / 2)
    low = position.floor()
    ends = torch.stack([low, low + 1], -1)
    factors = torch.stack([low + 1 - position, position - low], -1)
    inside = (ends >= 0) & (ends <= size - 1)
    return ends.long().clamp(0, size - 1), factors * inside


def _local(attn: LocalAttention, t: Tensor, modulation: Tensor) -> Tensor:
    """On (B, H, W, C), with the factors (B * windows, w^2, w^2) of the ranking."""
    b, h, w, c = t.shape
    q, k, v = _to_windows(attn.qkv(t).view(b, h, w, 3, c), attn.heads, attn.window)
    q = q * (c // attn.heads) ** -0.5
    position = attn.position_bias().to(q.dtype)
    out = []
    for queries, keys, values, factors in _pieces(max(1, WINDOWS_AT_ONCE // attn.heads), q, k, v, modulation):
        logits = torch.addcmul(position, queries @ keys.transpose(2, 3), factors.unsqueeze(1))
        out.append(torch.softmax(logits, -1) @ values)
    mixed: Tensor = attn.proj(from_windows(torch.cat(out), h, w, attn.window))
    return mixed


def _to_windows(x: Tensor, heads: int, window: int) -> Tensor:
    """(B, H, W, parts, heads * D) -> (parts, B * windows, heads, window^2, D)."""
    b, h, w, parts, c = x.shape
    x = x.view(b, h // window, window, w // window, window, parts, heads, c // heads)
    return x.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(parts, -1, heads, window**2, c // heads)


def _constraint(uncertainty: Tensor) -> Tensor:
    """`ranking.constraint`, in the memory format of the uncertainty."""
    kept = fast_largest(uncertainty.flatten(2), share_of(uncertainty.shape[2] * uncertainty.shape[3]))
    factors = torch.where(kept.view(uncertainty.shape), 1.0, DAMPING).to(uncertainty.dtype)
    return factors.contiguous(memory_format=torch.channels_last)


def _modulation(uncertainty: Tensor, window: int) -> Tensor:
    """`ranking.modulation`, a few windows at a time."""
    slices, count = scrambled_windows(uncertainty, window), share_of(window * window)
    grams = (torch.bmm(v, v.transpose(1, 2)) for (v,) in _pieces(WINDOWS_AT_ONCE, slices))
    return torch.cat([torch.where(fast_largest(gram, count), 1.0, BOOST).to(slices.dtype) for gram in grams])


def fast_largest(x: Tensor, count: int) -> Tensor:
    """`ranking.largest`; on a CPU by NumPy's partition, 10 times faster than a top-k."""
    if x.device.type != "cpu":
        return largest(x, count)
    position = x.shape[-1] - count
    rows = x.to(torch.promote_types(x.dtype, torch.float32)).numpy().copy()
    rows.partition(position, axis=-1)
    threshold = torch.from_numpy(rows[..., position : position + 1].copy()).to(x.dtype)
    kept = x >= threshold
    if int(kept.count_nonzero()) == count * threshold.numel():  # no entry equals another at the cut
        return kept
    return with_ties(x, threshold, count)


def refinement(module: Refinement, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
    """Levels 0 to 3 of both, (B, dims[k], H / 2^k, W / 2^k) -> features (B, C, H, W) of level 0."""
    part = module.get_submodule
    z = _residual_group(part("refine0"), decoded[0] + part("conv_enc0")(encoded[0] + decoded[0]))
    for k in (1, 2, 3):
        small = part(f"up_enc{k}.up.1")(encoded[k]) + part(f"up_dec{k}.up.1")(decoded[k])
        large = F.interpolate(small, scale_factor=2**k, mode="bilinear")
        z = _residual_group(part(f"refine{k}"), z + part(f"conv_enc{k}")(large))
    return z


def _residual_group(group: nn.Module, z: Tensor) -> Tensor:
    assert isinstance(group, ResidualGroup)
    *blocks, last = group.body
    v = z
    for block in blocks:
        assert isinstance(block, GatedBlock)
        y = block.body(v)
        v = torch.addcmul(v, y, _factors(block.CA, _means(y))[:, :, None, None])
    change: Tensor = last(v)
    return z + change


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
    return (piece for (piece,) in _pieces(max(1024, 2**18 // width), rows))
