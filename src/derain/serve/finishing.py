"""Changes how much of a finished result is applied, and where, without running the network again."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from derain.errors import DerainError, errors_of
from derain.pictures import Picture, read_picture, to_rgb8, to_tensor, write_picture
from derain.restore.blending import blended_picture
from derain.restore.protecting import keep_map
from derain.serve.jobs import Finish, ServerJob
from derain.serve.limits import Limits, Refused

SLACK = 0.01  # difference of aspect ratios that is not seen, as a fraction


def finish(job: ServerJob, strength: float, protect: BinaryIO | None, limits: Limits) -> Finish | None:
    """Writes the result with the job's change scaled by `strength`, and none of it where `protect` is white.

    Args:
        job: the finished job of a picture.
        strength: 0 (the rainy picture) to `MAX_STRENGTH`; 1 is the result of the job.
        protect: a mask in the shape of the picture, of any size; None protects nothing.
        limits: they limit the pixels that `protect` may have.

    Returns:
        What was written, under new names; None if it would equal the job's own result.

    Raises:
        Refused: 422 `protect` is not a picture, not a mask, or of another shape.
        DerainError: a file cannot be read or written.
    """
    if strength == 1 and protect is None:
        return None
    name = secrets.token_hex(4)
    mask, keep = None, None
    rainy = read_picture(job.upload.source)
    if protect is not None:
        mask = job.folder / f"protect-{name}.png"
        picture, keep = _read_mask(protect, job.folder / f"sent-{name}", rainy.size, limits)
        write_picture(mask, picture)
    path = job.folder / f"finished-{name}{job.result.suffix}"
    write_picture(path, finished(rainy, read_picture(job.result), strength, keep))
    return Finish(path, strength, mask)


def finished(rainy: Picture, restored: Picture, strength: float, keep: Tensor | None) -> Picture:
    """A blend of the two, in the depth of `rainy`; see `derain.restore.blending.blended_picture`."""
    return replace(rainy, pixels=blended_picture(rainy, restored, strength, keep).pixels)


def _read_mask(file: BinaryIO, place: Path, size: tuple[int, int], limits: Limits) -> tuple[Picture, Tensor]:
    """A mask as 8-bit grey, and its keep map scaled to a picture of this height and width; leaves nothing
    at `place`."""
    try:
        with errors_of("protect", place):
            place.write_bytes(file.read())
            picture = read_picture(place, limits.pixels)
        refuse_other_shape(picture.size, size)
        levels = to_rgb8(picture)
        scaled = Image.fromarray(levels).resize(size[::-1], Image.Resampling.BILINEAR)
        return Picture(levels[..., :1]), keep_map(to_tensor(Picture(np.array(scaled))), "protect")
    except DerainError as error:
        raise Refused(422, str(error).replace(str(place), "protect")) from None
    finally:
        place.unlink(missing_ok=True)


def refuse_other_shape(mask: tuple[int, int], picture: tuple[int, int]) -> None:
    """Checks that two sizes (height, width) have the same aspect ratio.

    Sides that were rounded may be wrong by a pixel, and those of an enlarged mask by a few.

    Raises:
        DerainError: they differ by more than that.
    """
    (high, wide), (height, width) = mask, picture
    rounding = max(height + width, SLACK * high * width)
    if abs(high * width - wide * height) > rounding:
        raise DerainError(
            f"protect: the mask is {wide}x{high} and the picture {width}x{height}; they may differ in size, "
            "but not in aspect ratio."
        )
