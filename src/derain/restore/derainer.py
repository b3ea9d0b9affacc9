"""`Derainer`: the main job in Python. A picture of any kind and size in, the same kind back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from derain.checkpoints import Checkpoint, open_checkpoint
from derain.checkpoints.bundled import find
from derain.errors import DerainError, UsageError
from derain.export import is_exported
from derain.methods.contract import RainNetwork
from derain.pictures import Picture, read_picture, to_tensor, with_pixels, write_picture
from derain.restore import memory
from derain.restore.tiles import Axis, even_axis, pad_to, published_axis, run_tiles

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Maps that a user may want to see; other outputs of a network serve its loss.
MAPS = ("mask", "uncertainty")
# Shared pixels of neighbouring tiles for networks that look at the whole picture.
OVERLAP = 128
# Pixels that a bounded network's neighbours share beyond its reach on either side.
MARGIN = 8

Kind = TypeVar("Kind", Path, Image.Image, NDArray[Any], Tensor)


@dataclass(frozen=True)
class Settings:
    """How to restore.

    Attributes:
        tile: side of a tile in pixels; None chooses by the memory at hand, 0 never tiles.
        overlap: pixels that neighbouring tiles share; None takes what the network needs.
        device: one of `DEVICES`.
        precision: "auto" (float32), or a key of `PRECISIONS`.
        ensemble: average over the eight flips and turns, eight times the work.
    """

    tile: int | None = None
    overlap: int | None = None
    device: str = "auto"
    precision: str = "auto"
    ensemble: bool = False

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise UsageError(f"device '{self.device}': choose one of {', '.join(DEVICES)}.")
        if self.precision not in ("auto", *PRECISIONS):
            raise UsageError(f"precision '{self.precision}': choose one of auto, {', '.join(PRECISIONS)}.")
        if self.tile is not None and self.tile < 0:
            raise UsageError(f"tile {self.tile}: give a positive number of pixels, or 0 for no tiles.")
        if self.overlap is not None and self.overlap < 0:
            raise UsageError(f"overlap {self.overlap}: give 0 or a positive number of pixels.")
        if self.tile and self.overlap is not None and self.overlap >= self.tile:
            raise UsageError(f"overlap {self.overlap} must be smaller than tile {self.tile}.")


@dataclass(frozen=True)
class Restored:
    """A restored picture and the maps that the network made on the way.

    Attributes:
        image: (1, 3, H, W) float32 RGB, clamped to [0, 1].
        maps: {"mask" or "uncertainty": (1, 1, H, W) float32}; empty when not asked for.
        note: what a user should know of how it was done (tiles and why), or "".
    """

    image: Tensor
    maps: Mapping[str, Tensor]
    note: str


def load(model: str | Path | None = None, **settings: Any) -> Derainer:
    """A derainer from bundled weights or from a checkpoint.

    Args:
        model: None for the default; the name of bundled weights; a path to a checkpoint or to a file
            of `derain export`; or "hf:OWNER/NAME" or "hf:OWNER/NAME@REVISION" for a repository of
            the Hugging Face Hub.
        settings: see `Settings`.

    Raises:
        DerainError: the name is not known, or the file cannot be opened.
    """
    path, wanted = find(model), Settings(**settings)
    if is_exported(path):
        from derain.export.running import open_exported, refuse_settings  # brings along much that few need

        refuse_settings(path, wanted.device)
        return Derainer(open_exported(path), replace(wanted, device="cpu"))
    return Derainer(open_checkpoint(path), wanted)


class Derainer:
    """Restores pictures with one network.

    Called with a path, a PIL picture, a NumPy array (H, W, 3) or (H, W) uint8, uint16 or float in
    [0, 1], or a tensor (3, H, W) or (B, 3, H, W) float in [0, 1], it gives the same kind back; a
    path gives the path of the file that was written.
    """

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self.checkpoint = checkpoint
        self.settings = settings
        self.device = choose_device(settings.device)
        self.dtype = choose_precision(settings.precision, self.name, checkpoint.network)
        network = checkpoint.network.eval().to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def name(self) -> str:
        """Of the network, as users type it."""
        return self.checkpoint.architecture.name

    @overload
    def __call__(self, picture: str, output: str | Path | None = None) -> Path: ...
    @overload
    def __call__(self, picture: Kind, output: str | Path | None = None) -> Kind: ...
    def __call__(self, picture: Any, output: str | Path | None = None) -> Any:
        """Takes the rain out of one picture.

        Args:
            picture: see the class.
            output: only for a path: the file to write; by default NAME-derained beside it.

        Raises:
            DerainError: the picture cannot be read, or is of a kind that is not known.
        """
        if isinstance(picture, str | Path):
            source = Path(picture)
            target = Path(output) if output else source.with_stem(f"{source.stem}-derained")
            found = read_picture(source)
            write_picture(target, with_pixels(found, self.restore(to_tensor(found)).image))
            return target
        if output is not None:
            raise UsageError("output is for paths only; pictures in memory are returned.")
        if isinstance(picture, Image.Image):
            return self._restore_pil(picture)
        if isinstance(picture, np.ndarray):
            return self._restore_array(picture)
        if isinstance(picture, Tensor):
            return self._restore_tensor(picture)
        raise DerainError(
            f"a {type(picture).__name__} is no picture; give a path, PIL picture, array or tensor."
        )

    def restore(
        self,
        rainy: Tensor,
        with_maps: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Restored:
        """Restores one picture (1, 3, H, W) float RGB in [0, 1].

        Tiles when the settings ask for it, when the network's published protocol does, or when
        the picture would not fit into memory; halves the tile and starts the picture again when
        memory runs out all the same. `progress(done, total)` counts tiles.

        Raises:
            DerainError: values are not finite, or memory runs out at the smallest tile.
        """
        if not torch.isfinite(rainy).all():
            raise DerainError("the picture holds values that are not finite.")
        height, width = rainy.shape[2:]
        network = cast(RainNetwork, self.network)
        multiple = network.size_multiple
        padded = pad_to(rainy, -(-height // multiple) * multiple, -(-width // multiple) * multiple)
        size, note = self._tile_size(padded.shape[2], padded.shape[3])
        while True:
            rows, columns = (self._axis(length, size) for length in padded.shape[2:])
            try:
                outputs = self._run(padded, rows, columns, with_maps, progress)
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
        return Restored(cut.pop("image").clamp_(0, 1), cut, note)

    def _tile_size(self, height: int, width: int) -> tuple[int, str]:
        """Side of a tile for a padded picture, and what to tell the user."""
        network = cast(RainNetwork, self.network)
        if self.settings.tile is not None:
            return self.settings.tile or max(height, width), ""
        if network.tile is not None:
            return network.tile.size, ""
        size = memory.fitting_tile(network, height, width, memory.budget(self.device))
        if size is None:
            return max(height, width), ""
        return size, f"too large for memory in one piece, took tiles of at most {size} pixels"

    def _axis(self, length: int, size: int) -> Axis:
        network = cast(RainNetwork, self.network)
        wanted = self.settings.overlap
        if network.tile is not None:
            return published_axis(length, size, network.tile.overlap if wanted is None else wanted)
        if wanted is None:
            wanted = OVERLAP if network.reach is None else 2 * (network.reach + MARGIN)
        bounded = network.reach is not None and wanted >= 2 * network.reach
        overlap = min(wanted, size // 2)
        return even_axis(length, size, overlap, network.size_multiple, network.reach if bounded else None)

    def _run(
        self,
        picture: Tensor,
        rows: Axis,
        columns: Axis,
        with_maps: bool,
        progress: Callable[[int, int], None],
    ) -> dict[str, Tensor]:
        turns = (
            [(0, False)] if not self.settings.ensemble else [(k, f) for k in range(4) for f in (False, True)]
        )
        total: dict[str, Tensor] = {}
        for number, (quarter, flipped) in enumerate(turns):
            axes = (columns, rows) if quarter % 2 else (rows, columns)

            def count(done: int, tiles: int, number: int = number) -> None:
                progress(number * tiles + done, len(turns) * tiles)

            turned = _turn(picture, quarter, flipped)
            for name, value in run_tiles(turned, self._forward(with_maps), *axes, count).items():
                back = _turn_back(value, quarter, flipped)
                total[name] = total[name].add_(back) if name in total else back
        return {name: value / len(turns) for name, value in total.items()} if len(turns) > 1 else total

    def _forward(self, with_maps: bool) -> Callable[[Tensor], Mapping[str, Tensor]]:
        def run(tile: Tensor) -> Mapping[str, Tensor]:
            tile = tile.to(self.device).contiguous(memory_format=torch.channels_last)
            mixed = self.dtype is not torch.float32
            precision: contextlib.AbstractContextManager[Any] = (
                torch.autocast(self.device.type, self.dtype) if mixed else contextlib.nullcontext()
            )
            with torch.no_grad(), precision:
                if not with_maps:
                    return {"image": self.network(tile).cpu()}
                found = cast(RainNetwork, self.network).outputs(tile)
                return {name: found[name].cpu() for name in ("image", *MAPS) if name in found}

        return run

    def _restore_pil(self, picture: Image.Image) -> Image.Image:
        if picture.mode not in ("RGB", "L", "RGBA", "LA"):
            raise DerainError(
                f"a PIL picture of mode {picture.mode}: convert it to RGB, L, RGBA or LA first."
            )
        bands = np.asarray(picture)
        colour = bands if picture.mode in ("RGB", "L") else bands[..., :-1]
        restored = Image.fromarray(self._restore_array(np.squeeze(colour)))
        if picture.mode in ("RGBA", "LA"):
            restored.putalpha(picture.getchannel("A"))
        restored.info = dict(picture.info)
        return restored

    def _restore_array(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)) or not array.size:
            raise DerainError(f"an array of shape {array.shape}: (H, W), (H, W, 1) or (H, W, 3) is needed.")
        if array.dtype in (np.uint8, np.uint16):
            pixels = array.reshape(*array.shape[:2], -1)
            found = Picture(pixels=pixels)
            return with_pixels(found, self.restore(to_tensor(found)).image).pixels.reshape(array.shape)
        if array.dtype.kind != "f":
            raise DerainError(f"an array of {array.dtype}: uint8, uint16 or float in [0, 1] is needed.")
        planes = torch.from_numpy(np.ascontiguousarray(array.reshape(*array.shape[:2], -1), np.float32))
        image = self.restore(planes.permute(2, 0, 1).expand(3, -1, -1)[None]).image[0]
        if array.ndim == 2 or array.shape[2] == 1:
            image = image.mean(0, keepdim=True)
        return image.permute(1, 2, 0).numpy().reshape(array.shape).astype(array.dtype)

    def _restore_tensor(self, tensor: Tensor) -> Tensor:
        if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3 or not tensor.is_floating_point():
            raise DerainError(
                f"a {tensor.dtype} tensor {tuple(tensor.shape)}: float (3, H, W) or (B, 3, H, W) is needed."
            )
        batch = tensor.detach().cpu().float().reshape(-1, *tensor.shape[-3:])
        restored = torch.cat([self.restore(picture[None]).image for picture in batch])
        return restored.reshape(tensor.shape).to(tensor.device, tensor.dtype)

    def with_settings(self, **changes: Any) -> Derainer:
        """The same network with some settings changed."""
        return Derainer(self.checkpoint, replace(self.settings, **changes))


def choose_device(name: str) -> torch.device:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in present.items() if there))
    if not present[name]:
        raise UsageError(f"device '{name}' is not available here; use --device auto or cpu.")
    return torch.device(name)


def choose_precision(name: str, network_name: str, network: nn.Module) -> torch.dtype:
    """What "auto" (float32) or a key of `PRECISIONS` stands for.

    Raises:
        UsageError: the network's results would suffer.
    """
    refused = cast(RainNetwork, network).refused_precisions
    if name in refused:
        raise UsageError(f"{network_name} does not run in {name}: {refused[name]}. Use --precision fp32.")
    return PRECISIONS.get(name, torch.float32)


def _turn(x: Tensor, quarter: int, flipped: bool) -> Tensor:
    x = torch.rot90(x, quarter, (-2, -1))
    return x.flip(-1) if flipped else x


def _turn_back(x: Tensor, quarter: int, flipped: bool) -> Tensor:
    x = x.flip(-1) if flipped else x
    return torch.rot90(x, -quarter, (-2, -1))
