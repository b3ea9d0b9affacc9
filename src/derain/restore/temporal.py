"""Steadying a restored video: each frame is averaged with its neighbours where they agree.

For still or slow scenes. Where something moves, the neighbours differ and are left out, so that moving
objects neither smear nor vanish.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 2  # frames before and after
WINDOW = 7  # pixels, side of the square over which agreement is judged
AGREEMENT = 4 / 255  # difference at which a neighbour counts exp(-1/2) as much as the frame itself


def steady(images: Iterator[Tensor]) -> Iterator[Tensor]:
    """The frames of a clip, steadied; each appears as soon as `RADIUS` later ones are known.

    Args:
        images: (3, H, W) float RGB in [0, 1], all of one size, in the order of time.
    """
    window: deque[Tensor] = deque(maxlen=2 * RADIUS + 1)
    due = 0  # the position in the window of the frame that comes out next
    for image in images:
        due -= len(window) == window.maxlen  # the oldest frame is dropped
        window.append(image)
        if len(window) > due + RADIUS:
            yield weighted_mean(list(window), due)
            due += 1
    for position in range(due, len(window)):
        yield weighted_mean(list(window), position)


def weighted_mean(window: list[Tensor], position: int) -> Tensor:
    """The weighted mean of a frame and its neighbours.

    A neighbour weighs exp(-d^2 / 2 a^2) at a pixel, d being the difference from the frame in the mean
    over `WINDOW` x `WINDOW` pixels and all channels, a `AGREEMENT`.

    Args:
        window: frames (3, H, W) in the order of time.
        position: of the frame to steady, within `window`; those more than `RADIUS` away are left out.
    """
    centre = window[position]
    total, weights = centre.clone(), torch.ones_like(centre[:1])
    for distance, neighbour in enumerate(window, -position):
        if distance == 0 or abs(distance) > RADIUS:
            continue
        difference = (neighbour - centre).abs().mean(0, keepdim=True)
        local = F.avg_pool2d(difference[None], WINDOW, 1, WINDOW // 2, count_include_pad=False)[0]
        weight = torch.exp(-0.5 * (local / AGREEMENT) ** 2)
        total += weight * neighbour
        weights += weight
    return total / weights
