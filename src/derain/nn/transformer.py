"""The Transformer block of the Restormer family (Zamir et al., CVPR 2022) in its plain form."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from derain.nn.norms import ChannelNorm


class TransformerBlock(nn.Module):
    """x + attention(norm1(x)), then x + feed_forward(norm2(x)); (B, C, H, W) -> the same.

    Args:
        channels: C.
        attention, feed_forward: (B, C, H, W) -> the same.
        bias_free_norm: see `ChannelNorm`.
    """

    def __init__(
        self, channels: int, attention: nn.Module, feed_forward: nn.Module, bias_free_norm: bool
    ) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels, bias_free_norm)
        self.attn = attention
        self.norm2 = ChannelNorm(channels, bias_free_norm)
        self.ffn = feed_forward

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.ffn(self.norm2(x))
        return y


def transformer_blocks(
    count: int,
    channels: int,
    attention: Callable[[], nn.Module],
    feed_forward: Callable[[], nn.Module],
    bias_free_norm: bool,
) -> nn.Sequential:
    """`count` blocks, one after the other, each with its own parts; see `TransformerBlock`."""
    made = (TransformerBlock(channels, attention(), feed_forward(), bias_free_norm) for _ in range(count))
    return nn.Sequential(*made)
