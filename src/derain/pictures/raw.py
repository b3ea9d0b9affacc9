"""Raw files from cameras, developed by the optional package `rawpy` (LibRaw)."""

from __future__ import annotations

import io

import numpy as np

from derain.extras import extra
from derain.pictures import exif as exif_blocks
from derain.pictures import tags
from derain.pictures.decoding import refuse_size
from derain.pictures.kinds import EXTRA, RAW
from derain.pictures.picture import Picture
from derain.pictures.tags import Tag


def read(content: bytes, name: str, max_pixels: int) -> Picture:
    """A raw file developed to 16-bit sRGB, upright, with the white balance of the camera.

    The brightness is LibRaw's: the brightest hundredth of the pixels becomes white.
    """
    with extra(RAW.package, EXTRA).imread(io.BytesIO(content)) as raw:
        refuse_size(name, raw.sizes.width, raw.sizes.height, max_pixels)
        pixels = raw.postprocess(use_camera_wb=True, output_bps=16)
    exif = _exif(content)
    lost = ["the raw data: it was developed to 16-bit sRGB", *([] if exif else ["EXIF"])]
    return Picture(np.ascontiguousarray(pixels), exif=exif, lost=tuple(lost))


def _exif(content: bytes) -> bytes | None:
    """What the first directory states about the picture, without the tags that belong to the raw data."""
    try:
        head = tags.header(content)
        found = tags.directory(content, head, head.first)
    except ValueError:  # not all of these formats are TIFF
        return None
    raw_data = [tag for tag in found.entries if tag >= Tag.DNG_VERSION]
    return exif_blocks.from_tiff(tags.without(found, raw_data), head.order)
