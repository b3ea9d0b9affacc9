"""Validates a network in training, under a published protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from derain.data.patches import Pictures, levels_to_tensor, read_pair
from derain.evaluation import protocol
from derain.methods.network import RainNetwork
from derain.nn.padding import pad_to_multiple
from derain.restore.tiles import published_axis, run_tiles
from derain.training.batches import HeldOut
from derain.training.recipe import Validation

RAIN_SEED = 20_190_415  # the same rain for every run, independent of training seeds


def pairs(held_out: HeldOut, validation: Validation) -> Iterator[tuple[Tensor, Tensor]]:
    """Rainy and clean pictures, (1, 3, H, W) each; synthetic rain depends only on the picture's index."""
    for source, number in held_out:
        if isinstance(source.rain, Pictures):
            rainy, clean = read_pair(source.rain, source.clean, number)
        else:
            clean = rainy = source.clean[number]
        if validation.patch:
            top, left = (max(side - validation.patch, 0) // 2 for side in clean.shape[:2])
            window = np.s_[top : top + validation.patch, left : left + validation.patch]
            rainy, clean = rainy[window], clean[window]
        if not isinstance(source.rain, Pictures):
            rng = np.random.default_rng([RAIN_SEED, number])
            rainy, clean = source.rain(rng, np.ascontiguousarray(clean))
        yield levels_to_tensor(rainy)[None], levels_to_tensor(clean)[None]


def validate(
    network: RainNetwork,
    validation: Validation,
    held_out: HeldOut,
    process: int,
    processes: int,
    device: torch.device,
) -> tuple[list[dict[str, float]], Tensor | None]:
    """The figures for this process's share of the pictures, and one sample.

    Args:
        network: in any mode; it is in evaluation mode meanwhile.
        validation: the protocol, and how large a part of each picture is used.
        held_out: the pictures of all processes.
        process, processes: the index of this process, and their number.
        device: the network's device.

    Returns:
        One dict per picture with the protocol's figures ("psnr", "ssim") and those of the rainy
        picture itself ("rainy_psnr", ...); rainy, restored and clean side by side (3, H, 3W), None
        for processes other than the first.
    """
    measure = protocol(validation.protocol)
    scores, sample = [], None
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for rainy, clean in pairs(held_out[process::processes], validation):
            restored = restore(network, rainy.to(device)).float().cpu()
            figures = measure(restored, clean)
            before = {f"rainy_{name}": value for name, value in measure(rainy, clean).items()}
            scores.append({**figures, **before})
            if sample is None and process == 0:
                sample = torch.cat([rainy, restored, clean], 3)[0]
    network.train(was_training)
    return scores, sample


def restore(network: RainNetwork, rainy: Tensor) -> Tensor:
    """`network` on a picture (1, 3, H, W) of any size, padded and tiled as its test protocol does."""
    height, width = rainy.shape[-2:]
    tile = network.spec.tile
    padded = pad_to_multiple(rainy, network.spec.multiple_of)
    if tile is None:
        restored: Tensor = network(padded)
    else:
        rows, columns = (published_axis(side, tile.size, tile.overlap) for side in padded.shape[-2:])
        restored = run_tiles(padded, lambda part: {"image": network(part)}, rows, columns)["image"]
    return restored[..., :height, :width]


def means(scores: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every figure over the pictures; infinite values (equal pictures) are left out."""
    result = {}
    for name in scores[0]:
        finite = [score[name] for score in scores if math.isfinite(score[name])]
        result[name] = sum(finite) / len(finite) if finite else math.inf
    return result
