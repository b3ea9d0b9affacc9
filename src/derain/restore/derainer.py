"""`Derainer`: the main job in Python. A picture or video of any kind and size in, the same kind back."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from derain.checkpoints import Checkpoint, open_checkpoint
from derain.checkpoints.bundled import find
from derain.errors import DerainError, Remedy, UsageError
from derain.export import is_exported
from derain.methods.network import RainNetwork
from derain.pictures import (
    EXTENSIONS,
    Picture,
    left_out,
    read_picture,
    to_tensor,
    with_pixels,
    write_picture,
)
from derain.pictures.kinds import VIDEO_KINDS, file_kind
from derain.precisions import PRECISIONS, precision_name
from derain.restore import memory
from derain.restore.precision import choose_precision, is_bfloat16_native
from derain.restore.test_time import join_phases, positions, split_phases, turned, turned_back
from derain.restore.tiles import Axis, even_axis, pad_to, published_axis, run_tiles

if TYPE_CHECKING:
    from derain.restore.video import Progress, VideoResult

log = logging.getLogger("derain")

DEVICES = ("auto", "cpu", "cuda", "mps")
# Shared pixels of neighbouring tiles for networks that look at the whole picture.
OVERLAP = 128
# Pixels that a bounded network's neighbours share beyond its receptive field on either side.
MARGIN = 8
# Frames of a video at once on a graphics card; a CPU gains nothing from more than one.
FRAMES = 4
STRONGEST = 1.5

Forward = Callable[[Tensor], Mapping[str, Tensor]]
Kind = TypeVar("Kind", Path, Image.Image, NDArray[Any], Tensor)


@dataclass(frozen=True)
class Settings:
    """How to restore.

    Attributes:
        device: one of `DEVICES`.
        precision: one of `PRECISIONS`, or "auto": float32, but bfloat16 for pictures of 8 bits where the
            processor has it and the network bears it (`Spec.bears_bfloat16`).
        tile: side of a tile in pixels; None chooses by the memory at hand, 0 never tiles.
        overlap: pixels that neighbouring tiles share; None takes what the network needs.
        ensemble: average over positions of the picture: "flips", four times the work; "turns", the eight
            flips and quarter turns, eight times the work; True, those that the weights have learnt.
        phases: pixel-shuffle-down: restore the four half-size phases (even and odd rows and columns) one by
            one; said to help networks trained on made rain on real pictures, and to cost detail.
        strength: how much of the change to apply, 0 (none) to 1.5; 0.5 is half-way between the rainy
            and the restored picture, and above 1 the change is exaggerated, at one's own risk.

    Raises:
        UsageError: a value is not among these.
    """

    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    overlap: int | None = None
    ensemble: bool | str = False
    strength: float = 1.0
    phases: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", precision_name(self.precision))
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
        if self.ensemble not in (False, True, "flips", "turns"):
            raise UsageError(f"ensemble {self.ensemble!r}: choose flips or turns.")
        if not 0 <= self.strength <= STRONGEST:
            raise UsageError(f"strength {self.strength}: give a number from 0 to {STRONGEST}.")


class Changes(TypedDict, total=False):
    """Some of the attributes of `Settings`, as keywords."""

    device: str
    precision: str
    tile: int | None
    overlap: int | None
    ensemble: bool | str
    strength: float
    phases: bool


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


def load(
    model: str | Path | nn.Module | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    overlap: int | None = None,
    ensemble: bool | str = False,
    strength: float = 1.0,
    phases: bool = False,
    own_code: bool = False,
) -> Derainer:
    """Opens a model to restore pictures and videos with.

    Examples:
        >>> import derain, numpy
        >>> restore = derain.load()
        >>> restore(numpy.zeros((32, 48, 3), numpy.uint8)).shape
        (32, 48, 3)

    Args:
        model: None for the default; the name of bundled weights (`list_models(pretrained=True)`); a
            checkpoint or exported file; "hf:OWNER/NAME" or "hf:OWNER/NAME@REVISION" for a repository of
            the Hugging Face Hub; or a network in hand, which is copied as it is now.
        device: "auto" (the best there is), "cpu", "cuda" or "mps".
        precision: "float32", "bfloat16", "float16", or "auto"; see `Settings`.
        tile: side of a tile in pixels; None chooses by the memory at hand, 0 never tiles.
        overlap: pixels that neighbouring tiles share; None takes what the network needs.
        ensemble: average over "flips" (four), "turns" (eight), or what the weights have learnt (True).
        strength: how much of the change to apply, 0 to 1.5; see `Settings`.
        phases: restore the four half-size phases one by one; see `Settings`.
        own_code: run the Python code that weights of a network of your own name; see `open_checkpoint`.

    Raises:
        UsageError: the name is not known, or a setting is impossible for this model or machine.
        DerainError: the file cannot be opened, or the network in hand cannot be used.
    """
    settings = Settings(device, precision, tile, overlap, ensemble, strength, phases)
    if isinstance(model, nn.Module):
        return Derainer(model, settings)
    path = find(model)
    if is_exported(path):
        from derain.export.running import open_exported  # its runtimes load slowly

        return Derainer(open_exported(path), settings)
    return Derainer(open_checkpoint(path, own_code=own_code), settings)


class Derainer:
    """Restores pictures and videos with one network.

    Called with a path, a PIL picture, a NumPy array (H, W, 3) or (H, W) uint8, uint16 or float in
    [0, 1], or a tensor (3, H, W) or (B, 3, H, W) float in [0, 1], it gives the same kind back; a
    path gives the path of the file that was written. PIL pictures come back upright.

    Examples:
        >>> import derain, torch
        >>> restore = derain.load("spanet", device="cpu")
        >>> batch = restore(torch.rand(2, 3, 24, 32))
        >>> restore.with_settings(ensemble=True).settings.ensemble
        True
        >>> restore(torch.full((3, 24, 32), 255.0))
        Traceback (most recent call last):
        derain.errors.DerainError: the picture holds values from 255 to 255; floats must lie in [0, 1].

    Attributes:
        checkpoint: the file behind it; None for a network that was given in hand.
        network: in eval mode, on `device`.
        settings: as given.
        device: what the settings came to on this machine.
        dtype: that the network computes in; see `dtype_for` for pictures of 8 bits.
    """

    def __init__(self, model: Checkpoint | nn.Module, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.checkpoint = model if isinstance(model, Checkpoint) else None
        if self.checkpoint and is_exported(self.checkpoint.path):
            if settings.device not in ("auto", "cpu"):
                raise UsageError(
                    f"{self.checkpoint.path}: exported files run on the CPU, not on {settings.device}."
                )
            settings = replace(settings, device="cpu")
        self.settings = settings
        self.device = choose_device(settings.device)
        given = model.network if isinstance(model, Checkpoint) else model
        if not isinstance(given, RainNetwork):
            raise DerainError(
                f"a {type(given).__name__} does not say what sizes it takes; "
                "derive it from derain.RainNetwork."
            )
        self.dtype = choose_precision(settings.precision, self._name(given), given)
        # Whoever else holds the network finds it where it was, and as it was.
        moves = any(tensor.device.type != self.device.type for tensor in given.state_dict().values())
        network = copy.deepcopy(given) if moves or self.checkpoint is None else given
        network = network.eval().to(self.device)
        self.network: RainNetwork = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def name(self) -> str:
        """Of the network, as users type it; the class's name for a network in hand."""
        return self._name(self.network)

    def _name(self, network: nn.Module) -> str:
        return self.checkpoint.architecture.name if self.checkpoint else type(network).__name__

    @property
    def identity(self) -> str:
        """A hash that changes with all that decides what a restored picture looks like."""
        digest = hashlib.sha256(repr((self.name, self.settings, str(self.dtype_for(8)))).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def dtype_for(self, bits: int) -> torch.dtype:
        """What the network computes in for pictures of so many bits a channel."""
        chosen = self.settings.precision != "auto" or bits > 8 or not self.network.spec.bears_bfloat16
        return torch.bfloat16 if not chosen and is_bfloat16_native(self.device) else self.dtype

    @overload
    def __call__(self, picture: str, output: str | Path | None = None, overwrite: bool = False) -> Path: ...
    @overload
    def __call__(self, picture: Kind, output: str | Path | None = None, overwrite: bool = False) -> Kind: ...
    def __call__(self, picture: Any, output: str | Path | None = None, overwrite: bool = False) -> Any:
        """Takes the rain out of one picture, batch of pictures, or video file.

        Args:
            picture: see the class.
            output: only for a path: the file to write; by default NAME-derained beside it.
            overwrite: replace the output when it exists.

        Raises:
            UsageError: the output exists, or options do not fit together.
            DerainError: the picture cannot be read, is of a kind that is not known, or holds values that
                are not finite or beyond [0, 1]; or a video could be read only in part.
        """
        if isinstance(picture, str | Path):
            return self._restore_file(Path(picture), output, overwrite)
        if output is not None:
            raise UsageError("output is for paths only; pictures in memory are returned.")
        if isinstance(picture, Image.Image):
            return self._restore_pil(picture)
        if isinstance(picture, np.ndarray):
            return self._restore_array(picture)
        if isinstance(picture, Tensor):
            return self._restore_tensor(picture)
        raise DerainError(
            f"cannot restore a {type(picture).__name__}; give a path, a PIL picture, an array or a tensor."
        )

    def video(
        self,
        source: str | Path,
        output: str | Path | None = None,
        *,
        overwrite: bool = False,
        codec: str | None = None,
        crf: int | None = None,
        temporal: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> VideoResult:
        """Takes the rain out of a video; keeps its times, sound, subtitles, colour and depth.

        Args:
            source: mp4, mov, mkv, webm, avi or gif.
            output: the file to write; by default NAME-derained beside the source.
            overwrite: replace the output when it exists.
            codec, crf, temporal, resume, progress: see `derain.restore.video.restore_video`.

        Returns:
            What was done. `shortfall` says what is missing where the source is damaged.

        Raises:
            UsageError: the output exists, or options do not fit together.
            DerainError: the source cannot be read or the output not be written.
        """
        from derain.pictures.video import video_facts  # PyAV takes a while to load
        from derain.restore.video import restore_video

        source = Path(source)
        target, bits = _target(source, output, overwrite), video_facts(source).bits
        return restore_video(
            source,
            target,
            lambda rainy: self.restore(rainy, bits=bits).image,
            codec=codec,
            crf=crf,
            batch=1 if self.device.type == "cpu" else FRAMES,
            resume=resume,
            temporal=temporal,
            identity=self.identity,
            progress=progress,
        )

    def restore(
        self,
        rainy: Tensor,
        with_maps: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        bits: int = 32,
    ) -> Restored:
        """Restores pictures (B, 3, H, W) float RGB in [0, 1], as many at once as memory holds.

        Tiles when the settings ask for it, when the network's published protocol does, or when
        a picture would not fit into memory; halves the tile and starts the picture again when
        memory runs out all the same. `progress(done, total)` counts tiles. `bits` is the depth of the
        file that the values come from; 32 for floats, which "auto" restores in float32.

        Raises:
            DerainError: values are not finite, or memory runs out at the smallest tile.
        """
        if not torch.isfinite(rainy).all():
            raise DerainError("the picture holds values that are not finite.")
        forward = self._forward(with_maps, self.dtype_for(bits))
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
        bounded = radius is not None and wanted >= 2 * radius
        overlap = min(wanted, size // 2)
        return even_axis(length, size, overlap, spec.multiple_of, radius if bounded else None)

    def _run(
        self,
        picture: Tensor,
        rows: Axis,
        columns: Axis,
        forward: Forward,
        progress: Callable[[int, int], None],
    ) -> dict[str, Tensor]:
        facts = self.checkpoint.facts if self.checkpoint else {}
        turns = positions(self.settings.ensemble, facts.get("positions", "flips"))
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

    def _restore_file(self, source: Path, output: str | Path | None, overwrite: bool) -> Path:
        if _is_video(source):
            result, target = self.video(source, output, overwrite=overwrite), _place(source, output)
            for note in result.left_out:
                log.warning("%s: %s", target, note)
            if result.shortfall:
                raise DerainError(f"{source}: {result.shortfall}; what could be read is in {target}.")
            return target
        target = _target(source, output, overwrite)
        found = read_picture(source)
        restored = self.restore(to_tensor(found), bits=found.bits)
        lost = write_picture(target, with_pixels(found, restored.image))
        if lost:
            log.warning("%s: %s", target, left_out(lost))
        return target

    def _restore_pil(self, picture: Image.Image) -> Image.Image:
        if picture.mode not in ("RGB", "L", "RGBA", "LA"):
            raise DerainError(
                f"a PIL picture of mode {picture.mode}: convert it to RGB, L, RGBA or LA first."
            )
        upright = ImageOps.exif_transpose(picture)
        bands = np.asarray(upright)
        colour = {"LA": bands[..., 0], "RGBA": bands[..., :3]}.get(picture.mode, bands)
        restored = Image.fromarray(self._restore_array(colour))
        if picture.mode in ("RGBA", "LA"):
            restored.putalpha(upright.getchannel("A"))
        restored.info = dict(upright.info)
        return restored

    def _restore_array(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)) or not array.size:
            raise DerainError(f"an array of shape {array.shape}: (H, W), (H, W, 1) or (H, W, 3) is needed.")
        if array.dtype in (np.uint8, np.uint16):
            pixels = array.reshape(*array.shape[:2], -1)
            found = Picture(pixels=pixels)
            restored = self.restore(to_tensor(found), bits=found.bits)
            return with_pixels(found, restored.image).pixels.reshape(array.shape)
        if array.dtype.kind != "f":
            raise DerainError(f"an array of {array.dtype}: uint8, uint16 or float in [0, 1] is needed.")
        planes = torch.from_numpy(np.ascontiguousarray(array.reshape(*array.shape[:2], -1), np.float32))
        _refuse_beyond(planes)
        image = self.restore(planes.permute(2, 0, 1).expand(3, -1, -1)[None]).image[0]
        if array.ndim == 2 or array.shape[2] == 1:
            image = image.mean(0, keepdim=True)
        return image.permute(1, 2, 0).numpy().reshape(array.shape).astype(array.dtype)

    def _restore_tensor(self, tensor: Tensor) -> Tensor:
        if (
            tensor.ndim not in (3, 4)
            or tensor.shape[-3] != 3
            or not tensor.is_floating_point()
            or not tensor.numel()
        ):
            raise DerainError(
                f"a {tensor.dtype} tensor {tuple(tensor.shape)}: float (3, H, W) or (B, 3, H, W) is needed."
            )
        batch = tensor.detach().cpu().float().reshape(-1, *tensor.shape[-3:])
        _refuse_beyond(batch)
        return self.restore(batch).image.reshape(tensor.shape).to(tensor.device, tensor.dtype)

    def with_settings(self, **changes: Unpack[Changes]) -> Derainer:
        """The same network with some settings changed; this derainer stays as it is.

        The weights are shared where the device stays the same, and copied where it changes.

        Raises:
            UsageError: a setting is impossible for this model or machine.
        """
        return Derainer(self.checkpoint or self.network, replace(self.settings, **changes))


def _is_video(source: Path) -> bool:
    kind = file_kind(source)
    return kind.media == "video" if kind else source.suffix.lower() in VIDEO_KINDS


def _place(source: Path, output: str | Path | None) -> Path:
    """The file to write: `output`, or NAME-derained beside the source, in a format that is written."""
    if output is not None:
        return Path(output)
    kind = file_kind(source)
    suffix = source.suffix
    if kind is not None and suffix.lower() not in (*EXTENSIONS, *VIDEO_KINDS):
        suffix = kind.result
    return source.with_name(f"{source.stem}-derained{suffix}")


def _target(source: Path, output: str | Path | None, overwrite: bool) -> Path:
    """The file to write. Raises `UsageError` when it is there and may not be replaced."""
    target = _place(source, output)
    if target.exists():
        if source.exists() and target.samefile(source):
            raise UsageError(f"{target}: the result would replace its source; give another output.")
        if not overwrite:
            raise UsageError(f"{target}: exists already.", Remedy("replace it", {"overwrite": True}))
    return target


def _refuse_beyond(values: Tensor) -> None:
    """Raises `DerainError` for values that no picture of floats has; those that are not finite pass."""
    low, high = (float(value) for value in torch.aminmax(values))
    if low < 0 or high > 1:
        raise DerainError(f"the picture holds values from {low:g} to {high:g}; floats must lie in [0, 1].")


def choose_device(name: str) -> torch.device:
    """The device that one of `DEVICES` stands for. Raises `UsageError` when there is none here."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in present.items() if there))
    if not present[name]:
        raise UsageError(
            f"device '{name}' is not available here.", Remedy("take the best there is", {"device": "auto"})
        )
    return torch.device(name)
