"""A network applied to pictures in memory: padded, cut into tiles where they are large, averaged, joined."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from derain.errors import DerainError
from derain.methods.network import RainNetwork
from derain.restore import memory
from derain.restore.settings import Settings
from derain.restore.test_time import Position, join_phases, split_phases, turned, turned_back
from derain.restore.tiles import Axis, even_axis, pad_to, published_axis, run_tiles

# Shared pixels of neighbouring tiles for networks that look at the whole picture.
OVERLAP = 128
# Pixels that a bounded network's neighbours share beyond its receptive field on either side.
MARGIN = 8

Forward = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Restored:
    """Restored pictures and the maps that the network made on the way.

    Attributes:
        image: (B, 3, H, W) float32 RGB, clamped to [0, 1].
        maps: {"mask" or "uncertainty": (B, 1, H, W) float32}; empty when not asked for.
        note: what a user should know of how it was done (tiles and why), or "".
    """

    image: Tensor
    maps: Mapping[str, Tensor]
    note: str


@dataclass(frozen=True)
class Inference:
    """A network with all that decides how it is applied.

    Attributes:
        network: in eval mode, on `device`.
        settings: of tiles, phases and strength.
        device: what it computes on.
        turns: positions of the picture whose results are averaged.
    """

    network: RainNetwork
    settings: Settings
    device: torch.device
    turns: Sequence[Position]

    def restore(
        self, rainy: Tensor, dtype: torch.dtype, with_maps: bool, progress: Callable[[int, int], None]
    ) -> Restored:
        """See `Derainer.restore`; the network computes in `dtype`."""
        if not torch.isfinite(rainy.sum()):  # in one pass, and without a map of answers
            raise DerainError("the picture holds values that are not finite.")
        forward = self._forward(with_maps, dtype)
        if not self.settings.phases:
            return self._restore_batch(rainy, forward, progress)
        found = self._restore_batch(split_phases(rainy), forward, progress)
        size = rainy.shape[-2:]
        maps = {name: join_phases(value, *size) for name, value in found.maps.items()}
        return Restored(join_phases(found.image, *size), maps, found.note)

    def _restore_batch(
        self, rainy: Tensor, forward: Forward, progress: Callable[[int, int], None]
    ) -> Restored:
        count = self._together(rainy.shape[2], rainy.shape[3]) if len(rainy) > 1 else 1
        parts = [rainy[first : first + count] for first in range(0, len(rainy), count)]

        done = []
        for number, part in enumerate(parts):

            def tell(tiles: int, total: int, number: int = number) -> None:
                progress(number * total + tiles, len(parts) * total)

            done.append(self._restore_part(part, forward, tell))
        if len(done) == 1:
            return done[0]
        maps = {name: torch.cat([part.maps[name] for part in done]) for name in done[0].maps}
        notes = dict.fromkeys(part.note for part in done if part.note)
        return Restored(torch.cat([part.image for part in done]), maps, "; ".join(notes))

    def _together(self, height: int, width: int) -> int:
        """How many pictures of a size may go through the network at once."""
        multiple = self.network.spec.multiple_of
        height, width = (-(-side // multiple) * multiple for side in (height, width))
        size, _ = self._tile_size(height, width)
        each = self.network.activation_bytes(min(size, height), min(size, width))
        return max(1, memory.budget(self.device) // max(1, each))

    def _restore_part(
        self, rainy: Tensor, forward: Forward, progress: Callable[[int, int], None]
    ) -> Restored:
        height, width = rainy.shape[2:]
        multiple = self.network.spec.multiple_of
        padded = pad_to(rainy, -(-height // multiple) * multiple, -(-width // multiple) * multiple)
        size, note = self._tile_size(padded.shape[2], padded.shape[3])
        while True:
            rows, columns = (self._axis(length, size) for length in padded.shape[2:])
            try:
                outputs = self._run(padded, rows, columns, forward, progress)
                break
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                tile = max(rows.spans[0][1], columns.spans[0][1])
                size = tile // 2 // multiple * multiple
                if size < max(memory.SMALLEST_TILE, multiple):
                    raise DerainError(
                        f"memory ran out even with tiles of {tile} pixels; close other programs."
                    ) from None
                note = f"memory ran out, went on with tiles of {size} pixels"
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        cut = {name: value[..., :height, :width] for name, value in outputs.items()}
        image = cut.pop("image").clamp_(0, 1)
        if self.settings.strength != 1:
            image = torch.lerp(rainy.to(image), image, self.settings.strength).clamp_(0, 1)
        return Restored(image, cut, note)

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
        return size, f"too large for memory in one piece, took tiles of at most {size} pixels"

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
        return {name: value / len(turns) for name, value in total.items()} if len(turns) > 1 else total

    def _forward(self, with_maps: bool, dtype: torch.dtype) -> Forward:
        def run(tile: Tensor) -> Mapping[str, Tensor]:
            tile = tile.to(self.device).contiguous(memory_format=torch.channels_last)
            mixed = dtype is not torch.float32
            precision: contextlib.AbstractContextManager[Any] = (
                torch.autocast(self.device.type, dtype) if mixed else contextlib.nullcontext()
            )
            with torch.no_grad(), precision:
                if not with_maps:
                    return {"image": self.network(tile).cpu()}
                found = self.network.outputs(tile)
                return {name: found[name].cpu() for name in ("image", *self.network.spec.maps)}

        return run
