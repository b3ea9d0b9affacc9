"""Local operations applied window by window, with the same result as on the whole picture.

A chain of convolutions reads a few pixels around each pixel that it writes (its halo). Cut into
windows that overlap by the halo, a wide layer needs buffers of only a few MiB however large the picture
is, and these stay in the processor's cache, where depthwise convolutions run two to four times
faster than from memory. Sides of a window on the picture's border keep their zero padding; at the others
real neighbours take its place, so only the order of the work changes.

While gradients are recorded, all intermediate results are kept anyway, so the whole picture is one window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.nn.tracing import constant, is_tracing

# Numbers in one buffer of a window: 4 MiB of float32 on a CPU; enough to fill a GPU elsewhere.
CPU_NUMBERS = 2**20
GPU_NUMBERS = 2**26
SMALLEST_SIDE = 16
BAND_ROWS = 12  # rows that a band has at least, per row of halo


class Sides(NamedTuple):
    """The sides on which the picture continues beyond the window."""

    top: bool = False
    bottom: bool = False
    left: bool = False
    right: bool = False


def by_windows(
    function: Callable[..., Tensor],
    x: Tensor,
    halo: int,
    channels: int,
    others: Sequence[Tensor] = (),
    band_rows: int = BAND_ROWS,
) -> Tensor:
    """Applies a local function to the whole picture.

    Args:
        function: called with a window extended by `halo` pixels on each of the `sides`, the sides, and
            the same window of the others; its result is without the halo. Its convolutions use `conv`,
            or the padding that `padding` gives.
        x: (B, C, H, W).
        halo: how many pixels on each side a result depends on.
        channels: the channels of the widest buffer inside the function.
        others: further maps (B, any, H, W) that the function takes.
        band_rows: how many rows a window as wide as the picture has at least, per row of halo.

    Returns:
        (B, C', H, W) in channels-last memory.
    """
    batch, _, height, width = x.shape
    # An exported graph is for pictures of any size, so how many windows there are cannot be part of it.
    if torch.is_grad_enabled() or is_tracing() or _is_small(x, channels):
        return function(x, Sides(), *others)
    rows_at_most, columns_at_most = _window_shape(x, halo, channels, band_rows)
    result = None
    for top, bottom in _even_parts(height, rows_at_most):
        for left, right in _even_parts(width, columns_at_most):
            sides = Sides(top > 0, bottom < height, left > 0, right < width)
            rows = slice(top - halo * sides.top, bottom + halo * sides.bottom)
            columns = slice(left - halo * sides.left, right + halo * sides.right)
            window, *more = (map_[:, :, rows, columns] for map_ in (x, *others))
            part = function(window, sides, *more)
            if result is None:
                shape = (batch, part.shape[1], height, width)
                result = torch.empty(
                    shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last
                )
            result[:, :, top:bottom, left:right] = part
    assert result is not None
    return result


def _is_small(x: Tensor, channels: int) -> bool:
    batch, _, height, width = x.shape
    return batch * channels * height * width <= _numbers(x)


def _window_shape(x: Tensor, halo: int, channels: int, band_rows: int) -> tuple[int, int]:
    """Rows and columns of a window without its halo.

    Bands as wide as the picture, which are contiguous in memory, so that nothing needs to be copied;
    squares if a band would have so few rows that its halo costs too much.
    """
    pixels = _numbers(x) // (channels * len(x))
    width = x.shape[3]
    rows = pixels // width - 2 * halo
    if rows >= band_rows * halo:
        return rows, width
    side = max(math.isqrt(pixels) - 2 * halo, SMALLEST_SIDE)
    return side, side


def _numbers(x: Tensor) -> int:
    return CPU_NUMBERS if x.device.type == "cpu" else GPU_NUMBERS


def _even_parts(length: int, most: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of as few parts as possible with at most `most` pixels, of nearly equal length."""
    count = -(-length // most)
    for number in range(count):
        yield number * length // count, (number + 1) * length // count


def crop(x: Tensor, sides: Sides, pixels: int) -> Tensor:
    """(B, C, H, W) without these pixels on those sides; a view."""
    if not any(sides):
        return x
    height, width = x.shape[2:]
    rows = slice(pixels * sides.top, height - pixels * sides.bottom)
    columns = slice(pixels * sides.left, width - pixels * sides.right)
    return x[:, :, rows, columns]


def crop_to(x: Tensor, like: Tensor, sides: Sides) -> Tensor:
    """(B, C, H, W) cropped on those sides to the size of `like`; a view."""
    if not any(sides):
        return x
    top = _before(x.shape[2] - like.shape[2], sides.top, sides.bottom)
    left = _before(x.shape[3] - like.shape[3], sides.left, sides.right)
    return x[:, :, top : top + like.shape[2], left : left + like.shape[3]]


def _before(excess: int, first: bool, last: bool) -> int:
    return excess // (first + last) if first else 0


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, sides: Sides, dilation: int = 1, groups: int = 1
) -> Tensor:
    """A convolution of a window: zero padding at the picture's sides, real neighbours at the others.

    The library pads both ends of an axis alike. So an axis that continues at both ends loses r pixels
    at each, r = dilation (k - 1) / 2; any other keeps its length, and the outer r pixels at the end that
    continues become invalid. `crop_to` at the end of a chain removes either.

    Args:
        x: (B, C, h, w).
        weight: (C', C / groups, k, k), k odd.
        bias: (C',) or None.
    """
    r = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, constant(weight), bias, 1, padding(sides, r), dilation, groups)


def padding(sides: Sides, r: int) -> tuple[int, int]:
    """Zeros around the rows and around the columns of a window, as in `conv`."""
    return 0 if sides.top and sides.bottom else r, 0 if sides.left and sides.right else r
