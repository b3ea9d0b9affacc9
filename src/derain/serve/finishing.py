"""How much of a finished result to take, and where: no network runs again."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from derain.errors import DerainError, errors_of
from derain.pictures import Picture, read_picture, to_rgb8, write_picture
from derain.pictures.picture import Array
from derain.serve.jobs import Finish, ServerJob
from derain.serve.limits import Limits, Refused

ROWS = 256  # of a picture at once: its floats need little memory


def finish(job: ServerJob, strength: float, protect: BinaryIO | None, limits: Limits) -> Finish | None:
    """Writes the result with `strength` of the job's change, and unchanged where `protect` is white.

    Args:
        job: a picture that is done.
        strength: 0 (the rainy picture) to 1.5; 1 is the result of the job.
        protect: a picture of any size, laid over the whole; None protects nothing.
        limits: of the pixels that `protect` may have.

    Returns:
        What was written, under new names; None where it would be the job's own result.

    Raises:
        Refused: 422 `protect` is not a picture.
        DerainError: a file cannot be read or written.
    """
    if strength == 1 and protect is None:
        return None
    name = secrets.token_hex(4)
    mask = None if protect is None else job.folder / f"protect-{name}.png"
    shares: np.float32 | Array = np.float32(strength)
    rainy = read_picture(job.upload.source)
    if protect is not None and mask is not None:
        picture = _read_mask(protect, job.folder / f"sent-{name}", limits)
        write_picture(mask, picture)
        shares = np.float32(strength) * (1 - _over(picture, rainy.size))
    path = job.folder / f"finished-{name}{job.result.suffix}"
    write_picture(path, blend(rainy, read_picture(job.result), shares))
    return Finish(path, strength, mask)


def blend(rainy: Picture, restored: Picture, shares: np.float32 | Array) -> Picture:
    """A blend of `rainy` and `restored`, pixel by pixel.

    Args:
        rainy, restored: of one size.
        shares: of the change, 0 to 1.5, one for all or (H, W).
    """
    scale = np.float32(rainy.largest / restored.largest)
    shape = np.broadcast_shapes(rainy.pixels.shape, restored.pixels.shape)
    pixels = np.empty(shape, rainy.pixels.dtype)
    for top in range(0, shape[0], ROWS):
        rows = slice(top, top + ROWS)
        start = rainy.pixels[rows].astype(np.float32)
        change = restored.pixels[rows] * scale - start
        share = shares[rows, :, None] if isinstance(shares, np.ndarray) else shares
        pixels[rows] = np.rint(np.clip(start + share * change, 0, rainy.largest))
    return replace(rainy, pixels=pixels)


def _read_mask(file: BinaryIO, place: Path, limits: Limits) -> Picture:
    """The mask as 8-bit grey; nothing is left at `place`."""
    try:
        with errors_of("protect", place):
            place.write_bytes(file.read())
            picture = read_picture(place, limits.pixels)
        return Picture(to_rgb8(picture)[..., :1])
    except DerainError as error:
        raise Refused(422, str(error).replace(str(place), "protect")) from None
    finally:
        place.unlink(missing_ok=True)


def _over(mask: Picture, size: tuple[int, int]) -> Array:
    """A mask at another size, (H, W) float32 in [0, 1]."""
    image = Image.fromarray(mask.pixels[..., 0])
    scaled = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    shares: Array = np.asarray(scaled, np.float32) / 255
    return shares
