"""UDR-S2Former as its formulas read, without any of the network's fast forms: the truth in tests.

Everything is a function of a state dict, so that values and gradients of the network can be
compared with it under any weights: `outputs(state, rainy)`. `PlainUDRS2Former` is the same as a
module, with the network's constructor and state dict, for the benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.methods.udr_s2former.network import UDRS2Former


class Weights:
    """A view of the entries of a state dict below a prefix."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str = "") -> None:
        self.state, self.prefix = state, prefix

    def __truediv__(self, name: str) -> Weights:
        return Weights(self.state, f"{self.prefix}{name}.")

    def __getitem__(self, name: str) -> Tensor:
        return self.state[self.prefix + name]

    def get(self, name: str) -> Tensor | None:
        return self.state.get(self.prefix + name)

    def children(self) -> list[Weights]:
        """The sub-modules numbered 0, 1, 2, ... below this prefix."""
        length = len(self.prefix)
        names = {key[length:].split(".")[0] for key in self.state if key.startswith(self.prefix)}
        return [self / str(number) for number in range(len(names))]


def conv(x: Tensor, w: Weights, stride: int = 1) -> Tensor:
    """A same-size convolution, depthwise when the weight has one input channel."""
    weight = w["weight"]
    groups = x.shape[1] if weight.shape[1] == 1 and weight.shape[0] == x.shape[1] else 1
    return F.conv2d(x, weight, w.get("bias"), stride, weight.shape[2] // 2, groups=groups)


def linear(x: Tensor, w: Weights) -> Tensor:
    return F.linear(x, w["weight"], w.get("bias"))


def average(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def largest(x: Tensor, count: int) -> Tensor:
    """True at the `count` largest entries of the last axis; of equal ones the first."""
    order = x.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return torch.zeros_like(x, dtype=torch.bool).scatter_(-1, order, True)


def encoder_block(x: Tensor, w: Weights) -> Tensor:
    a = conv(conv(x, w / "0"), w / "1")
    b = (
        a
        / torch.sqrt(a.var(1, keepdim=True, unbiased=False) + 1e-5)
        * (w / "2")["body.weight"].view(-1, 1, 1)
    )
    d = conv(F.gelu(b), w / "4")
    gate = w / "5" / "channel_map"
    scale = torch.sigmoid(conv(F.leaky_relu(conv(average(d), gate / "0"), 0.01), gate / "2"))
    return x + conv(d * scale, w / "6")


def norm_over_channels(z: Tensor, w: Weights) -> Tensor:
    mean, var = z.mean(1, keepdim=True), z.var(1, keepdim=True, unbiased=False)
    return (z - mean) / torch.sqrt(var + 1e-5) * w["weight"].view(-1, 1, 1) + w["bias"].view(-1, 1, 1)


def bottleneck_block(z: Tensor, w: Weights, heads: int) -> Tensor:
    b, c, height, width = z.shape
    t = norm_over_channels(z, w / "norm1" / "body")
    a = w / "attn_nn"
    tokens = t.flatten(2).transpose(1, 2)
    q = linear(tokens, a / "q")
    k, v = linear(tokens, a / "kv").chunk(2, -1)
    q, k, v = (x.reshape(b, -1, heads, c // heads).transpose(1, 2) for x in (q, k, v))
    s = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(c // heads), -1) @ v
    s = s.transpose(1, 2).reshape(b, -1, c).transpose(1, 2).reshape(b, c, height, width)
    z = conv(s, a / "proj") + conv(t, a / "conv")
    f = w / "ffn"
    u = conv(norm_over_channels(z, w / "norm3" / "body"), f / "conv1")
    u1, u2 = (u + conv(u, f / "conv33") + conv(u, f / "conv55")).chunk(2, 1)
    return z + conv(u1 * u2, f / "conv4")


def constraint(u: Tensor) -> Tensor:
    """K: (B, C, h, w) of 1 and 0.6."""
    kept = largest(u.detach().flatten(2), int(0.8 * u.shape[2] * u.shape[3]))
    return torch.where(kept, 1.0, 0.6).to(u.dtype).view_as(u)


def modulation(u: Tensor, window: int) -> Tensor:
    """M: (B * windows, window^2, window^2) of 1 and 1.2, from the scrambled order."""
    b, c, h, w = u.shape
    v = u.detach().reshape(b, c // window, window, h // window, window, w).transpose(2, 3)
    v = v.reshape(-1, window * window, c)
    kept = largest(v @ v.transpose(1, 2), int(0.8 * window * window))
    return torch.where(kept, 1.0, 1.2).to(u.dtype)


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, C, h, w) -> (B * windows, window^2, C)."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // window, window, w // window, window)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, window * window, c)


def from_windows(x: Tensor, h: int, w: int, window: int) -> Tensor:
    """The reverse of `to_windows`."""
    c = x.shape[-1]
    x = x.reshape(-1, h // window, w // window, window, window, c)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, c, h, w)


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, index: Tensor, factor: Tensor | None
) -> Tensor:
    """softmax(q k^T / sqrt(d) * factor + T[index]) v on (windows, n, C) inputs."""
    count, n, c = q.shape
    heads = table.shape[1]
    q, k, v = (x.reshape(count, n, heads, c // heads).transpose(1, 2) for x in (q, k, v))
    logits = q @ k.transpose(2, 3) / math.sqrt(c // heads)
    if factor is not None:
        logits = logits * factor[:, None]
    bias = table[index.flatten()].reshape(n, n, heads).permute(2, 0, 1)
    return (torch.softmax(logits + bias, -1) @ v).transpose(1, 2).reshape(count, n, c)


def sampling_grid(t: Tensor, u: Tensor, w: Weights, heads: int, window: int) -> Tensor:
    """(B * heads, h, w, 2) normalised coordinates (x, y) where keys and values are fetched."""
    b, _, h, width = t.shape
    rows, columns = h // window, width // window
    p = F.leaky_relu(F.avg_pool2d(t * constraint(u), window), 0.01)
    shift = conv(p, w / "sampling_biases" / "2").reshape(b * heads, 2, rows, columns)
    scale = conv(p, w / "sampling_scales" / "2").reshape(b * heads, 2, rows, columns)
    shift = shift / torch.tensor([columns, rows], dtype=t.dtype).view(2, 1, 1)
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, width), indexing="ij")
    centre = F.avg_pool2d(torch.stack([x, y])[None], window)[0]
    offset_x = torch.arange(window) * 2 / (width - 1)
    offset_y = torch.arange(window) * 2 / (h - 1)
    oy, ox = torch.meshgrid(offset_y - offset_y.mean(), offset_x - offset_x.mean(), indexing="ij")
    centre = centre.to(t.dtype).reshape(1, 2, rows, 1, columns, 1)
    o = torch.stack([ox, oy]).to(t.dtype).reshape(1, 2, 1, window, 1, window)
    scale, shift = (a.reshape(b * heads, 2, rows, 1, columns, 1) for a in (scale, shift))
    grid = (centre + o) + (o * scale + shift)
    return grid.reshape(b * heads, 2, h, width).permute(0, 2, 3, 1)


def sampling_attention(t: Tensor, u: Tensor, w: Weights) -> Tensor:
    b, c, h, width = t.shape
    table, index = w["relative_position_bias_table"], w["relative_position_index"]
    heads, window = table.shape[1], math.isqrt(index.shape[0])
    grid = sampling_grid(t, u, w, heads, window)
    q, k, v = conv(t, w / "qkv").chunk(3, 1)
    k, v = (
        F.grid_sample(x.reshape(b * heads, c // heads, h, width), grid, align_corners=True).reshape(t.shape)
        for x in (k, v)
    )
    q, k, v = (to_windows(x, window) for x in (q, k, v))
    return conv(from_windows(window_attention(q, k, v, table, index, None), h, width, window), w / "proj")


def local_attention(t: Tensor, u: Tensor, w: Weights) -> Tensor:
    table, index = w["relative_position_bias_table"], w["relative_position_index"]
    window = math.isqrt(index.shape[0])
    q, k, v = linear(to_windows(t, window), w / "qkv").chunk(3, -1)
    out = linear(window_attention(q, k, v, table, index, modulation(u, window)), w / "proj")
    return from_windows(out, *t.shape[2:], window)


def decoder_block(x: Tensor, u: Tensor, w: Weights, sparse: bool) -> Tensor:
    def norm(x: Tensor, name: str) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, x.shape[-1:], (w / name)["weight"], (w / name)["bias"]).permute(0, 3, 1, 2)

    t = norm(x, "norm1")
    x = x + (sampling_attention if sparse else local_attention)(t, u, w / "attn")
    y = linear(norm(x, "norm2").permute(0, 2, 3, 1), w / "mlp" / "fc1")
    return x + linear(F.gelu(y), w / "mlp" / "fc2").permute(0, 3, 1, 2)


def channel_attention(v: Tensor, w: Weights) -> Tensor:
    return v * torch.sigmoid(conv(F.relu(conv(average(v), w / "0")), w / "2"))


def refinement_gate(v: Tensor, w: Weights) -> Tensor:
    for name in "0123":
        if name in "02":
            v = channel_attention(v, w / name / "conv_du")
        else:
            v = v * torch.sigmoid(conv(F.relu(conv(v, w / name / "pa" / "0")), w / name / "pa" / "2"))
    return v


def refinement_stage(z: Tensor, w: Weights) -> Tensor:
    v = z
    for name in "012345":
        y = conv(F.gelu(conv(v, w / name / "body" / "0")), w / name / "body" / "2")
        v = v + channel_attention(y, w / name / "CA" / "conv_du")
    return z + conv(v, w / "6")


def upsampled(x: Tensor, factor: int, w: Weights) -> Tensor:
    x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    return conv(x, w / "up" / "1")


def refine(encoded: list[Tensor], decoded: list[Tensor], w: Weights) -> Tensor:
    z = decoded[0] + refinement_gate(encoded[0] + decoded[0], w / "conv_enc0")
    z = refinement_stage(z, w / "refine0" / "body")
    for k in (1, 2, 3):
        up = upsampled(encoded[k], 2**k, w / f"up_enc{k}") + upsampled(decoded[k], 2**k, w / f"up_dec{k}")
        z = refinement_stage(z + refinement_gate(up, w / f"conv_enc{k}"), w / f"refine{k}" / "body")
    return z


def outputs(state: Mapping[str, Tensor], rainy: Tensor) -> dict[str, Tensor]:
    """All ten outputs; gradients reach the tensors of `state` that want them."""
    w = Weights(state)
    bottleneck_heads = 2 * w["decoder_level3.model.0.attn.relative_position_bias_table"].shape[1]
    encoded = []
    x = conv(rainy, w / "embed.down.0")
    for k in range(4):
        for block in (w / f"encoder_level{k}.0.model").children():
            x = encoder_block(x, block / "conv")
        encoded.append(x)
        x = conv(x, w / f"down{k}.down.0", stride=2)
    for block in (w / "latent").children():
        x = bottleneck_block(x, block, bottleneck_heads)
    result = {}
    decoded = []
    for k in (3, 2, 1, 0):
        up = w / f"up{k}.up.0.0"
        y = torch.cat([F.conv_transpose2d(x, up["weight"], up["bias"], 2, 1), encoded[k]], 1)
        x = conv(channel_attention(y, w / f"ca{k}.conv_du"), w / f"reduce_chan_level{k}")
        u = F.elu(conv(x, w / f"var_conv{k}.0"))
        smaller = F.interpolate(rainy, scale_factor=0.5**k, mode="bicubic") if k else rainy
        result[f"scale{k}"] = conv(x, w / f"out{k}") + smaller
        result[f"uncertainty{k}"] = F.elu(conv(u, w / f"var_conv{k}.2"))
        for number, block in enumerate((w / f"decoder_level{k}.model").children()):
            x = decoder_block(x, u, block, sparse=number % 2 == 0)
        decoded.insert(0, x)
    z = refine(encoded, decoded, w / "refinement")
    result["image"] = conv(z, w / "out_final") + rainy
    final = w / "var_conv_final"
    result["uncertainty"] = F.elu(conv(F.elu(conv(z, final / "0")), final / "2"))
    return result


class PlainUDRS2Former(UDRS2Former):
    """The network's parameters, used as above."""

    def forward(self, rainy: Tensor) -> Tensor:
        return outputs(self.state_dict(), rainy)["image"]
