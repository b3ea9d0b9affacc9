"""A picture turned by whole degrees, and its grey, byte for byte as Rain2Avoid's published maps need them.

Rotation by fixed-point bilinear sampling, as OpenCV 3 and 4 do it, but not OpenCV 5. Arrays are NumPy's:
exact integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain.methods.self_supervision import Bytes

STRIP_PIXELS = 1 << 16  # what a pass works on at once: fits the cache, bounds the memory
FIELD = 21  # bits per channel of a packed pixel: 8 bits of value, 10 of weight, room to round


def grey(picture: Bytes) -> Bytes:
    """BT.601 grey of an (..., 3) RGB picture in 15-bit fixed point."""
    return _weighted(*(picture[..., channel].astype(np.int32) for channel in range(3)))


def _weighted(r: NDArray[Any], g: NDArray[Any], b: NDArray[Any]) -> Bytes:
    value: Bytes = ((9798 * r + 19235 * g + 3735 * b + 16384) >> 15).astype(np.uint8)
    return value


def turned_size(height: int, width: int, theta: int) -> tuple[int, int]:
    """Height and width of the canvas that holds the turned picture."""
    sine, cosine = abs(np.sin(theta * np.pi / 180)), abs(np.cos(theta * np.pi / 180))
    return int(height * cosine + width * sine), int(height * sine + width * cosine)


def turn(picture: Bytes, theta: int) -> Bytes:
    """A (H, W) or (H, W, 3) picture, turned counter-clockwise on a white canvas that holds it."""
    height, width = turned_size(picture.shape[0], picture.shape[1], theta)
    channels = picture.shape[2] if picture.ndim == 3 else 1
    strips = [_unpacked(strip, channels) for strip in _turned_strips(picture, theta, height, width, 0, 0)]
    return np.concatenate(strips).reshape(height, width, *picture.shape[2:])


def turn_back(turned: Bytes, theta: int, height: int, width: int) -> Bytes:
    """The (height, width) window, turned by -theta, that held the picture before turning."""
    if theta == 0:
        return turned
    sine, cosine = np.sin(abs(theta) * np.pi / 180), np.cos(abs(theta) * np.pi / 180)
    left, top = int(height * cosine * sine), int(width * sine * cosine)
    strips = _turned_strips(turned, -theta, height, width, top, left)
    return np.concatenate([_unpacked(strip, 1) for strip in strips]).reshape(height, width)


def turned_grey(picture: Bytes, theta: int) -> Bytes:
    """Turned in colour, then grey, (H', W')."""
    if theta == 0:
        return grey(picture)
    height, width = turned_size(picture.shape[0], picture.shape[1], theta)
    strips = _turned_strips(picture, theta, height, width, 0, 0)
    return np.concatenate([_packed_grey(strip) for strip in strips]).reshape(height, width)


def _turned_strips(
    picture: Bytes, theta: int, height: int, width: int, top: int, left: int
) -> Iterator[NDArray[np.int64]]:
    """The window (top, left, height, width) of the turned canvas, some rows at a time.

    Bilinear sampling with 5 fractional bits, white outside. All channels of a pixel travel in one
    64-bit integer, whose fields hold 1024 times the value, rounding included.
    """
    packed = _packed(np.pad(picture, [(2, 2), (2, 2), (0, 0)][: picture.ndim], constant_values=255))
    source, stride = packed.reshape(-1), packed.shape[1]
    a = _inverse(picture.shape[0], picture.shape[1], theta)
    half = sum(512 << FIELD * channel for channel in range(3))
    x = np.rint(a[0] * np.arange(left, left + width) * 1024).astype(np.int64)
    y = np.rint(a[3] * np.arange(left, left + width) * 1024).astype(np.int64)
    step = max(1, STRIP_PIXELS // width)
    for start in range(top, top + height, step):
        row = np.arange(start, min(start + step, top + height))[:, None]
        column_at = (np.rint((a[1] * row + a[2]) * 1024).astype(np.int64) + 16 + x) >> 5
        row_at = (np.rint((a[4] * row + a[5]) * 1024).astype(np.int64) + 16 + y) >> 5
        u, w = column_at & 31, row_at & 31
        column = np.clip((column_at >> 5) + 2, 0, packed.shape[1] - 2)
        at = np.clip((row_at >> 5) + 2, 0, packed.shape[0] - 2) * stride + column
        upper = source.take(at)
        upper = (upper << 5) + (source.take(at + 1) - upper) * u
        at += stride
        lower = source.take(at)
        lower = (lower << 5) + (source.take(at + 1) - lower) * u
        yield (upper << 5) + (lower - upper) * w + half


def _inverse(height: int, width: int, theta: int) -> tuple[float, float, float, float, float, float]:
    """The 2x3 matrix from canvas to picture, row by row, of turning by theta about the centre."""
    new_height, new_width = turned_size(height, width, theta)
    c, s = float(np.cos(theta * np.pi / 180)), float(np.sin(theta * np.pi / 180))
    cx, cy = width / 2, height / 2
    m02 = (1 - c) * cx - s * cy + new_width / 2 - width / 2
    m12 = s * cx + (1 - c) * cy + new_height / 2 - height / 2
    d = 1 / (c * c + s * s)
    i00, i01, i10, i11 = c * d, -s * d, s * d, c * d
    return i00, i01, -i00 * m02 - i01 * m12, i10, i11, -i10 * m02 - i11 * m12


def _packed(picture: Bytes) -> NDArray[np.int64]:
    if picture.ndim == 2:
        return picture.astype(np.int64)
    r, g, b = (picture[..., channel].astype(np.int64) for channel in range(3))
    return r | g << FIELD | b << 2 * FIELD


def _unpacked(strip: NDArray[np.int64], channels: int) -> Bytes:
    fields = [(strip >> (FIELD * channel + 10)).astype(np.uint8) for channel in range(channels)]
    return np.stack(fields, -1)


def _packed_grey(strip: NDArray[np.int64]) -> Bytes:
    return _weighted(*((strip >> (FIELD * channel + 10)) & 255 for channel in range(3)))
