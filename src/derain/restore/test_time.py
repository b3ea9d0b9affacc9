"""Ways to improve a network's results without training: averages over flips and turns, or phases.

Sources: flips and turns as in Timofte et al., "Seven ways to improve example-based single image super
resolution", CVPR 2016; pixel-shuffle-down as in Zhou et al., "When AWGN-based Denoiser Meets Real Noises",
AAAI 2020.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Position = tuple[int, bool]  # quarter turns, and whether the turned picture is mirrored

PLAIN: tuple[Position, ...] = ((0, False),)
FLIPS: tuple[Position, ...] = ((0, False), (0, True), (2, False), (2, True))
TURNS: tuple[Position, ...] = tuple((quarter, flipped) for quarter in range(4) for flipped in (False, True))

# The options, and what they do.
TEST_TIME = {
    "flips": "the average over the four flips",
    "turns": "the average over the eight flips and quarter turns",
    "phases": "pixel-shuffle-down: the four half-size phases one by one, put together again",
}


def positions(ensemble: bool | str, learnt: str = "flips") -> tuple[Position, ...]:
    """The positions to average over.

    Args:
        ensemble: "flips"; "turns"; True for those used in training; False for only the original.
        learnt: "turns" if the weights were trained on rain from all sides. Otherwise they know only rain
            that falls down, and leave it in a picture on its side, which spoils an average over all turns.
    """
    return {False: PLAIN, True: TURNS if learnt == "turns" else FLIPS, "flips": FLIPS, "turns": TURNS}[
        ensemble
    ]


def turned(picture: Tensor, position: Position) -> Tensor:
    """Turns (..., H, W) to another position."""
    quarter, flipped = position
    picture = torch.rot90(picture, quarter, (-2, -1))
    return picture.flip(-1) if flipped else picture


def turned_back(picture: Tensor, position: Position) -> Tensor:
    """Undoes `turned`."""
    quarter, flipped = position
    picture = picture.flip(-1) if flipped else picture
    return torch.rot90(picture, -quarter, (-2, -1))


def split_phases(pictures: Tensor) -> Tensor:
    """(B, C, H, W) -> (4 B, C, ceil(H/2), ceil(W/2)): each picture's even and odd rows and columns.

    Where a side is odd, its last row or column is repeated.
    """
    height, width = pictures.shape[-2:]
    even = torch.nn.functional.pad(pictures, (0, width % 2, 0, height % 2), mode="replicate")
    phases = torch.stack([even[..., top::2, left::2] for top in (0, 1) for left in (0, 1)], dim=1)
    return phases.flatten(0, 1)


def join_phases(phases: Tensor, height: int, width: int) -> Tensor:
    """Undoes `split_phases`: (4 B, C, h, w) -> (B, C, height, width)."""
    count, channels, h, w = phases.shape
    grid = phases.reshape(count // 4, 2, 2, channels, h, w).permute(0, 3, 4, 1, 5, 2)
    return grid.reshape(count // 4, channels, 2 * h, 2 * w)[..., :height, :width].contiguous()


def with_test_time(restore: Callable[[Tensor], Tensor], name: str) -> Callable[[Tensor], Tensor]:
    """Wraps `restore`, which maps (B, 3, H, W) to the same shape, in an option of `TEST_TIME`."""

    def phase_by_phase(rainy: Tensor) -> Tensor:
        phases = torch.cat([restore(phase[None]) for phase in split_phases(rainy)])
        return join_phases(phases, *rainy.shape[-2:])

    def averaged(rainy: Tensor) -> Tensor:
        places = positions(name)
        return sum(turned_back(restore(turned(rainy, p)), p) for p in places) / torch.tensor(len(places))

    return phase_by_phase if name == "phases" else averaged
