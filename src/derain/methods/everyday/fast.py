"""Everyday's restored picture without gradients, in less memory than `network.py` takes.

A level of the network is done in bands of rows as wide as the picture. A band sees as many rows beyond
its own as its convolutions do, so that the result is that of the whole picture; what lies between the
convolutions of a level is never there for more than one band.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.everyday.network import SHOWN, Everyday

# Of a level in a band, without the rows that it sees beyond: as many as make those a small share.
PIXELS = 1 << 18


class FastEveryday(Everyday):
    """`Everyday` whose results without gradients come from this file."""

    @torch.no_grad()
    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """As `plain`."""
        if rainy.shape[2] * rainy.shape[3] <= 4 * PIXELS:
            return self.plain(rainy)  # one band, and nothing to copy
        x, skips = rainy, []
        for level, down in enumerate(self.down):
            skip, x = self._encoded(level, x, down)
            skips.append(skip)
        x = self.encoder[-1](x)
        for level in range(len(self.up) - 1, 0, -1):
            x = self._decoded(level, x, skips.pop())
        return self._restored(rainy, x, skips.pop())

    def activation_bytes(self, height: int, width: int) -> int:
        """Those of `plain` for small pictures; else a map of the finest level and two of every other, four
        in a band, and the picture twice."""
        pixels = height * width
        if pixels <= 4 * PIXELS:
            return super().activation_bytes(height, width)
        finest, *others = (channels / 4 ** (level + 1) for level, channels in enumerate(self.widths))
        return int(4 * ((finest + 2 * sum(others) + 6) * pixels + 4 * self.widths[0] * PIXELS))

    def _encoded(self, level: int, x: Tensor, down: nn.Module) -> tuple[Tensor, Tensor]:
        """What a level hands over to the decoder, and to the next level; at level 0, of the picture."""
        blocks = _sequence(self.encoder[level])
        scale = 1 if level else 2
        skips, coarser = _Rows(), _Rows()
        for band in _bands(x.shape[2] // scale, x.shape[3] // scale, 2 * len(blocks) + (not level)):
            seen = x[:, :, scale * band.first : scale * band.end]
            if not level:
                seen = self.stem(F.pixel_unshuffle(seen, 2))
            part = blocks(seen)[:, :, band.kept]
            skips.add(part, band.height)
            coarser.add(down(part), band.height // 2)
        return skips.whole, coarser.whole

    def _decoded(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        """What a level of the decoder makes of the coarser one and of what the encoder handed over."""
        blocks, result = _sequence(self.decoder[level]), _Rows()
        for band in _bands(skip.shape[2], skip.shape[3], 2 * len(blocks)):
            result.add(blocks(self._joined(level, x, skip, band))[:, :, band.kept], band.height)
        return result.whole

    def _restored(self, rainy: Tensor, x: Tensor, skip: Tensor) -> dict[str, Tensor]:
        blocks, image, mask = _sequence(self.decoder[0]), _Rows(), _Rows()
        for band in _bands(skip.shape[2], skip.shape[3], 2 * len(blocks) + 1):
            rain = self.head(blocks(self._joined(0, x, skip, band)))[:, :, band.kept]
            rain = F.pixel_shuffle(rain, 2)
            rows = slice(2 * (band.first + band.kept.start), 2 * (band.first + band.kept.stop))
            image.add(rainy[:, :, rows] - rain, 2 * band.height)
            mask.add((SHOWN * rain.abs().mean(1, keepdim=True)).clamp(max=1), 2 * band.height)
        return {"image": image.whole, "mask": mask.whole}

    def _joined(self, level: int, x: Tensor, skip: Tensor, band: Band) -> Tensor:
        coarse = x[:, :, band.first // 2 : band.end // 2]
        joined: Tensor = self.up[level](coarse) + skip[:, :, band.first : band.end]
        return joined


def _sequence(blocks: nn.Module) -> nn.Sequential:
    assert isinstance(blocks, nn.Sequential)
    return blocks


@dataclass(frozen=True)
class Band:
    """Rows of a level; all counts are even, because two rows become one of the next level.

    Attributes:
        first, end: of the rows that it sees.
        kept: those of them that are its own.
        height: of the whole level.
    """

    first: int
    end: int
    kept: slice
    height: int


def _bands(height: int, width: int, reach: int) -> Iterator[Band]:
    """Bands of even numbers of rows that cover a level, each with at least `reach` rows beyond."""
    rows = max(2, PIXELS // width // 2 * 2)
    beyond = reach + reach % 2
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, end = max(top - beyond, 0), min(bottom + beyond, height)
        yield Band(first, end, slice(top - first, bottom - first), height)


class _Rows:
    """A map that is filled from above; `whole` once it is full."""

    def __init__(self) -> None:
        self._filled = 0

    def add(self, part: Tensor, height: int) -> None:
        """The next rows of a map that is `height` rows high."""
        if not self._filled:
            shape = (*part.shape[:2], height, part.shape[3])
            layout = torch.channels_last
            self.whole = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=layout)
        self.whole[:, :, self._filled : self._filled + part.shape[2]] = part
        self._filled += part.shape[2]
