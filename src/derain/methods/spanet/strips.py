"""SPANet on large pictures: the same numbers from one feature map and a few strips of rows.

Ordinary tiles are wrong here, because a sweep has unlimited reach. Everything else is local, so
the picture is worked off in strips. The state of a vertical sweep is handed from strip to strip;
since a strip needs the sweep from below and the one from above at the same time, earlier passes
store one row of states per strip. That costs about half as much again in arithmetic as the whole
picture at once, and needs a tenth of the memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from derain.methods.spanet.attention import SpatialAttention, conv_of_sweeps

if TYPE_CHECKING:
    from derain.methods.spanet.network import SPANet


class Rows(NamedTuple):
    """Rows first .. last - 1 of the picture."""

    first: int
    last: int


def strips_of(height: int, width: int) -> list[Rows]:
    """Strips of about a quarter of a megapixel, at least 16 rows each unless the picture is lower."""
    count = -(-height // max(32, (1 << 18) // width))
    edges = [round(number * height / count) for number in range(count + 1)]
    return [Rows(first, last) for first, last in itertools.pairwise(edges)]


def restore(network: SPANet, rainy: Tensor) -> tuple[Tensor, Tensor]:
    """The restored picture (B, 3, H, W) and the first rain map (B, 1, H, W); without gradients."""
    batch, _, height, width = rainy.shape
    strips = strips_of(height, width)
    kind = (
        torch.get_autocast_dtype(rainy.device.type)
        if torch.is_autocast_enabled(rainy.device.type)
        else rainy.dtype
    )
    f = torch.empty(
        (batch, network.width, height, width),
        dtype=kind,
        device=rainy.device,
        memory_format=torch.channels_last,
    )
    for strip in strips:
        f[:, :, strip.first : strip.last] = _local(network.features, rainy, strip)
    first_mask = None
    for group in network.groups:
        mask = _attention(network.SAM1, f, strips) if group in network.attentive else None
        _apply_blocks(network, f, strips, group, mask)
        first_mask = mask if first_mask is None else first_mask
    assert first_mask is not None
    return torch.cat([_local(network.image, f, strip) for strip in strips], 2), first_mask


def _apply_blocks(network: SPANet, f: Tensor, strips: list[Rows], group: range, mask: Tensor | None) -> None:
    """Runs a group of blocks over f in place; each block reaches two rows."""
    halo, height = 2 * len(group), f.shape[2]
    above = f[:, :, :0]  # rows that the strip before has replaced but this one still needs
    for strip in strips:
        have = _grown(strip, halo, height)
        block = torch.cat([above, f[:, :, strip.first : have.last]], 2)
        above = f[:, :, strip.last - halo : strip.last].clone()
        part = None if mask is None else mask[:, :, have.first : have.last]
        f[:, :, strip.first : strip.last] = _cut(network.blocks(block, group, part), have, strip)


def _attention(sam: SpatialAttention, f: Tensor, strips: list[Rows]) -> Tensor:
    """The map of the SAM, (B, 1, H, W)."""
    height = f.shape[2]

    def first_up(number: int, below: Tensor | None) -> Tensor:
        return sam.irnn1.sweep(_local(sam.conv_in, f, _moved(strips[number], 2, height)), "up", below)

    def first_down(number: int, above: Tensor | None) -> Tensor:
        return sam.irnn1.sweep(_local(sam.conv_in, f, _moved(strips[number], -2, height)), "down", above)

    def between(number: int) -> Tensor:
        """What the second sweeps start from, for a strip and one row on either side of it."""
        want = _grown(strips[number], 1, height)
        have = _grown(want, 1, height)
        sweeps = sam.irnn1(_local(sam.conv_in, f, have), below[number], above[number])
        return _cut(conv_of_sweeps(sweeps, sam.conv2.weight), have, want)

    def second_up(number: int, below: Tensor | None) -> Tensor:
        have, want = _grown(strips[number], 1, height), _moved(strips[number], 1, height)
        return sam.irnn2.sweep(_cut(between(number), have, want), "up", below)

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
        sweeps = sam.irnn2(between(number), below2[number], above2)
        down = sweeps[0].chunk(2, 1)[1]
        above2 = _cut(down, have, Rows(strip.last - 2, strip.last - 1)).clone()
        maps.append(sam.map_of(_cut(conv_of_sweeps(sweeps, sam.conv3.weight), have, strip)))
    return torch.cat(maps, 2)


def _local(layer: Callable[[Tensor], Tensor], x: Tensor, want: Rows) -> Tensor:
    """The wanted rows of a layer that reaches one row."""
    have = _grown(want, 1, x.shape[2])
    return _cut(layer(x[:, :, have.first : have.last]), have, want)


def _grown(rows: Rows, by: int, height: int) -> Rows:
    return Rows(max(rows.first - by, 0), min(rows.last + by, height))


def _moved(rows: Rows, by: int, height: int) -> Rows:
    """Rows further down by `by`; those at the picture's edges stay at the edges."""
    first = 0 if rows.first == 0 else rows.first + by
    return Rows(first, height if rows.last == height else rows.last + by)


def _cut(x: Tensor, have: Rows, want: Rows) -> Tensor:
    """The wanted rows of x, which holds the rows that we have."""
    return x[:, :, want.first - have.first : want.last - have.first]
