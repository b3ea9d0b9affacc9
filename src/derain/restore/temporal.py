"""Reduces flicker in a restored video: each frame is averaged with its neighbours where they agree.

Meant for still or slow scenes. Where something moves, the neighbours differ and are left out, so that moving
objects neither smear nor vanish.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 2  # frames before and after
WINDOW = 7  # pixels: side of the square over which agreement is judged
AGREEMENT = 4 / 255  # difference at which a neighbour counts exp(-1/2) as much as the frame itself


def steady(images: Iterator[Tensor]) -> Iterator[Tensor]:
    """The frames of a clip with less flicker; each is yielded once `RADIUS` later ones have been read.

    Args:
        images: (3, H, W) float RGB in [0, 1], all of one size, in the order of time.
    """
    window: deque[Tensor] = deque(maxlen=2 * RADIUS + 1)
    due = 0  # the position in the window of the next frame to yield
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

    At each pixel a neighbour has the weight exp(-d^2 / 2 a^2), where d is its difference from the frame,
    averaged over `WINDOW` x `WINDOW` pixels and all channels, and a is `AGREEMENT`.

    Args:
        window: frames (3, H, W) in the order of time.
        position: the index in `window` of the frame to average; those more than `RADIUS` away are left out.
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
