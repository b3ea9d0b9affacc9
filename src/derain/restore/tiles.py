"""Cutting a picture into overlapping tiles and joining the results without a seam."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.methods.network import Rows
from derain.nn.padding import round_up

Span = tuple[int, int]  # (first, last + 1) along one axis

OVERLAP = 128  # pixels that neighbouring tiles share where a network depends on the whole picture


@dataclass(frozen=True)
class Axis:
    """The tiles along one axis and the weight of each of their pixels.

    Attributes:
        spans: (first, last + 1) of each tile, increasing; together they cover the axis.
        weights: one float32 tensor per tile; at every pixel the weights of all tiles sum to 1.
    """

    spans: tuple[Span, ...]
    weights: tuple[Tensor, ...]


def even_axis(length: int, size: int, overlap: int, multiple: int, hard_cut: bool) -> Axis:
    """Tiles of equal size, as few as possible.

    Args:
        length: of the axis, a multiple of `multiple`.
        size: the largest tile allowed.
        overlap: the fewest pixels that neighbours share.
        multiple: sizes and starts of tiles are multiples of this, so that a network that downsamples sees
            every pixel in the same phase as in the whole picture.
        hard_cut: True: one tile takes over from the other in the middle of their overlap, which must be wide
            enough for both to be exact there. False: no pixel is quite exact, so the outer quarters of the
            overlap are dropped and the rest is blended.
    """
    size = max(size // multiple * multiple, multiple)
    if size >= length:
        return Axis(((0, length),), (torch.ones(length),))
    overlap = min(round_up(overlap, multiple), size - multiple)
    count = -(-(length - overlap) // (size - overlap))
    units = length // multiple
    size = -(-(units + (count - 1) * overlap // multiple) // count) * multiple
    starts = [round(i * (length - size) / (count - 1) / multiple) * multiple for i in range(count)]
    spans = tuple((start, start + size) for start in starts)
    weights = [torch.ones(size) for _ in spans]
    for i, ((_, end), (start, _)) in enumerate(itertools.pairwise(spans)):
        ramp = _ramp(end - start, hard_cut)
        weights[i][size - len(ramp) :] *= 1 - ramp
        weights[i + 1][: len(ramp)] *= ramp
    # With much overlap three tiles share a pixel, and the products of ramps no longer sum to 1.
    total = torch.zeros(length)
    for (start, end), weight in zip(spans, weights, strict=True):
        total[start:end] += weight
    return Axis(spans, tuple(w / total[start:end] for w, (start, end) in zip(weights, spans, strict=True)))


def _ramp(shared: int, hard_cut: bool) -> Tensor:
    """Weight of the later tile over the pixels that two tiles share: 0 first, 1 last."""
    position = torch.arange(shared, dtype=torch.float32) + 0.5
    if hard_cut:
        return (position > shared / 2).float()
    outer = shared / 4
    return ((position - outer) / (shared - 2 * outer)).clamp(0, 1)


def published_axis(length: int, size: int, overlap: int) -> Axis:
    """Tiles as the test scripts of this field cut them: one every size - overlap pixels, the last one flush
    with the edge; where tiles share pixels their results are averaged with equal weight."""
    size = min(size, length)
    starts = [*range(0, length - size, max(size - overlap, 1)), length - size]
    counts = torch.zeros(length)
    for start in starts:
        counts[start : start + size] += 1
    return Axis(
        tuple((start, start + size) for start in starts),
        tuple(1 / counts[start : start + size] for start in starts),
    )


def run_tiles(
    picture: Tensor,
    network: Callable[[Tensor], Mapping[str, Tensor]],
    rows: Axis,
    columns: Axis,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Tensor]:
    """Runs a network on every tile of a picture and adds up the weighted results.

    Args:
        picture: (1, C, H, W).
        network: maps a tile (1, C, h, w) to named maps of its size, (1, any channels, h, w).
        rows, columns: the tiles along both axes.
        progress: called after each tile with the number of finished tiles and their total.

    Returns:
        The maps at full size, float32 on the picture's device.
    """
    bands = tile_bands(lambda first, end: picture[:, :, first:end], network, rows, columns, progress)
    found = list(bands)
    return {
        name: torch.cat([band[name] for band in found], 2) if found[1:] else found[0][name]
        for name in found[0]
    }


def tile_bands(
    picture: Rows,
    network: Callable[[Tensor], Mapping[str, Tensor]],
    rows: Axis,
    columns: Axis,
    progress: Callable[[int, int], None],
) -> Iterator[dict[str, Tensor]]:
    """As `run_tiles`, in bands from top to bottom: the rows that no further tile touches.

    Args:
        picture: returns rows of the picture.
        network, rows, columns, progress: see `run_tiles`.
    """
    done, total = 0, len(rows.spans) * len(columns.spans)
    width = columns.spans[-1][1]
    ends = [*(first for first, _ in rows.spans[1:]), rows.spans[-1][1]]
    canvas: dict[str, Tensor] = {}
    for (top, bottom), vertical, end in zip(rows.spans, rows.weights, ends, strict=True):
        seen = picture(top, bottom)
        canvas = {
            name: F.pad(value, (0, 0, 0, bottom - top - value.shape[2])) for name, value in canvas.items()
        }
        for (left, right), horizontal in zip(columns.spans, columns.weights, strict=True):
            weight = vertical[:, None] * horizontal
            for name, tile in network(seen[..., left:right]).items():
                if total == 1:
                    canvas[name] = tile.float()
                    continue
                if name not in canvas:
                    shape = (*tile.shape[:2], bottom - top, width)
                    canvas[name] = seen.new_zeros(shape, dtype=torch.float32)
                canvas[name][..., left:right].add_(tile.float() * weight.to(tile.device))
            done += 1
            progress(done, total)
        yield {name: value[:, :, : end - top] for name, value in canvas.items()}
        canvas = {name: value[:, :, end - top :] for name, value in canvas.items()}
