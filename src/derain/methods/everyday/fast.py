"""Everyday's restored picture without gradients, in less memory than `network.py` takes.

Rows of the picture stream through the network. A block takes the rows that arrive, holds back those whose
lower neighbours have not arrived yet, and passes on the rest; the rows of a skip connection wait until the
decoder reaches them. So no map is ever in memory as a whole, and every row is computed only once. Activations
and sums are computed while the results of the convolutions are still in the processor's registers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.everyday.network import FAINTEST, SHOWN, Block, Everyday
from derain.methods.network import Rows
from derain.nn.convolution import Convolution, laid_out_by_precision, mixed_precision
from derain.nn.halo_windows import Sides, conv, crop, crop_to, padding

# How many pixels of the finest level arrive at once, and in how many rows at least.
PIXELS = 1 << 17
LOWEST = 64


@dataclass(frozen=True)
class _Layers:
    """The convolutions of a block."""

    first: Convolution
    second: Convolution


@dataclass(frozen=True)
class _Blocks:
    """The blocks of each level, on the way down and up."""

    encoder: tuple[tuple[_Layers, ...], ...]
    decoder: tuple[tuple[_Layers, ...], ...]


@laid_out_by_precision
def _blocks(network: Everyday) -> _Blocks:
    return _Blocks(tuple(map(_layers, network.encoder)), tuple(map(_layers, network.decoder)))


def _layers(blocks: nn.Module) -> tuple[_Layers, ...]:
    assert isinstance(blocks, nn.Sequential)
    return tuple(
        _Layers(Convolution.like(block.first), Convolution.like(block.second))
        for block in blocks
        if isinstance(block, Block)
    )


class FastEveryday(Everyday):
    """`Everyday` whose results without gradients come from this file."""

    @torch.no_grad()
    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """As `plain`."""
        height, width = rainy.shape[2:]
        parts = self.in_bands(lambda first, end: rainy[:, :, first:end], height, width)
        if not self._flows(height, width):
            return next(parts)  # all rows at once, so that nothing is copied
        whole: dict[str, Tensor] = {}
        top = 0
        for part in parts:
            bottom = top + part["image"].shape[2]
            for name, value in part.items():
                if name not in whole:
                    whole[name] = value.new_empty((*value.shape[:2], height, width))
                whole[name][:, :, top:bottom] = value
            top = bottom
        return whole

    @torch.no_grad()
    def in_bands(
        self, rainy: Rows, height: int, width: int, with_maps: bool = True
    ) -> Iterator[dict[str, Tensor]]:
        """As `RainNetwork.in_bands`; for large pictures, memory grows only with the width."""
        self._refuse_size(height, width)
        top = 0
        for rain in self._rain(rainy, height, width):
            if not self.training:
                _keep_certain(rain)
            seen = rainy(top, top + rain.shape[2])
            found = {"image": seen - rain}
            if with_maps:
                found["mask"] = (SHOWN * rain.abs().mean(1, keepdim=True)).clamp(max=1)
            yield found
            top += rain.shape[2]

    def activation_bytes(self, height: int, width: int) -> int:
        """Those of `plain` for small pictures; else the result and `band_bytes`."""
        if not self._flows(height, width):
            return super().activation_bytes(height, width)
        return 16 * height * width + self.band_bytes(height, width)

    def band_bytes(self, height: int, width: int) -> int:
        """Those of `plain` for small pictures; else five maps of the finest level in the rows that arrive at
        once, and at each level the rows that wait, with three times as many in transit."""
        if not self._flows(height, width):
            return super().activation_bytes(height, width)
        assert self.spec.receptive_field is not None
        rows = _arriving(width)
        # The decoder lags behind the encoder by all rows that an output depends on below itself.
        late = rows + self.spec.receptive_field // 2
        waiting = sum(channels / 4 ** (level + 1) for level, channels in enumerate(self.widths))
        return int(4 * width * (5 * rows * self.widths[0] / 2 + 4 * late * waiting))

    def _flows(self, height: int, width: int) -> bool:
        return height * width > 8 * PIXELS and height // 2 > _arriving(width)

    def _rain(self, rainy: Rows, height: int, width: int) -> Iterator[Tensor]:
        """What the rain added, as successive rows."""
        levels, rows = len(self.widths), _arriving(width) if self._flows(height, width) else height // 2
        blocks = _blocks(self, mixed_precision(self.stem.weight.device.type))
        heights, skips = [height // 2 >> level for level in range(levels)], [_Waiting() for _ in self.down]
        x = self._stem(rainy, height // 2, rows)
        for level, down in enumerate(self.down):
            x = _through(blocks.encoder[level], x, heights[level])
            x = map(down, _even(skips[level].passing(x)))
        x = _through(blocks.encoder[-1], x, heights[-1])
        for level in reversed(range(levels - 1)):
            x = skips[level].added(map(self.up[level], x))
            x = _through(blocks.decoder[level], x, heights[level])
        for part in _flow(x, heights[0], 1, functools.partial(_same, self.head)):
            yield F.pixel_shuffle(part, 2)

    def _stem(self, rainy: Rows, height: int, rows: int) -> Iterator[Tensor]:
        kernel = _on_pixels(self.stem.weight)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            sides = Sides(top=top > 0, bottom=bottom < height)
            seen = rainy(2 * (top - sides.top), 2 * (bottom + sides.bottom))
            result = F.conv2d(seen, kernel, self.stem.bias, 2, padding(sides, 2))
            yield crop_to(result, seen[:, :, : bottom - top, ::2], sides)


def _through(blocks: tuple[_Layers, ...], x: Iterator[Tensor], height: int) -> Iterator[Tensor]:
    for block in blocks:
        x = _flow(x, height, 2, functools.partial(_block, block))
    return x


def _keep_certain(rain: Tensor) -> None:
    """`certain`, in place."""
    rain.clamp_(min=FAINTEST)
    rain.sub_(rain.reciprocal(), alpha=FAINTEST**2)


def _on_pixels(weight: Tensor) -> Tensor:
    """A kernel (C', 4 C, 3, 3) for a picture in half-size phases, as `F.pixel_unshuffle` cuts it, as one
    (C', C, 6, 6) for the picture itself, with a stride of 2."""
    phases = weight.unflatten(1, (-1, 2, 2))  # C', C, row and column of the phase, those of the kernel
    kernel: Tensor = phases.permute(0, 1, 4, 2, 5, 3).reshape(len(weight), -1, 6, 6)
    return kernel


def _arriving(width: int) -> int:
    """Rows of the finest level that arrive at once."""
    return max(PIXELS // width * 2 // 16 * 16, LOWEST)


def _block(block: _Layers, x: Tensor, sides: Sides) -> Tensor:
    """The rows of a block whose neighbours have arrived."""
    around, own = padding(sides, 1), crop(x, sides, 2)
    hidden = block.first(x, "relu", around)
    # Padded rows at an open end are wrong, and are cut off in the end.
    onto = own if sides.top and sides.bottom else x
    return crop_to(block.second.plus(onto, hidden, around), own, sides)


def _same(convolution: nn.Module, x: Tensor, sides: Sides) -> Tensor:
    """The rows of a 3x3 convolution whose neighbours have arrived."""
    assert isinstance(convolution, nn.Conv2d)
    result = conv(x, convolution.weight, convolution.bias, sides)
    return crop_to(result, crop(x, sides, 1), sides)


def _flow(
    parts: Iterator[Tensor], height: int, reach: int, step: Callable[[Tensor, Sides], Tensor]
) -> Iterator[Tensor]:
    """The parts of a map of `height` rows through a step whose rows depend on `reach` more on each side.

    Args:
        step: called with rows, of which `reach` on open sides are only neighbours; returns the others.
    """
    held, arrived, above = None, 0, False
    for part in parts:
        arrived += part.shape[2]
        seen = part if held is None else torch.cat((held, part), 2)
        sides = Sides(top=above, bottom=arrived < height)
        if sides.bottom and seen.shape[2] <= 2 * reach:
            held = seen
            continue
        held, above = seen[:, :, -2 * reach :].clone(), True
        made = [step(seen, sides)]
        del part, seen  # while this generator waits, nothing it refers to is freed
        yield made.pop()


def _even(parts: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same rows, in parts of even length."""
    odd = None
    for part in parts:
        seen = part if odd is None else torch.cat((odd, part), 2)
        count = seen.shape[2] // 2 * 2
        odd = seen[:, :, count:].clone() if count < seen.shape[2] else None
        made = [seen[:, :, :count]]
        del part, seen
        if count:
            yield made.pop()


class _Waiting:
    """Rows of a skip connection, kept from the encoder until the decoder reaches them."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def passing(self, parts: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same parts, remembered."""
        for part in parts:
            self._parts.append(part)
            del part
            yield self._parts[-1]

    def added(self, parts: Iterator[Tensor]) -> Iterator[Tensor]:
        """The parts with the remembered rows added, which are forgotten."""
        for part in parts:
            made = [part.add_(self._taken(part.shape[2]))]
            del part
            yield made.pop()

    def _taken(self, rows: int) -> Tensor:
        taken = []
        while rows:
            first = self._parts.pop(0)
            if first.shape[2] > rows:
                self._parts.insert(0, first[:, :, rows:])
                first = first[:, :, :rows]
            taken.append(first)
            rows -= first.shape[2]
        return taken[0] if len(taken) == 1 else torch.cat(taken, 2)
