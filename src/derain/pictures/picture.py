"""A still picture in memory, and its conversion to a tensor and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derain.errors import DerainError, Remedy

Array = NDArray[Any]


@dataclass(frozen=True)
class Text:
    """A text in a file: a PNG text with its keyword, or a JPEG comment."""

    keyword: str
    text: str
    language: str = ""
    translated: str = ""


@dataclass(frozen=True)
class ColourCode:
    """What the values of pixels mean, in code points of ITU-T H.273; as cICP and nclx hold it.

    Attributes:
        primaries, transfer: 1 and 13 are those of sRGB, 9 and 16 those of BT.2020 with PQ.
        full_range: whether the values span 0 to white, or the limited range of television.
    """

    primaries: int
    transfer: int
    full_range: bool = True


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG file was compressed.

    Attributes:
        tables: quantisation of brightness, and of colour unless it is grey: 64 steps each, by rows.
        subsampling: "4:4:4", "4:2:2" or "4:2:0".
        progressive: whether it was written in several passes.
    """

    tables: tuple[tuple[int, ...], ...]
    subsampling: str
    progressive: bool


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture, and what its file carried besides the pixels.

    Attributes:
        pixels: (H, W, C) uint8 or uint16, C = 1 (grey) or 3 (RGB).
        alpha: (H, W) of the same type, straight (not premultiplied), or None.
        exif: EXIF with its `Exif\\0\\0` prefix; orientation is 1, as the pixels are turned already.
        icc: the colour profile of `pixels`.
        dpi: horizontal and vertical resolution in pixels per inch.
        xmp: an XMP packet.
        iptc: IPTC-IIM records.
        texts: PNG texts and JPEG comments.
        colour: what the values of `pixels` mean, if a file states it without a profile.
        colour_chunks: (type, content) of PNG's chunks on colour: gAMA, cHRM, sRGB, mDCV, cLLI.
        jpeg: how the source was compressed, if it was a JPEG.
        lossless: whether the source was a lossless WebP.
        lost: what the source contained that a `Picture` does not, in words.
    """

    pixels: Array
    alpha: Array | None = None
    exif: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    texts: tuple[Text, ...] = ()
    colour: ColourCode | None = None
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    jpeg: JpegCoding | None = None
    lossless: bool = False
    lost: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3, self.pixels.shape
        assert self.pixels.shape[2] in (1, 3), self.pixels.shape
        assert self.pixels.dtype in (np.uint8, np.uint16), self.pixels.dtype
        if self.alpha is not None:
            assert self.alpha.shape == self.pixels.shape[:2], self.alpha.shape
            assert self.alpha.dtype == self.pixels.dtype, self.alpha.dtype

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def bits(self) -> int:
        """Bits per channel: 8 or 16."""
        return 8 * self.pixels.itemsize

    @property
    def largest(self) -> int:
        """The value of white: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)


def without_pixels() -> Picture:
    """A picture of one black pixel, for readers that collect what a file carries before its pixels."""
    return Picture(np.zeros((1, 1, 1), np.uint8))


def to_tensor(picture: Picture, first: int = 0, end: int | None = None) -> Tensor:
    """The colours as a (1, 3, H, W) float32 tensor in [0, 1], in its own memory; grey is repeated in the
    three channels.

    Args:
        picture: a picture of any depth.
        first, end: the first row wanted, and the last + 1; None for all below.
    """
    levels = torch.from_numpy(np.require(picture.pixels[first:end], requirements=("C", "W")))
    # Stays interleaved in memory, which suits convolutions.
    colours = levels.to(torch.float32).div_(picture.largest).permute(2, 0, 1)[None]
    return colours if colours.shape[1] == 3 else colours.repeat(1, 3, 1, 1)


def with_pixels(picture: Picture, tensor: Tensor) -> Picture:
    """`picture` with other colours, in the same depth; everything else is carried over.

    Values are clamped to [0, 1] and rounded, half to even; a grey picture gets the mean of the channels.
    `with_pixels(p, to_tensor(p))` equals `p` bit for bit.

    Args:
        picture: the picture whose size, depth and metadata the result has.
        tensor: (1, 3, H, W) or (3, H, W), of the picture's size.

    Raises:
        DerainError: a value is not finite.
    """
    assert tensor.shape[-2:] == picture.size, (tensor.shape, picture.size)
    return replace(picture, pixels=to_pixels(picture, tensor))


def to_pixels(picture: Picture, tensor: Tensor) -> Array:
    """Rows of a tensor, (1, 3, h, W) or (3, h, W), as (h, W, C) pixels of the picture's kind.

    See `with_pixels`, which raises the same errors.
    """
    tensor = tensor[0] if tensor.ndim == 4 else tensor
    assert tensor.shape[::2] == (3, picture.size[1]), (tensor.shape, picture.size)
    if picture.pixels.shape[2] == 1:
        # In float64 the mean of three equal float32 values is that value exactly.
        tensor = tensor.mean(0, keepdim=True, dtype=torch.float64)
    return quantised(tensor, picture.largest)


def grey_pixels(tensor: Tensor) -> Array:
    """A (1, 1, H, W) tensor in [0, 1], such as a mask or an uncertainty, as (H, W, 1) uint8.

    Raises:
        DerainError: a value is not finite.
    """
    assert tensor.ndim == 4, tensor.shape
    assert tensor.shape[:2] == (1, 1), tensor.shape
    return quantised(tensor[0], 255)


def quantised(tensor: Tensor, largest: int) -> Array:
    """(C, H, W) on any device, clamped to [0, 1] -> (H, W, C): uint8 for a `largest` value of 255, uint16 for
    65535; rounded half to even.

    Raises:
        DerainError: a value is not finite.
    """
    values = tensor.detach()
    values = values if values.dtype == torch.float64 else values.float()
    if not torch.isfinite(values.sum()):  # in one pass, and without an array of booleans
        raise DerainError(
            "the network produced values that are not finite.", Remedy("avoid it", {"precision": "float32"})
        )
    levels = values.clamp(0, 1).mul_(largest).round_().permute(1, 2, 0)
    if largest == 255:
        return levels.to(torch.uint8).contiguous().cpu().numpy()
    return levels.cpu().numpy().astype(np.uint16, order="C")


def to_rgb8(picture: Picture) -> Array:
    """The colours as (H, W, 3) uint8 for display: 16 bits rounded to 8, grey repeated, alpha left out."""
    return np.repeat(to_8_bits(picture.pixels), 3 // picture.pixels.shape[2], axis=2)


def to_8_bits(values: Array) -> Array:
    """uint16 rounded to uint8 (65535 -> 255); uint8 unchanged."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
