"""Applies a network to pictures in memory: pads them, tiles large ones, averages and joins the results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from derain.errors import DerainError
from derain.methods.network import RainNetwork, Rows
from derain.nn.padding import padded_rows, round_up
from derain.notes import join_notes
from derain.restore import memory
from derain.restore.reduced import enlarged_rows, reduced, reduced_size, rows_at_once
from derain.restore.settings import Settings
from derain.restore.test_time import Position, join_phases, split_phases, turned, turned_back
from derain.restore.tiles import OVERLAP, Axis, even_axis, published_axis, run_tiles, tile_bands

# Pixels that neighbouring tiles share beyond the receptive field on either side, where that is bounded.
MARGIN = 8

Forward = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Restored:
    """Restored pictures, and maps that the network made on the way.

    Attributes:
        image: (B, 3, H, W) float32 RGB, clamped to [0, 1].
        maps: {"mask" or "uncertainty": (B, 1, H, W) float32}; empty if not requested.
        note: what a user should know about how it was done (tiles and why), or "".
        sideways: which pictures of the batch, counted from 0, were turned by 90 degrees for the network.
    """

    image: Tensor
    maps: Mapping[str, Tensor]
    note: str
    sideways: tuple[int, ...] = ()

    def part(self, at: int) -> Restored:
        """The picture at this position of the batch, counted from 0, as a batch of one."""
        maps = {name: values[at : at + 1] for name, values in self.maps.items()}
        return Restored(self.image[at : at + 1], maps, self.note, (0,) if at in self.sideways else ())


def joined(pictures: Sequence[Restored]) -> Restored:
    """Joins single pictures of the same size into a batch."""
    return Restored(
        torch.cat([one.image for one in pictures]),
        {name: torch.cat([one.maps[name] for one in pictures]) for name in pictures[0].maps},
        join_notes(*(one.note for one in pictures)),
        tuple(number for number, one in enumerate(pictures) if one.sideways),
    )


@dataclass(frozen=True)
class BandSource:
    """A picture (B, 3, height, width), float32 RGB in [0, 1], whose rows are produced on request."""

    height: int
    width: int
    rows: Rows
    _copies: dict[tuple[int, int], BandSource] = field(default_factory=dict, repr=False, compare=False)

    def reduced(self, height: int, width: int) -> BandSource:
        """A smaller copy of the picture, computed only once."""
        size = height, width
        if size not in self._copies:
            self._copies[size] = source_of(reduced(self.rows, self.height, size))
        return self._copies[size]


def source_of(pictures: Tensor) -> BandSource:
    """The source of pictures (B, 3, H, W) in memory."""
    height, width = pictures.shape[2:]
    return BandSource(height, width, lambda first, end: pictures[:, :, first:end])


@dataclass(frozen=True)
class Band:
    """Rows of a restored picture from `top` on, and of the rainy one; for the others see `Restored`."""

    top: int
    rainy: Tensor
    image: Tensor
    maps: Mapping[str, Tensor]
    note: str

    @property
    def bottom(self) -> int:
        """The last row + 1."""
        return self.top + self.image.shape[2]


@dataclass(frozen=True)
class Inference:
    """A network and how it is applied.

    Attributes:
        network: the network, in eval mode, on `device`.
        settings: only those for tiles, phases and sizes are used here.
        device: where it computes.
        turns: the positions of the picture over which results are averaged.
    """

    network: RainNetwork
    settings: Settings
    device: torch.device
    turns: Sequence[Position]

    def restore(
        self,
        rainy: Tensor,
        dtype: torch.dtype,
        with_maps: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Restored:
        """See `Derainer.restore`; the network computes in `dtype`."""
        if not torch.isfinite(rainy.sum()):  # in one pass, and without a tensor of booleans
            raise DerainError("the picture has values that are not finite.")
        if not self.settings.phases:
            return self._restore_batch(rainy, dtype, with_maps, progress)
        found = self._restore_batch(split_phases(rainy), dtype, with_maps, progress)
        size = rainy.shape[-2:]
        maps = {name: join_phases(value, *size) for name, value in found.maps.items()}
        return Restored(join_phases(found.image, *size), maps, found.note)

    def bands(
        self, source: BandSource, dtype: torch.dtype, with_maps: bool, progress: Callable[[int, int], None]
    ) -> Iterator[Band]:
        """As `restore`, for one picture that is read and returned in bands of rows.

        Bands run from top to bottom. If memory runs out, they start again at the top. Whatever needs the
        whole picture several times (phases, an average over turns) yields a single band.
        """
        if self.settings.phases:
            found = self.restore(source.rows(0, source.height), dtype, with_maps, progress)
            yield Band(0, source.rows(0, source.height), found.image, found.maps, found.note)
        else:
            yield from self._bands(source, dtype, with_maps, progress)

    def _bands(
        self, source: BandSource, dtype: torch.dtype, with_maps: bool, progress: Callable[[int, int], None]
    ) -> Iterator[Band]:
        small = self.at_working_size(source)
        if small is source:
            yield from self._bands_as_it_is(source, dtype, with_maps, progress)
            return
        height, width = source.height, source.width
        found = _gathered(small, self._bands_as_it_is(small, dtype, with_maps, progress))
        change = found.image - small.rows(0, small.height)
        count = rows_at_once(height, width)
        for top in range(0, height, count):
            bottom = min(top + count, height)
            rainy = source.rows(top, bottom)
            image = enlarged_rows(change, height, width, top, bottom).add_(rainy).clamp_(0, 1)
            maps = {
                name: enlarged_rows(value, height, width, top, bottom).clamp_(0, 1)
                for name, value in found.maps.items()
            }
            yield Band(top, rainy, image, maps, found.note)

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width at which the network sees a picture."""
        if self.settings.full_size or self.settings.phases:  # phases are already half as large
            return height, width
        return reduced_size(height, width, self.network.spec.working_side) or (height, width)

    def at_working_size(self, source: BandSource) -> BandSource:
        """The picture as the network sees it: reduced if it is large; see `derain.restore.reduced`."""
        size = self.seen_size(source.height, source.width)
        if size == (source.height, source.width):
            return source
        return source.reduced(*size)

    def _bands_as_it_is(
        self, source: BandSource, dtype: torch.dtype, with_maps: bool, progress: Callable[[int, int], None]
    ) -> Iterator[Band]:
        multiple = self.network.spec.multiple_of
        height, width = (round_up(side, multiple) for side in (source.height, source.width))
        padded = BandSource(height, width, padded_rows(source.rows, source.height, height, width))
        size, note = self._tile_size(height, width)
        while True:
            rows, columns = (self._axis(length, size) for length in (height, width))
            try:
                top = 0
                for outputs in self._run(padded, rows, columns, dtype, with_maps, progress):
                    yield self._finished(source, top, outputs, note)
                    top += outputs["image"].shape[2]
                return
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                tile = max(rows.spans[0][1], columns.spans[0][1])
                size = tile // 2 // multiple * multiple
                if size < max(memory.SMALLEST_TILE, multiple):
                    raise DerainError(
                        f"memory ran out even with tiles of {tile} pixels; close other programs."
                    ) from None
                note = f"memory ran out, continued with tiles of {size} pixels"
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _finished(self, source: BandSource, top: int, outputs: Mapping[str, Tensor], note: str) -> Band:
        """Rows of the network's outputs without the padding."""
        cut = {name: value[..., : source.height - top, : source.width] for name, value in outputs.items()}
        image = cut.pop("image").clamp_(0, 1)
        rainy = source.rows(top, top + image.shape[2])
        return Band(top, rainy, image, cut, note)

    def _restore_batch(
        self, rainy: Tensor, dtype: torch.dtype, with_maps: bool, progress: Callable[[int, int], None]
    ) -> Restored:
        count = self._together(rainy.shape[2], rainy.shape[3]) if len(rainy) > 1 else 1
        parts = [rainy[first : first + count] for first in range(0, len(rainy), count)]

        done = []
        for number, part in enumerate(parts):

            def tell(tiles: int, total: int, number: int = number) -> None:
                progress(number * total + tiles, len(parts) * total)

            done.append(self._restore_part(part, dtype, with_maps, tell))
        return done[0] if len(done) == 1 else joined(done)

    def _restore_part(
        self, rainy: Tensor, dtype: torch.dtype, with_maps: bool, progress: Callable[[int, int], None]
    ) -> Restored:
        source = source_of(rainy)
        return _gathered(source, self._bands(source, dtype, with_maps, progress))

    def _together(self, height: int, width: int) -> int:
        """How many pictures of one size may go through the network at once."""
        multiple = self.network.spec.multiple_of
        height, width = (round_up(side, multiple) for side in self.seen_size(height, width))
        size, _ = self._tile_size(height, width)
        each = self.network.activation_bytes(min(size, height), min(size, width))
        return max(1, memory.budget(self.device) // max(1, each))

    def _tile_size(self, height: int, width: int) -> tuple[int, str]:
        """Side of a tile for a padded picture, and what to tell the user."""
        published = self.network.spec.tile
        if self.settings.tile is not None:
            return self.settings.tile or max(height, width), ""
        if published is not None:
            return published.size, ""
        size = memory.fitting_tile(self.network, height, width, memory.budget(self.device))
        if size is None:
            return max(height, width), ""
        return size, f"too large for memory in one piece, restored in tiles of at most {size} pixels"

    def _axis(self, length: int, size: int) -> Axis:
        spec, wanted = self.network.spec, self.settings.overlap
        if spec.tile is not None:
            return published_axis(length, size, spec.tile.overlap if wanted is None else wanted)
        radius = spec.receptive_field
        if wanted is None:
            wanted = OVERLAP if radius is None else 2 * (radius + MARGIN)
        overlap = min(wanted, size // 2)
        wide_enough = radius is not None and overlap >= 2 * radius
        return even_axis(length, size, overlap, spec.multiple_of, hard_cut=wide_enough)

    def _run(
        self,
        padded: BandSource,
        rows: Axis,
        columns: Axis,
        dtype: torch.dtype,
        with_maps: bool,
        progress: Callable[[int, int], None],
    ) -> Iterator[dict[str, Tensor]]:
        """Outputs of the network in bands, from the top to the bottom."""
        if len(self.turns) > 1:
            picture = padded.rows(0, padded.height)
            yield self._averaged(picture, rows, columns, self._forward(with_maps, dtype), progress)
        elif len(rows.spans) == len(columns.spans) == 1:
            yield from self._in_bands(padded, with_maps, dtype, progress)
        else:
            yield from tile_bands(padded.rows, self._forward(with_maps, dtype), rows, columns, progress)

    def _averaged(
        self,
        picture: Tensor,
        rows: Axis,
        columns: Axis,
        forward: Forward,
        progress: Callable[[int, int], None],
    ) -> dict[str, Tensor]:
        turns = self.turns
        total: dict[str, Tensor] = {}
        for number, position in enumerate(turns):
            axes = (columns, rows) if position[0] % 2 else (rows, columns)

            def count(done: int, tiles: int, number: int = number) -> None:
                progress(number * tiles + done, len(turns) * tiles)

            seen = turned(picture, position)
            for name, value in run_tiles(seen, forward, *axes, count).items():
                back = turned_back(value, position)
                total[name] = total[name].add_(back) if name in total else back
        return {name: value / len(turns) for name, value in total.items()}

    def _forward(self, with_maps: bool, dtype: torch.dtype) -> Forward:
        def run(tile: Tensor) -> Mapping[str, Tensor]:
            tile = self._placed(tile)
            with torch.no_grad(), self._precision(dtype):
                if not with_maps:
                    return {"image": self.network(tile).cpu()}
                found = self.network.outputs(tile)
                return {name: found[name].cpu() for name in self._names(with_maps)}

        return run

    def _in_bands(
        self, padded: BandSource, with_maps: bool, dtype: torch.dtype, progress: Callable[[int, int], None]
    ) -> Iterator[dict[str, Tensor]]:
        bands = self.network.in_bands(
            lambda first, end: self._placed(padded.rows(first, end)), padded.height, padded.width, with_maps
        )
        done = 0
        while True:
            with torch.no_grad(), self._precision(dtype):  # not around `yield`: the caller runs there
                found = next(bands, None)
            if found is None:
                return
            first, done = done, done + found["image"].shape[2]
            yield {name: found[name].cpu().float() for name in self._names(with_maps)}
            progress(*((done, padded.height) if first or done < padded.height else (1, 1)))

    def _names(self, with_maps: bool) -> tuple[str, ...]:
        return ("image", *self.network.spec.maps) if with_maps else ("image",)

    def _placed(self, picture: Tensor) -> Tensor:
        return picture.to(self.device).contiguous(memory_format=torch.channels_last)

    def _precision(self, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
        mixed = dtype is not torch.float32
        return torch.autocast(self.device.type, dtype) if mixed else contextlib.nullcontext()


def _gathered(source: BandSource, bands: Iterator[Band]) -> Restored:
    """Joins all bands of a picture."""
    whole: dict[str, Tensor] = {}
    note = ""
    for band in bands:
        note = band.note
        for name, value in {"image": band.image, **band.maps}.items():
            if band.image.shape[2] == source.height:
                whole[name] = value
                continue
            if name not in whole:
                whole[name] = value.new_empty((*value.shape[:2], source.height, source.width))
            whole[name][:, :, band.top : band.bottom] = value
    return Restored(whole.pop("image"), whole, note)
