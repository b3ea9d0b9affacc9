"""The protocols by which published PSNR / SSIM figures were computed, by name.

Figures under different names must never be compared: the same pair of pictures gets 44.3 dB under one
and 45.7 dB under another. Each function takes two pictures of one size (see `levels`) and is symmetric
except for `quantise`, which states how a float result becomes the bytes that the published script would
have read. Grey pictures count as three equal channels unless a protocol says otherwise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from derain.errors import DerainError
from derain.evaluation.levels import AnyPicture, Quantise, as_rgb, byte_pair, float_pair
from derain.evaluation.luma import (
    full_range_luma_bytes,
    studio_luma,
    studio_luma_bytes,
    studio_luma_exchanged,
)
from derain.evaluation.similarity import gaussian_ssim, psnr, shrink, uniform_ssim, volume_ssim


class Score(NamedTuple):
    """PSNR in dB, infinite for equal pictures, and SSIM; None where the protocol has none."""

    psnr: float
    ssim: float | None


def matlab_y_uint8(restored: AnyPicture, clean: AnyPicture, quantise: Quantise = "round") -> Score:
    """Studio luma rounded to bytes; Wang's 2003 SSIM on the valid area. Grey is taken as it is.

    Rain200L, Rain200H and SPA-Data in the tables of DRSformer and NeRD-Rain; the Rain13K test sets.
    """
    a, b = byte_pair(restored, clean, 11, quantise)
    if a.ndim == 3:
        a, b = studio_luma_bytes(a), studio_luma_bytes(b)
    return Score(psnr(a, b), gaussian_ssim(a, b))


def matlab_y_double(restored: AnyPicture, clean: AnyPicture, quantise: Quantise = "round") -> Score:
    """Studio luma of bytes, not rounded; Wang's 2009 SSIM, which shrinks large pictures first.

    DID-Data and DDN-Data in the tables of DRSformer and NeRD-Rain; Rain100L/H, Rain12 and Rain1400 in
    PReNet's. Like the published script, this fails on grey pictures.
    """
    a, b = byte_pair(restored, clean, 11, quantise)
    if a.ndim == 2:
        raise DerainError("matlab_y_double is defined for colour pictures only; these are grey.")
    a, b = studio_luma(a), studio_luma(b)
    factor = max(1, math.floor(min(a.shape) / 256 + 0.5))
    small = (shrink(a, factor), shrink(b, factor)) if factor > 1 else (a, b)
    return Score(psnr(a, b), gaussian_ssim(*small))


def skimage_rgb(restored: AnyPicture, clean: AnyPicture) -> Score:
    """RGB floats, not rounded; uniform SSIM with data range 2, as in scikit-image 0.15. SPANet."""
    a, b = float_pair(restored, clean, 7)
    return Score(psnr(a, b), uniform_ssim(a, b, peak=510))


def skimage_rgb_range1(restored: AnyPicture, clean: AnyPicture) -> Score:
    """RGB floats, not rounded; uniform SSIM with data range 1, which is right for such values."""
    a, b = float_pair(restored, clean, 7)
    return Score(psnr(a, b), uniform_ssim(a, b))


def raindrop_y(restored: AnyPicture, clean: AnyPicture, quantise: Quantise = "round") -> Score:
    """Full-range byte luma of the area cropped to multiples of 4; uniform SSIM. AGAN-Data, IDT."""
    a, b = (as_rgb(x) for x in byte_pair(restored, clean, 8, quantise))
    height, width = (side // 4 * 4 for side in a.shape[:2])
    a, b = (full_range_luma_bytes(x[:height, :width]) for x in (a, b))
    return Score(psnr(a, b), uniform_ssim(a, b))


def udr_test_y(restored: AnyPicture, clean: AnyPicture) -> Score:
    """Studio luma with red and blue exchanged, neither clamped nor rounded. UDR-S2Former's test."""
    a, b = (studio_luma_exchanged(as_rgb(x)) for x in float_pair(restored, clean, 11, clamp=False))
    return Score(psnr(a, b), gaussian_ssim(a, b, "replicate"))


def basicsr_y(restored: AnyPicture, clean: AnyPicture, quantise: Quantise = "round") -> Score:
    """Studio luma of bytes, not rounded; SSIM with replicated edges. DRSformer while training."""
    a, b = (studio_luma(as_rgb(x)) for x in byte_pair(restored, clean, 11, quantise))
    return Score(psnr(a, b), gaussian_ssim(a, b, "replicate"))


def basicsr_rgb(restored: AnyPicture, clean: AnyPicture, quantise: Quantise = "round") -> Score:
    """RGB bytes; SSIM of the picture as a volume. A black restored picture gets peak 1, as published."""
    a, b = (as_rgb(x) for x in byte_pair(restored, clean, 11, quantise))
    return Score(psnr(a, b, 1 if a.max() <= 1 else 255), volume_ssim(a, b))


def rgb_psnr(restored: AnyPicture, clean: AnyPicture) -> Score:
    """PSNR of RGB floats, clamped, not rounded; no SSIM. NeRD-Rain's and PReNet's training logs."""
    return Score(psnr(*float_pair(restored, clean, 1)), None)


def toolbox_rgb(restored: AnyPicture, clean: AnyPicture, quantise: Quantise = "round") -> Score:
    """RGB bytes; SSIM per channel on the valid area. All tables of derain-toolbox."""
    a, b = byte_pair(restored, clean, 11, quantise)
    return Score(psnr(a, b), gaussian_ssim(a, b))


def toolbox_y(restored: AnyPicture, clean: AnyPicture, quantise: Quantise = "round") -> Score:
    """Studio luma of bytes, not rounded; SSIM on the valid area. derain-toolbox's option."""
    a, b = (studio_luma(as_rgb(x)) for x in byte_pair(restored, clean, 11, quantise))
    return Score(psnr(a, b), gaussian_ssim(a, b))


def zero_pad_rgb(restored: AnyPicture, clean: AnyPicture) -> Score:
    """RGB floats, clamped; SSIM with zeros beyond the edges; 100 dB if equal. UDR-S2Former's validation."""
    a, b = float_pair(restored, clean, 11)
    value = psnr(a, b)
    return Score(100.0 if math.isinf(value) else value, gaussian_ssim(a, b, "zero"))
