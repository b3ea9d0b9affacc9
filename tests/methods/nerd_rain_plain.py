"""NeRD-Rain written down as its formulas stand, without regard to time or memory.

The fast network must equal this one. Everything is a function of the state dict, so a module is named
by its published name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.methods.nerd_rain.network import NeRDRain

State = Mapping[str, Tensor]


class PlainNeRDRain(NeRDRain):
    """The same parameters, used by the plain formulas."""

    def outputs(self, rainy: Tensor) -> dict[str, Tensor]:
        return plain_outputs(dict(self.named_parameters()), rainy)

    def forward(self, rainy: Tensor) -> Tensor:
        return self.outputs(rainy)["image"]


def plain_outputs(state: State, rainy: Tensor) -> dict[str, Tensor]:
    """The outputs of `NeRDRain.outputs`."""
    i_m, i_s = rainy[:, :, ::2, ::2], rainy[:, :, ::4, ::4]

    a1, a2, z_s = _encode(state, _conv3(state, "patch_embed_small.proj", i_s), "small", "", "")
    p_s = i_s + plain_inr(state, "INR", _up(state, "upsmall2mid2", _up(state, "upsmall2mid1", z_s)))

    x_m = i_m + _nearest(p_s)
    b1, b2, z_m1 = _encode(state, _conv3(state, "patch_embed_mid.proj", x_m), "mid", "1", "")
    p_m = x_m + plain_inr(state, "INR2", _up(state, "upmid2max2", _up(state, "upmid2max1", z_m1)))

    x_f = rainy + _nearest(p_m)
    c1, c2, z_f1 = _encode(state, _conv3(state, "patch_embed_max.proj", x_f), "max", "1", "")
    t = _conv3(state, "output_max_context1", _decode(state, z_f1, c1, c2, "max", "1", ""))
    d1, d2, z_f2 = _encode(state, t, "max", "2", "2")
    t = _conv3(state, "output_max_context2", _decode(state, z_f2, d1, d2, "max", "2", "2"))
    e1, e2, z_f3 = _encode(state, t, "max", "3", "3")

    feedback1 = _fuse(state, "BF1", z_f1, z_f2)[:, :, ::2, ::2]
    feedback2 = _fuse(state, "BF2", z_f2, z_f3)[:, :, ::2, ::2]
    t = _conv3(state, "output_mid_context", _decode(state, z_m1 + feedback1, b1, b2, "mid", "1", ""))
    f1, f2, z_m2 = _encode(state, t, "mid", "2", "2")
    feedback3 = _fuse(state, "BF3", z_m1, z_m2)[:, :, ::2, ::2]

    d_s = _decode(state, z_s + feedback3, a1, a2, "small", "", "")
    g = _decode(state, z_m2 + feedback2, f1, f2, "mid", "2", "2") + _nearest(d_s)
    d_f = _decode(state, z_f3, e1, e2, "max", "3", "3", reduction="2") + _nearest(g)
    return {
        "image": _conv3(state, "output_max", d_f) + rainy,
        "half": _conv3(state, "output_mid", g) + i_m,
        "quarter": _conv3(state, "output_small", d_s) + i_s,
        "inr_half": p_m,
        "inr_quarter": p_s,
        "half_input": x_m,
    }


def _encode(state: State, x: Tensor, scale: str, stage: str, resizer: str) -> tuple[Tensor, Tensor, Tensor]:
    e1 = _stage(state, f"encoder_level1_{scale}{stage}", x)
    e2 = _stage(state, f"encoder_level2_{scale}{stage}", _down(state, f"down1_2_{scale}{resizer}", e1))
    z = _stage(state, f"latent_{scale}{stage}", _down(state, f"down2_3_{scale}{resizer}", e2))
    return e1, e2, z


def _decode(
    state: State,
    z: Tensor,
    e1: Tensor,
    e2: Tensor,
    scale: str,
    stage: str,
    resizer: str,
    reduction: str | None = None,
) -> Tensor:
    u = torch.cat([_up(state, f"up3_2_{scale}{resizer}", z), e2], 1)
    u = _stage(
        state, f"decoder_level2_{scale}{stage}", _conv1(state, f"reduce_chan_level2_{scale}{stage}", u)
    )
    u = torch.cat([_up(state, f"up2_1_{scale}{resizer}", u), e1], 1)
    u = _conv1(state, f"reduce_chan_level1_{scale}{reduction or stage}", u)
    return _stage(state, f"decoder_level1_{scale}{stage}", u)


def _stage(state: State, name: str, x: Tensor) -> Tensor:
    number = 0
    while f"{name}.{number}.attn.temperature" in state:
        x = plain_block(state, f"{name}.{number}", x)
        number += 1
    return x


def plain_block(state: State, name: str, x: Tensor) -> Tensor:
    x = x + _attention(state, f"{name}.attn", plain_norm(state, f"{name}.norm1", x))
    return x + _feed_forward(state, f"{name}.ffn", plain_norm(state, f"{name}.norm2", x))


def plain_norm(state: State, name: str, x: Tensor) -> Tensor:
    pixels = x.flatten(2).transpose(1, 2)
    variance = pixels.var(-1, correction=0, keepdim=True)
    weight, bias = state[f"{name}.body.weight"], state.get(f"{name}.body.bias")
    if bias is None:
        pixels = pixels / torch.sqrt(variance + 1e-5) * weight
    else:
        pixels = (pixels - pixels.mean(-1, keepdim=True)) / torch.sqrt(variance + 1e-5) * weight + bias
    return pixels.transpose(1, 2).view(x.shape)


def _attention(state: State, name: str, x: Tensor) -> Tensor:
    q, k, v = plain_qkv(state, name, x)
    out = plain_softmax(state, name, q, k) @ v
    return _conv1(state, f"{name}.project_out", out.reshape(x.shape))


def plain_qkv(state: State, name: str, x: Tensor) -> list[Tensor]:
    """Three times (B, heads, channels of a head, pixels)."""
    qkv = _depthwise(state, f"{name}.qkv_dwconv.main.0", _conv1(state, f"{name}.qkv", x))
    heads = len(state[f"{name}.temperature"])
    return [part.flatten(2).unflatten(1, (heads, -1)) for part in qkv.chunk(3, 1)]


def plain_softmax(state: State, name: str, q: Tensor, k: Tensor) -> Tensor:
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    return (q @ k.transpose(-2, -1) * state[f"{name}.temperature"]).softmax(-1)


def _feed_forward(state: State, name: str, x: Tensor) -> Tensor:
    a, b = _depthwise(state, f"{name}.dwconv.main.0", _conv1(state, f"{name}.project_in", x)).chunk(2, 1)
    return _conv1(state, f"{name}.project_out", F.gelu(a) * b)


def _fuse(state: State, name: str, x: Tensor, y: Tensor) -> Tensor:
    s = torch.sigmoid(_conv3(state, f"{name}.query_conv", x) * _conv3(state, f"{name}.key_conv", y))
    g = _conv3(state, f"{name}.gamma1", torch.cat([x, s * x], 1))
    k = _conv3(state, f"{name}.gamma2", torch.cat([y, s * y], 1))
    return g[:, :1] * x + g[:, 1:] * (s * x) + k[:, :1] * y + k[:, 1:] * (s * y)


def plain_inr(state: State, name: str, features: Tensor) -> Tensor:
    """The local implicit function: one row of 9 C + 20 numbers per pixel, the mean of four queries."""
    batch, _, height, width = features.shape
    rows, columns = _centres(height, features), _centres(width, features)
    positions = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).view(-1, 2)
    queries = positions  # those shifted by half a cell are never used
    sizes = torch.tensor([height, width], dtype=features.dtype)
    constant = torch.cat(
        [
            (queries - positions) * sizes,
            _encoding(queries) - _encoding(positions),
            (2 / sizes * sizes).expand(height * width, 2),
        ],
        1,
    )
    results = []
    for _ in range(4):
        neighbourhood = F.unfold(features, 3, padding=1).transpose(1, 2)
        z = torch.cat([neighbourhood, constant.expand(batch, -1, -1)], 2)
        for layer in (0, 2, 4):
            z = F.relu(_linear(state, f"{name}.imnet.layers.{layer}", z))
        results.append(_linear(state, f"{name}.imnet.layers.6", z) * 0.25)
    return sum(results).transpose(1, 2).reshape(batch, 3, height, width)


def _centres(count: int, like: Tensor) -> Tensor:
    return -1 + (2 * torch.arange(count, dtype=like.dtype) + 1) / count


def _encoding(positions: Tensor) -> Tensor:
    """(N, 2) -> (N, 16): for each axis four sines, then four cosines."""
    angles = positions[:, :, None] * (2 ** torch.arange(4, dtype=positions.dtype) * math.pi)
    return torch.cat([angles.sin(), angles.cos()], 2).flatten(1)


def _nearest(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def _down(state: State, name: str, x: Tensor) -> Tensor:
    return F.pixel_unshuffle(_conv3(state, f"{name}.body.0", x), 2)


def _up(state: State, name: str, x: Tensor) -> Tensor:
    return F.pixel_shuffle(_conv3(state, f"{name}.body.0", x), 2)


def _conv1(state: State, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def _conv3(state: State, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), padding=1)


def _depthwise(state: State, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), padding=1, groups=x.shape[1])


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
