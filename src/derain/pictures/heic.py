"""HEIC and other HEIF pictures of phones and cameras, by the optional package `pillow-heif`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from derain.extras import extra
from derain.pictures import exif as exif_blocks
from derain.pictures.decoding import BECAME_16, refuse_size, unsupported_pixels
from derain.pictures.kinds import EXTRA, HEIC
from derain.pictures.picture import Array, ColourCode, Picture

MODES = {"L", "LA", "RGB", "RGBA"}  # followed by the bits per sample unless these are 8


def read(content: bytes, name: str, max_pixels: int) -> Picture:
    """The main picture of a file, upright; 10 and 12 bits become 16."""
    heif = extra(HEIC.package, EXTRA).open_heif(
        io.BytesIO(content), convert_hdr_to_8bit=False, hdr_to_16bit=False
    )
    width, height = heif.size
    refuse_size(name, width, height, max_pixels)
    kind, _, bits = heif.mode.partition(";")
    if kind not in MODES:
        raise unsupported_pixels(name, heif.mode)
    samples = _full_range(np.asarray(heif), int(bits or 8))
    samples = samples.reshape(*samples.shape[:2], -1)
    has_alpha = kind.endswith("A")
    info = heif.info
    return Picture(
        np.ascontiguousarray(samples[..., :-1] if has_alpha else samples),
        np.ascontiguousarray(samples[..., -1]) if has_alpha else None,
        # The pixels are already turned as the container says; the orientation in EXIF repeats that.
        exif=exif_blocks.upright(info["exif"])[0] if info.get("exif") else None,
        icc=info.get("icc_profile") or None,
        xmp=info.get("xmp") or None,
        colour=_colour(info.get("nclx_profile")),
        lost=(*_lost(heif), *((f"{bits} bits per channel{BECAME_16}",) if samples.itemsize == 2 else ())),
    )


def _full_range(samples: Array, bits: int) -> Array:
    """8 bits unchanged; more bits scaled to 16, so that white stays white."""
    if bits == 8:
        return samples
    largest = (1 << bits) - 1
    return ((samples.astype(np.uint32) * 65535 + largest // 2) // largest).astype(np.uint16)


def _colour(nclx: dict[str, Any] | None) -> ColourCode | None:
    codes = nclx and (int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))
    return ColourCode(*codes) if codes and codes != (2, 2) else None  # 2: unspecified


def _lost(heif: Any) -> list[str]:
    """What else the file contains, in words."""
    others = len(heif) - 1
    found = {
        f"{others} other picture{'s' if others > 1 else ''}": others > 0,
        "its depth map": bool(heif.info.get("depth_images")),
        "its HDR gain map": any("hdrgainmap" in kind.lower() for kind in heif.info.get("aux", ())),
        "its light levels": "content_light_level" in heif.info,
        "its mastering display": "mastering_display_colour_volume" in heif.info,
    }
    return [words for words, there in found.items() if there]
