"""Batches of rainy pictures and references to which a network is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from derain.methods.network import RainNetwork
from derain.methods.rain2avoid.presets import Schedule
from derain.methods.self_supervision import Target
from derain.nn.padding import pad_to, pad_to_multiple

WHOLE_PIXELS = 512 * 512  # larger pictures are trained on in crops of this many pixels
LEAST_SIDE = 64  # padded to it, as BatchNorm needs more than one value per channel at the deepest level


def batches(
    targets: Sequence[Target], network: RainNetwork, schedule: Schedule
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rainy pictures and references, endlessly; the targets take turns.

    Small crops are flipped at random and get a random reference; whole pictures go through the
    references in the alphabetical order of their published file names (0, 1, 10, 11, ...).
    """
    turn = 0
    while True:
        pairs = []
        for _ in range(schedule.batch):
            target = targets[turn % len(targets)]
            if schedule.crop is None:
                pair = target.rainy, _reference(target, turn // len(targets), shuffled=False)
                if is_large(target.rainy):
                    pair = random_crop(*pair, int(WHOLE_PIXELS**0.5))
            else:
                pair = random_crop(target.rainy, _reference(target, turn, shuffled=True), schedule.crop)
                if torch.rand(()) < 0.5:
                    pair = pair[0].flip(3), pair[1].flip(3)
            pairs.append(padded(network, *pair))
            turn += 1
        rainy, clean = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        yield rainy, clean


def _reference(target: Target, turn: int, shuffled: bool) -> Tensor:
    """The mean reference, or one of those drawn, (1, 3, H, W)."""
    draws = target.references
    if draws is None:
        return target.mean
    order = sorted(range(len(draws)), key=str)
    draw = int(torch.randint(len(draws), ())) if shuffled else order[turn % len(draws)]
    return torch.from_numpy(draws[draw]).permute(2, 0, 1)[None] / 255


def is_large(picture: Tensor) -> bool:
    """Whether a picture is trained on in crops."""
    return picture.shape[2] * picture.shape[3] > WHOLE_PIXELS


def random_crop(rainy: Tensor, clean: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The same random square of both; smaller pictures are reflected first."""
    height, width = (max(side, length) for length in rainy.shape[2:])
    rainy, clean = (pad_to(x, height, width) for x in (rainy, clean))
    top = int(torch.randint(height - side + 1, ()))
    left = int(torch.randint(width - side + 1, ()))
    area = (..., slice(top, top + side), slice(left, left + side))
    return rainy[area], clean[area]


def padded(network: RainNetwork, *pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Both reflected to a size that the network takes."""
    multiple = network.spec.multiple_of
    rainy, clean = (pad_to_multiple(picture, multiple, LEAST_SIDE) for picture in pictures)
    return rainy, clean
