"""The blocks of encoder, bottleneck and decoder."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.udr_s2former.layers import ChannelGate, DeviationNorm, named
from derain.methods.udr_s2former.window_attention import LocalAttention, SamplingAttention


class EncoderBlock(nn.Module):
    """x + a gated branch of depthwise convolutions, (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(dim, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            named("body", DeviationNorm(hidden)),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            ChannelGate(hidden, hidden // 4, nn.LeakyReLU(), bias=True, name="channel_map"),
            nn.Conv2d(hidden, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.conv(x)
        return x + branch


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
    """Attention over all pixels plus a depthwise convolution; (B, C, H, W)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, t: Tensor) -> Tensor:
        b, c, h, w = t.shape
        tokens = t.flatten(2).transpose(1, 2)
        q, k, v = (
            x.view(b, h * w, self.heads, -1).transpose(1, 2)  # (B, heads, H W, C / heads)
            for x in (self.q(tokens), *self.kv(tokens).chunk(2, -1))
        )
        logits = q @ k.transpose(2, 3) / math.sqrt(c // self.heads)
        s = (torch.softmax(logits, -1) @ v).transpose(2, 3).reshape(b, c, h, w)
        mixed: Tensor = self.proj(s) + self.conv(t)
        return mixed


class FeedForward(nn.Module):
    """Two halves of a widened map, after convolutions of three sizes, multiplied; (B, C, H, W)."""

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
    """Attention and feed-forward with residual connections on (B, H, W, C).

    Args:
        samples: whether the attention fetches from afar; otherwise it attends locally.
    """

    def __init__(self, dim: int, heads: int, window: int, samples: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = (SamplingAttention if samples else LocalAttention)(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor, uncertainty: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), uncertainty)
        change: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + change


def _over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    normed: Tensor = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return normed


def _published_initialisation(module: nn.Module) -> None:
    """That of the bottleneck; the other layers keep PyTorch's."""
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
