"""Local work done window by window, with the result of doing it on the whole picture.

A chain of convolutions reads a few pixels around each pixel that it writes (its halo). Cut into
windows that overlap by the halo, a wide layer needs buffers of a few MiB however large the picture
is, and they stay in the processor's cache, where depthwise convolutions run two to four times
faster than from memory. Sides of a window that are the picture's own keep their zero padding; at the
others real neighbours take its place, so nothing changes but the order of the work.

While gradients are recorded every intermediate is kept anyway, so the whole picture is one window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Numbers in one buffer of a window: 4 MiB of float32 on a CPU; enough to fill a GPU elsewhere.
CPU_NUMBERS = 2**20
GPU_NUMBERS = 2**26
SMALLEST_SIDE = 16


class Sides(NamedTuple):
    """On which sides the picture goes on beyond the window."""

    top: bool = False
    bottom: bool = False
    left: bool = False
    right: bool = False


def by_windows(function: Callable[[Tensor, Sides], Tensor], x: Tensor, halo: int, channels: int) -> Tensor:
    """A function of local reach over the whole picture.

    Args:
        function: given a window that `halo` pixels were added to on each of the `sides`, its result
            without them; all its convolutions go through `conv`.
        x: (B, C, H, W).
        halo: pixels that the result depends on, to each side.
        channels: of the widest buffer inside the function.

    Returns:
        (B, C', H, W) in channels-last memory.
    """
    batch, _, height, width = x.shape
    side = _window_side(x, halo, channels)
    if side >= max(height, width):
        return function(x, Sides())
    result = None
    for top, bottom in _even_parts(height, side):
        for left, right in _even_parts(width, side):
            sides = Sides(top > 0, bottom < height, left > 0, right < width)
            rows = slice(top - halo * sides.top, bottom + halo * sides.bottom)
            columns = slice(left - halo * sides.left, right + halo * sides.right)
            part = function(x[:, :, rows, columns], sides)
            if result is None:
                shape = (batch, part.shape[1], height, width)
                result = torch.empty(
                    shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last
                )
            result[:, :, top:bottom, left:right] = part
    assert result is not None
    return result


def _window_side(x: Tensor, halo: int, channels: int) -> int:
    if torch.is_grad_enabled():
        return max(x.shape[2:])
    numbers = CPU_NUMBERS if x.device.type == "cpu" else GPU_NUMBERS
    return max(math.isqrt(numbers // (channels * x.shape[0])) - 2 * halo, SMALLEST_SIDE)


def _even_parts(length: int, most: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of as few parts as possible with at most `most` pixels, of nearly equal length."""
    count = -(-length // most)
    for number in range(count):
        yield number * length // count, (number + 1) * length // count


def crop(x: Tensor, sides: Sides, pixels: int) -> Tensor:
    """(B, C, H, W) without so many pixels on those sides; a view."""
    height, width = x.shape[2:]
    return x[
        :,
        :,
        pixels * sides.top : height - pixels * sides.bottom,
        pixels * sides.left : width - pixels * sides.right,
    ]


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, sides: Sides, dilation: int = 1, groups: int = 1
) -> Tensor:
    """A convolution of a window: zero padding at the picture's sides, real neighbours used up at others.

    Args:
        x: (B, C, h, w); on `sides` it has at least r = dilation (k - 1) / 2 pixels to spare.
        weight: (C', C / groups, k, k), k odd.
        bias: (C',) or None.

    Returns:
        (B, C', h', w'), r pixels less than x on each of the sides.
    """
    r = dilation * (weight.shape[-1] // 2)
    # The library pads both ends of an axis alike: where only one is the picture's, cut the other.
    rows, columns = sides.top and sides.bottom, sides.left and sides.right
    padding = (0 if rows else r, 0 if columns else r)
    y = F.conv2d(x, weight, bias, 1, padding, dilation, groups)
    cut = Sides(
        sides.top and not rows,
        sides.bottom and not rows,
        sides.left and not columns,
        sides.right and not columns,
    )
    return crop(y, cut, r)
