"""`Derainer`, for restoring from Python: takes a picture or video of any size, returns the same kind."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from derain.atomic import refuse_existing
from derain.checkpoints import Checkpoint, Model, open_checkpoint
from derain.checkpoints.bundled import find_model
from derain.checkpoints.exported import is_exported
from derain.errors import DerainError, UsageError, wrong_type
from derain.methods import all_architectures
from derain.methods.network import RainNetwork
from derain.paths import exists, is_folder, path_of, same
from derain.pictures import Picture, left_out, read_picture, to_tensor, write_picture
from derain.pictures.kinds import VIDEO_KINDS, file_kind
from derain.restore.blending import blended, blended_picture
from derain.restore.in_memory import (
    no_picture,
    picture_planes,
    restore_array,
    restore_pil,
    restore_tensor,
    tensor_batch,
)
from derain.restore.inference import Inference, Restored, joined
from derain.restore.jobs import plan
from derain.restore.looks import PICTURES, TENSORS, Form, Looks, Work, seen_in
from derain.restore.precision import choose_precision, is_bfloat16_native
from derain.restore.protecting import keep_map, refuse_other_size
from derain.restore.rain import Rain
from derain.restore.settings import Changes, Settings, VideoOptions, choose_device
from derain.restore.test_time import positions
from derain.restore.threads import pictures_at_once

if TYPE_CHECKING:
    from derain.restore.video import Finish, FrameProgress, RestoreBatch, VideoResult

log = logging.getLogger("derain")

FRAMES_ON_GPU = 4  # frames of a video per batch

Kind = TypeVar("Kind", Path, Image.Image, NDArray[Any], Tensor)
Seen = TypeVar("Seen")


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
    full_size: bool = False,
    own_code: bool = False,
) -> Derainer:
    """Opens a model that restores pictures and videos.

    Examples:
        >>> import derain, numpy
        >>> restore = derain.load()
        >>> restore(numpy.zeros((32, 48, 3), numpy.uint8)).shape
        (32, 48, 3)

    Args:
        model: None for the default; the name of bundled weights (`list_models(pretrained=True)`); a
            checkpoint or exported file; "hf:OWNER/NAME" or "hf:OWNER/NAME@REVISION" for a repository of
            the Hugging Face Hub; or a `torch.nn.Module`, which is copied as it is now.
        device: "auto" (the best available), "cpu", "cuda" or "mps".
        precision: "float32", "bfloat16", "float16", or "auto"; see `Settings`.
        tile: side of a tile in pixels; None chooses by the available memory, 0 never tiles.
        overlap: pixels that neighbouring tiles share; None takes what the network needs.
        ensemble: average over "flips" (four), "turns" (eight), or those used in training (True).
        strength: how much of the change to apply; see `Settings`.
        phases: restore the four half-size phases one by one; see `Settings`.
        full_size: never look for rain in a reduced copy of a large picture; see `Settings`.
        own_code: run the Python code of a custom network that the weights name; see `open_checkpoint`.

    Raises:
        UsageError: the name is not known, or a setting is impossible for this model or machine.
        DerainError: the file cannot be opened, or the module cannot be used.
    """
    settings = Settings(device, precision, tile, overlap, ensemble, strength, phases, full_size)
    derainer = Derainer(model if isinstance(model, nn.Module) else _opened(model, own_code), settings)
    log.info("%s on %s, CPU threads: %d", derainer.name, derainer.device, torch.get_num_threads())
    return derainer


def _opened(model: str | Path | None, own_code: bool) -> Model:
    path = find_model(model)
    if is_exported(path):
        from derain.checkpoints.exported.running import open_exported  # its runtimes load slowly

        return open_exported(path)
    return open_checkpoint(path, own_code=own_code)


@dataclass(frozen=True)
class RestoredPicture:
    """A restored picture in memory.

    Attributes:
        picture: the restored one, with all metadata of the rainy one.
        maps: {"mask" or "uncertainty": a grey picture}; empty if not requested.
        rain: how much there was.
        note: what a user should know about how it was done, or "".
    """

    picture: Picture
    maps: Mapping[str, Picture]
    rain: Rain
    note: str


class Derainer:
    """Restores pictures and videos with one network.

    Called with a path, a PIL picture, a NumPy array (H, W, 3) or (H, W) uint8, uint16 or float in
    [0, 1], or a tensor (3, H, W) or (B, 3, H, W) float in [0, 1], it returns the same kind; for a path, the
    path of the file that was written. PIL pictures come back upright.

    Examples:
        >>> import derain, torch
        >>> restore = derain.load("spanet", device="cpu")
        >>> batch = restore(torch.rand(2, 3, 24, 32))
        >>> restore.with_settings(ensemble=True).settings.ensemble
        True
        >>> restore(torch.full((3, 24, 32), 255.0))
        Traceback (most recent call last):
        derain.errors.DerainError: the picture holds values from 255 to 255; floats must be in [0, 1].

    Attributes:
        checkpoint: the file that it was loaded from; None for a module that was passed in.
        network: the network, in eval mode, on `device`.
        name: the network's name, as users type it; the class's name if it is not in the registry.
        settings: those it was made with.
        device: the one that the settings resolve to on this machine.
        dtype: the type that the network computes in; see `dtype_for` for pictures of 8 bits.
        positions: the flips and turns that are averaged over; only the original without `ensemble`.
    """

    def __init__(self, model: Model | nn.Module, settings: Settings | None = None) -> None:
        if not isinstance(settings, Settings | None):
            raise wrong_type("the settings", settings, "derain.restore.Settings")
        settings = settings or Settings()
        self.checkpoint = model.checkpoint if isinstance(model, Model) else None
        network = model.network if isinstance(model, Model) else model
        if self.checkpoint and is_exported(self.checkpoint.path):
            if settings.device not in ("auto", "cpu"):
                raise UsageError(
                    f"{self.checkpoint.path}: exported files run on the CPU, not on {settings.device}."
                )
            settings = replace(settings, device="cpu")
        if not isinstance(network, RainNetwork):
            raise DerainError(
                f"a {type(network).__name__} does not state which sizes it accepts; "
                "derive it from derain.RainNetwork."
            )
        self.name = _name(network, self.checkpoint)
        self.settings = settings
        self.device = choose_device(settings.device)
        self.dtype = choose_precision(settings.precision, self.name, network)
        # The caller's network is neither moved nor changed.
        moves = any(tensor.device.type != self.device.type for tensor in network.state_dict().values())
        if moves or self.checkpoint is None:
            network = copy.deepcopy(network)
        self.network = network.eval().to(self.device).in_channels_last()
        facts = self.checkpoint.facts if self.checkpoint else {}
        self.positions = positions(settings.ensemble, facts.get("positions", "flips"))
        self._inference = Inference(self.network, settings, self.device, self.positions)

    @property
    def identity(self) -> str:
        """A hash that changes with everything that affects restored pictures."""
        digest = hashlib.sha256(repr((self.name, self.settings, str(self.dtype_for(8)))).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def dtype_for(self, bits: int) -> torch.dtype:
        """The type that the network computes in for pictures of this many bits per channel."""
        chosen = self.settings.precision != "auto" or bits > 8 or not self.network.spec.safe_in_bfloat16
        return torch.bfloat16 if not chosen and is_bfloat16_native(self.device) else self.dtype

    def precision_for(self, bits: int) -> str:
        """The name of `dtype_for`'s type; "int8" for exported files in 8-bit integers."""
        return self.network.spec.stored_precision or str(self.dtype_for(bits)).removeprefix("torch.")

    @overload
    def __call__(
        self, picture: str, output: str | Path | None = None, overwrite: bool = False, *, protect: Any = None
    ) -> Path: ...
    @overload
    def __call__(
        self, picture: Kind, output: str | Path | None = None, overwrite: bool = False, *, protect: Any = None
    ) -> Kind: ...
    def __call__(
        self, picture: Any, output: str | Path | None = None, overwrite: bool = False, *, protect: Any = None
    ) -> Any:
        """Removes rain from one picture, batch of pictures, or video file.

        Args:
            picture: see the class.
            output: only for a path: the file to write; by default NAME-derained beside it.
            overwrite: replace the output if it exists.
            protect: a mask of the picture's size, in any form that `picture` can have: its white areas
                stay unchanged, with a soft edge; see `derain.restore.protecting`.

        Raises:
            UsageError: the output exists, or options do not fit together.
            DerainError: the picture cannot be read, is of an unknown kind, or has values that are not
                finite or outside [0, 1]; or a video could be read only partly.
        """
        if isinstance(picture, str | Path):
            if not Path(picture).name:
                raise UsageError(f"'{picture}' is not a file; give a picture or a video.")
            return self._restore_file(Path(picture), output, overwrite, protect)
        if output is not None:
            raise UsageError("output is for paths only; pictures in memory are returned.")
        keep = self._keep(protect)

        def image(rainy: Tensor, bits: int) -> Tensor:
            return self.restore(rainy, bits=bits, protect=keep).image

        if isinstance(picture, Image.Image):
            return restore_pil(picture, image)
        if isinstance(picture, np.ndarray):
            return restore_array(picture, image)
        if isinstance(picture, Tensor):
            return restore_tensor(picture, image)
        raise no_picture(picture)

    def video(
        self,
        source: str | Path,
        output: str | Path | None = None,
        *,
        overwrite: bool = False,
        codec: str | None = None,
        crf: int | None = None,
        frame_by_frame: bool = False,
        temporal: bool = False,
        keep_fields: bool = False,
        resume: bool = False,
        protect: Any = None,
        progress: FrameProgress | None = None,
    ) -> VideoResult:
        """Removes rain from a video; keeps its times, sound, subtitles, colour and depth.

        Args:
            source: mp4, mov, mkv, webm, avi or gif.
            output: the file to write; by default NAME-derained beside the source.
            overwrite: replace the output if it exists.
            protect: a mask of the frames' size; its white areas stay unchanged.
            codec, crf, frame_by_frame, temporal, keep_fields, resume: see `derain.restore.VideoOptions`.
            progress: called with the number of finished frames and their expected number, if known.

        Returns:
            What was done. `shortfall` states what is missing if the source is damaged.

        Raises:
            UsageError: the output exists, or options do not fit together.
            DerainError: the source cannot be read, or the output cannot be written.
        """
        source = path_of("a video", source)
        options = VideoOptions(codec, crf, resume, frame_by_frame, temporal, keep_fields)
        target = _target(source, output, overwrite)
        return self.restore_video(source, target, options, protect=protect, progress=progress)

    def restore_video(
        self,
        source: Path,
        target: Path,
        options: VideoOptions | None = None,
        *,
        protect: Any = None,
        progress: FrameProgress | None = None,
    ) -> VideoResult:
        """As `video`, with the target and the options already decided.

        Args:
            source: see `video`.
            target: the file to write, replaced if it exists.
            options: how it is restored and written; None for `VideoOptions()`.
            protect, progress: see `video`.

        Raises:
            UsageError, DerainError: as `video`.
        """
        from derain.pictures.video_facts import video_facts  # PyAV takes a while to load
        from derain.restore.video import restore_video

        bits, keep, identity = video_facts(source).bits, self._keep(protect), self.identity
        if keep is not None:
            identity += hashlib.sha256(keep.numpy().tobytes()).hexdigest()
        return restore_video(
            source,
            target,
            self.frame_restorer(bits),
            options,
            batch=self.frames_in_a_pass,
            passes=self.passes_at_once(),
            finish=self.frame_finish(keep),
            identity=identity,
            progress=progress,
        )

    def frame_restorer(self, bits: int) -> RestoreBatch:
        """A function that restores the frames of a clip, of this many bits per channel, at full strength."""
        work = Work(self.dtype_for(bits))
        return lambda rainy: self._restore_once(rainy, work).image

    def frame_finish(self, protect: Tensor | None = None) -> Finish | None:
        """A function that applies strength and mask to a frame after its neighbours have corrected it.

        Args:
            protect: how much of each pixel stays unchanged, (1, 1, H, W).

        Returns:
            None where there is nothing to do.
        """
        strength = self.settings.strength
        if strength == 1 and protect is None:
            return None

        def finish(rainy: Tensor, image: Tensor) -> Tensor:
            if protect is not None:
                refuse_other_size(protect, rainy.shape[-2:])
            return blended(rainy, image, strength, protect)

        return finish

    @property
    def frames_in_a_pass(self) -> int:
        """How many frames of a video form a batch; a CPU gains nothing from more than one."""
        return 1 if self.device.type == "cpu" else FRAMES_ON_GPU

    def passes_at_once(self, most: int | None = None) -> int:
        """How many pictures or frames are restored at the same time, each in its own thread.

        Only one where the network already runs in parallel itself: on a GPU, and in an exported file.

        Args:
            most: the number of pictures; None if there are many.
        """
        runs_exported = self.checkpoint is not None and is_exported(self.checkpoint.path)
        if self.device.type != "cpu" or runs_exported:
            return 1
        threads = torch.get_num_threads()
        return pictures_at_once(threads, threads if most is None else most)

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width at which the network sees a picture; see `derain.restore.reduced`."""
        return self._inference.seen_size(height, width)

    @property
    def rain_threshold(self) -> float | None:
        """The signal above which a picture counts as rainy; None if it was not measured for these weights."""
        return self.checkpoint.rain_threshold if self.checkpoint else None

    def rain(self, picture: Any) -> Rain:
        """How much rain there is in one picture.

        Examples:
            >>> import derain, numpy
            >>> derain.load().rain(numpy.zeros((32, 48, 3), numpy.uint8)).share
            0.0

        Args:
            picture: a path, a PIL picture, an array or a tensor (3, H, W), as for restoring.

        Raises:
            DerainError: as for restoring.
        """
        rainy, bits = self._planes(picture)
        return self._looks(TENSORS, Work(self.dtype_for(bits))).better(rainy).rain

    def _keep(self, protect: Any) -> Tensor | None:
        return None if protect is None else keep_map(self._planes(protect)[0])

    def _planes(self, picture: Any) -> tuple[Tensor, int]:
        """One picture of any kind as (1, 3, H, W), and its bits per channel."""
        if isinstance(picture, str | Path):
            found = read_picture(Path(picture))
            return to_tensor(found), found.bits
        return picture_planes(picture)

    def restore(
        self,
        rainy: Tensor,
        with_maps: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        bits: int = 32,
        protect: Tensor | None = None,
        one_pass: bool = False,
    ) -> Restored:
        """Restores pictures in memory, as many at once as it has room for.

        A picture is cut into tiles if the settings or the network's published protocol ask for it, or if it
        would not fit in memory; if memory runs out nevertheless, it starts again with tiles half the size.

        Args:
            rainy: (B, 3, H, W) or (3, H, W) RGB in [0, 1], of any float type and on any device.
            with_maps: return the network's rain mask or uncertainty as well.
            progress: called with the number of tiles done and their total.
            bits: the depth of the file that the values come from; 32 for floats, which the precision "auto"
                restores in float32.
            protect: how much of each pixel stays unchanged, (1, 1, H, W); see
                `derain.restore.protecting.keep_map`.
            one_pass: do not look for rain that falls sideways (`derain.restore.sideways`); for frames of a
                clip, which must all be treated alike.

        Returns:
            The pictures (B, 3, H, W) float32, on the CPU.

        Raises:
            DerainError: `rainy` is not such a tensor or has values that are not finite, the mask has another
                size, or memory runs out even with the smallest tile.
        """
        rainy = tensor_batch(rainy)
        if protect is not None:
            refuse_other_size(protect, rainy.shape[-2:])
        work = Work(self.dtype_for(bits), with_maps, progress)
        found = self._restore_once(rainy, work) if one_pass else self._restore_better(rainy, work)
        return replace(found, image=blended(rainy, found.image, self.settings.strength, protect))

    def _restore_once(self, rainy: Tensor, work: Work) -> Restored:
        return self._inference.restore(rainy, *work)

    def _restore_better(self, rainy: Tensor, work: Work) -> Restored:
        """The better look at each of the pictures (B, 3, H, W), at full strength; see `Looks`."""
        found = self._restore_once(rainy, work)
        if self.rain_threshold is None:
            return found
        looks, parts = self._looks(TENSORS, work), rainy.split(1)
        firsts = [seen_in(part, found.part(at), self.rain_threshold) for at, part in enumerate(parts)]
        better = [looks.better(part, first) for part, first in zip(parts, firsts, strict=True)]
        if not any(look.is_turned for look in better):
            return found
        return joined([Restored(b.image, b.maps, b.note, (0,) if b.is_turned else ()) for b in better])

    def _looks(self, form: Form[Seen], work: Work) -> Looks[Seen]:
        return Looks(form, self._inference, work, self.rain_threshold)

    def restore_picture(
        self,
        picture: Picture,
        with_maps: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        protect: Tensor | None = None,
    ) -> RestoredPicture:
        """As `restore`, for a picture of integers, holding no more floats in memory than the network needs.

        Args:
            picture: as read from a file.
            with_maps, progress, protect: see `restore`.

        Raises:
            DerainError: the mask has another size, memory runs out, or the network produces values that are
                not finite.
        """
        if protect is not None:
            refuse_other_size(protect, picture.size)
        work = Work(self.dtype_for(picture.bits), with_maps, progress)
        look = self._looks(PICTURES, work).better(picture)
        upright = replace(look.image, alpha=picture.alpha)
        restored = blended_picture(picture, upright, self.settings.strength, protect)
        return RestoredPicture(restored, look.maps, look.rain, look.note)

    def _restore_file(self, source: Path, output: str | Path | None, overwrite: bool, protect: Any) -> Path:
        target = _target(source, output, overwrite)
        if _is_video(source):
            result = self.restore_video(source, target, protect=protect)
            for note in result.left_out:
                log.warning("%s: %s", target, note)
            result.raise_if_damaged(source, target)
            return target
        found = read_picture(source)
        restored = self.restore_picture(found, protect=self._keep(protect)).picture
        lost = write_picture(target, restored)
        if lost:
            log.warning("%s: %s", target, left_out(lost))
        return target

    def with_settings(self, **changes: Unpack[Changes]) -> Derainer:
        """A derainer of the same network with some settings changed; this one is left unchanged.

        The weights are shared if the device stays the same, and copied if it changes.

        Raises:
            UsageError: a setting is impossible for this model or machine.
        """
        model = Model(self.network, self.checkpoint) if self.checkpoint else self.network
        return Derainer(model, replace(self.settings, **changes))


def _name(network: nn.Module, checkpoint: Checkpoint | None) -> str:
    if checkpoint is not None:
        return checkpoint.name
    known = (each.name for each in all_architectures() if each.build is type(network))
    return next(known, type(network).__name__)


def _is_video(source: Path) -> bool:
    kind = file_kind(source)
    return kind.media == "video" if kind else source.suffix.lower() in VIDEO_KINDS


def _target(source: Path, output: str | Path | None, overwrite: bool) -> Path:
    """The file to write: `output`, or NAME-derained beside the source, in a format that can be written.

    Raises:
        UsageError: the source is a folder, or the file to write is the source or must not be replaced.
    """
    if is_folder(source):
        raise UsageError(f"{source}: is a folder; give one file, or use `derain.restore.restore_files`.")
    target = plan([source]).jobs[0].target if output is None else path_of("the output", output)
    if exists(target) and same(target, source):
        raise UsageError(f"{target}: the result would replace its source; give another output.")
    refuse_existing(target, overwrite)
    return target
