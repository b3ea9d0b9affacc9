"""SPANet without gradients: the same numbers in place, and strip by strip on large pictures.

Horizontal sweeps run on the transposed picture, where the convolution after them is applied with
transposed kernels; so both sweeps of an axis are adjacent in memory, and nothing is joined.

Ordinary tiles are wrong for this network, because a sweep has an unlimited receptive field. Everything
else is local, so a large picture is processed in strips. The state of a vertical sweep is handed from
strip to strip; since a strip needs the sweep from below and the one from above at the same time,
earlier passes store one row of states per strip. That costs about half as much again in arithmetic as
the whole picture at once, and needs a tenth of the memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.spanet.attention import IRNN, SpatialAttention, Sweep
from derain.nn.irnn import sweep, sweep_both

# Pictures of more pixels are restored in strips of rows.
LARGE = 1 << 20
BLOCK_ROWS = 2  # that a residual block looks up and down


class RowRange(NamedTuple):
    """Rows first .. last - 1 of the picture."""

    first: int
    last: int


def strips_of(height: int, width: int) -> list[RowRange]:
    """The picture as one strip, or strips of about a quarter of a megapixel if it is large; those have
    at least 16 rows each unless the picture is lower."""
    if height * width <= LARGE:
        return [RowRange(0, height)]
    count = -(-height // max(32, (1 << 18) // width))
    edges = [round(number * height / count) for number in range(count + 1)]
    return [RowRange(first, last) for first, last in itertools.pairwise(edges)]


def over_strips(layer: Callable[[Tensor], Tensor], x: Tensor, strips: Sequence[RowRange]) -> Tensor:
    """A layer that looks one row up and down, (B, C, H, W) -> (B, C', H, W)."""
    if len(strips) == 1:
        return layer(x)
    result: Tensor | None = None
    for strip in strips:
        part = _local(layer, x, strip)
        if result is None:
            shape = (*part.shape[:2], *x.shape[2:])
            result = torch.empty(
                shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last
            )
        result[:, :, strip.first : strip.last] = part
    assert result is not None
    return result


def run_blocks(
    blocks: Sequence[nn.Module], f: Tensor, mask: Tensor | None, strips: Sequence[RowRange]
) -> Tensor:
    """Residual blocks in turn, each scaled by the mask (B, 1, H, W) if there is one; f may be overwritten."""
    if len(strips) == 1:
        return _in_turn(blocks, f, mask)
    halo, height = BLOCK_ROWS * len(blocks), f.shape[2]
    above = f[:, :, :0]  # rows that the strip before has replaced but this one still needs
    for strip in strips:
        have = _grown(strip, halo, height)
        part = torch.cat([above, f[:, :, strip.first : have.last]], 2)
        above = f[:, :, strip.last - halo : strip.last].clone()
        scale = None if mask is None else mask[:, :, have.first : have.last]
        f[:, :, strip.first : strip.last] = _cut(_in_turn(blocks, part, scale), have, strip)
    return f


def _in_turn(blocks: Sequence[nn.Module], f: Tensor, mask: Tensor | None) -> Tensor:
    for block in blocks:
        branch = block(f)
        f = (branch.add_(f) if mask is None else torch.addcmul(f, branch, mask)).relu_()
    return f


def attention(sam: SpatialAttention, f: Tensor, strips: Sequence[RowRange]) -> Tensor:
    """The map of the SAM, (B, 1, H, W)."""
    height = f.shape[2]

    def first_up(number: int, below: Tensor | None) -> Tensor:
        rows = _moved(strips[number], 2, height)
        return _vertical(sam.irnn1.up_weight, _local(sam.conv_in, f, rows), below)

    def first_down(number: int, above: Tensor | None) -> Tensor:
        rows = _moved(strips[number], -2, height)
        return _vertical(sam.irnn1.down_weight, _local(sam.conv_in, f, rows), above)

    def between(number: int) -> Tensor:
        """What the second sweeps start from, for a strip and one row on either side of it."""
        want = _grown(strips[number], 1, height)
        have = _grown(want, 1, height)
        sweeps = _sweeps(sam.irnn1, _local(sam.conv_in, f, have), below[number], above[number])
        return _cut(_conv_of(sweeps, sam.conv2.weight), have, want)

    def second_up(number: int, below: Tensor | None) -> Tensor:
        have, want = _grown(strips[number], 1, height), _moved(strips[number], 1, height)
        return _vertical(sam.irnn2.up_weight, _cut(between(number), have, want), below)

    last = len(strips) - 1
    below: list[Tensor | None] = [None] * len(strips)
    above: list[Tensor | None] = [None] * len(strips)
    for number in range(last, 0, -1):
        below[number - 1] = first_up(number, below[number])[:, :, :1].clone()
    for number in range(last):
        above[number + 1] = first_down(number, above[number])[:, :, -1:].clone()
    below2: list[Tensor | None] = [None] * len(strips)
    above2: Tensor | None = None
    for number in range(last, 0, -1):
        below2[number - 1] = second_up(number, below2[number])[:, :, :1].clone()
    maps = []
    for number, strip in enumerate(strips):
        have = _grown(strip, 1, height)
        sweeps = _sweeps(sam.irnn2, between(number), below2[number], above2)
        if number < last:
            down = sweeps[0].chunk(2, 1)[1]
            above2 = _cut(down, have, RowRange(strip.last - 2, strip.last - 1)).clone()
        c = _cut(_conv_of(sweeps, sam.conv3.weight), have, strip)
        maps.append(torch.sigmoid(sam.conv_out(c.relu_())))
    return torch.cat(maps, 2)


def _sweeps(irnn: IRNN, x: Tensor, below: Tensor | None, above: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sweeps of (B, C, H, W): [up, down] as (B, 2C, H, W), [left, right] as (B, 2C, W, H).

    `below` and `above`, each (B, C, 1, W), are the up state of the row below x and the down state of
    the row above it, when x is a strip of a larger picture.
    """
    vertical = _both(irnn.up_weight, irnn.down_weight, x, below, above)
    return vertical, _both(irnn.left_weight, irnn.right_weight, x.transpose(2, 3), None, None)


def _both(backward: Sweep, forward: Sweep, x: Tensor, after: Tensor | None, before: Tensor | None) -> Tensor:
    """Both sweeps along the columns of x, side by side."""
    weights = backward.weight.flatten(), forward.weight.flatten()
    h = sweep_both(_channels_last(x), weights, (backward.bias, forward.bias), (_state(after), _state(before)))
    return h.permute(0, 3, 1, 2).to(x.dtype)


def _vertical(layer: Sweep, x: Tensor, before: Tensor | None) -> Tensor:
    """One vertical sweep of x that continues the state `before`; same shape."""
    h = sweep(_channels_last(x), layer.weight.flatten(), layer.bias, layer.reverse, _state(before))
    return h.permute(0, 3, 1, 2).to(x.dtype)


def _state(row: Tensor | None) -> Tensor | None:
    """(B, C, 1, W) -> (B, W, C)."""
    return None if row is None else _channels_last(row)[:, 0]


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), what `nn.irnn` sweeps."""
    return x.permute(0, 2, 3, 1)


def _conv_of(sweeps: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
    """3x3 convolution of concat[up, right, down, left] without making that tensor.

    Args:
        sweeps: of `_sweeps`.
        weight: (C, 4C, 3, 3).
    """
    vertical, horizontal = sweeps
    up, right, down, left = weight.chunk(4, 1)
    upright = F.conv2d(vertical, torch.cat([up, down], 1), padding=1)
    lying = F.conv2d(horizontal, torch.cat([left, right], 1).transpose(2, 3), padding=1)
    return upright.add_(lying.transpose(2, 3))


def _local(layer: Callable[[Tensor], Tensor], x: Tensor, want: RowRange) -> Tensor:
    """The wanted rows of a layer that looks one row up and down."""
    have = _grown(want, 1, x.shape[2])
    return _cut(layer(x[:, :, have.first : have.last]), have, want)


def _grown(rows: RowRange, by: int, height: int) -> RowRange:
    return RowRange(max(rows.first - by, 0), min(rows.last + by, height))


def _moved(rows: RowRange, by: int, height: int) -> RowRange:
    """Rows further down by `by`; those at the picture's edges stay at the edges."""
    first = 0 if rows.first == 0 else rows.first + by
    return RowRange(first, height if rows.last == height else rows.last + by)


def _cut(x: Tensor, have: RowRange, want: RowRange) -> Tensor:
    """The wanted rows of x, which holds the rows that we have."""
    return x[:, :, want.first - have.first : want.last - have.first]
