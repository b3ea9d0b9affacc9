"""The Transformer blocks of `transformer.py`, computed window by window without gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from derain.nn.channel_attention import widened
from derain.nn.halo_windows import Sides, by_windows
from derain.nn.norms import ChannelNorm
from derain.nn.pixels import as_map, as_pixels
from derain.nn.transformer import TransformerBlock


class Attention(Protocol):
    """The part of a block that mixes channels."""

    @property
    def bias(self) -> Tensor | None:
        """The bias of the projection after attention, (C,)."""

    def __call__(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> V of the same shape, and the matrix by which it is multiplied, (B, C, C)."""


class FeedForward(Protocol):
    """Works on one window at a time."""

    @property
    def halo(self) -> int:
        """How many pixels of halo it needs on each side of a window."""

    @property
    def buffer_channels(self) -> int:
        """How many channels its buffers hold at the same time."""

    def __call__(self, x: Tensor, sides: Sides, /) -> Tensor:
        """Maps a window with a halo to its inside; the window may be overwritten."""


MakeAttention = Callable[[ChannelNorm, Any], Attention]
MakeFeedForward = Callable[[ChannelNorm, Any], FeedForward]


@dataclass(frozen=True)
class Block:
    """Attention yields a matrix for V; windows apply it, add the skip and enter the feed-forward part."""

    attention: Attention
    feed_forward: FeedForward

    @classmethod
    def of(cls, block: nn.Module, attention: MakeAttention, feed_forward: MakeFeedForward) -> Block:
        """A plain block, prepared: each part with the norm before it."""
        assert isinstance(block, TransformerBlock)
        return cls(attention(block.norm1, block.attn), feed_forward(block.norm2, block.ffn))

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        v, matrix = self.attention(x)

        def block(window: Tensor, sides: Sides, v: Tensor) -> Tensor:
            attended = onto_product(as_pixels(window), as_pixels(v), matrix)
            if self.attention.bias is not None:
                attended += self.attention.bias
            return self.feed_forward(as_map(attended, window), sides)

        return by_windows(block, x, self.feed_forward.halo, self.feed_forward.buffer_channels, others=[v])


@dataclass(frozen=True)
class BlockSequence:
    """Blocks one after the other."""

    blocks: tuple[Block, ...]

    @classmethod
    def of(
        cls, blocks: nn.Sequential, attention: MakeAttention, feed_forward: MakeFeedForward
    ) -> BlockSequence:
        """Plain blocks, prepared; see `Block.of`."""
        return cls(tuple(Block.of(block, attention, feed_forward) for block in blocks))

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same, in float32 at least."""
        x = widened(x)
        for block in self.blocks:
            x = block(x)
        return x


def onto_product(onto: Tensor, rows: Tensor, matrix: Tensor) -> Tensor:
    """onto + rows @ matrix, (B, P, C) + (B, P, D) @ (B, D, C); the product in the type of the rows."""
    if onto.dtype == rows.dtype:
        return torch.baddbmm(onto, rows, matrix)
    return onto + rows @ matrix.to(rows.dtype)
