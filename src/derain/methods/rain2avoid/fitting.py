"""Fitting a network to references made from rainy pictures."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.errors import DerainError
from derain.methods.network import RainNetwork
from derain.methods.rain2avoid.backbones import DnCNN, ResNet, UNet
from derain.methods.rain2avoid.batches import WHOLE_PIXELS, batches, is_large, padded, random_crop
from derain.methods.rain2avoid.presets import Preset
from derain.methods.self_supervision import Fit, FitOptions, Target
from derain.nn.ema import move_average

SEED = 3  # as published, but reset for every network, so that the order of networks does not matter
PATIENCE = 100  # steps within which the loss must fall by 1 per cent; otherwise learning ends
TRAINED_SHARE = 0.1  # of the steps and of the learning rate, for networks that are already trained


def fit(targets: Sequence[Target], network: RainNetwork, preset: Preset, options: FitOptions) -> Fit:
    """Fits `network`, in place, to the references of the targets.

    Args:
        targets: at least one.
        network: untrained or trained, as the options say.
        preset: how to learn.
        options: how long, and on what.

    Raises:
        DerainError: the loss is no longer finite.
    """
    began = time.monotonic()
    network = _prepared(network, preset, options)
    schedule = preset.together if options.together else preset.alone
    pairs = batches(targets, network, schedule)
    share = TRAINED_SHARE if options.trained else 1
    rate, steps = preset.learning_rate * share, round(schedule.steps * share)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    average = network if preset.published else copy.deepcopy(network)
    all_pixels = sum(target.rainy.shape[2] * target.rainy.shape[3] for target in targets)
    losses: list[float] = []
    ended, to_restore = "steps", 0.0
    least = 1 if options.together else 0  # alone, the reference serves as the result; together there is none
    for step in range(steps):
        gone = _share_gone(time.monotonic() - began + to_restore, options.seconds)
        if gone >= 1 and step >= least:
            ended = "time"
            break
        if not preset.published:
            optimizer.param_groups[0]["lr"] = rate * (1 - max(step / steps, gone if gone < 1 else 0))
        rainy, clean = (batch.to(options.device) for batch in next(pairs))
        losses.append(_step(network, optimizer, rainy, clean, options.precision))
        if not np.isfinite(losses[-1]):
            raise DerainError(f"learning failed: the loss is {losses[-1]} after {step + 1} steps.")
        # A step costs three forward passes; a picture's statistics and overlapping tiles as many.
        pixels = rainy.shape[0] * rainy.shape[2] * rainy.shape[3]
        to_restore = (time.monotonic() - began) / (step + 1) * all_pixels / pixels
        options.progress(step + 1, steps)
        if not preset.published:
            move_average(average, network, min(0.98, step / (step + 10)))
            if has_settled(losses):
                ended = "settled"
                break
    if preset.first_paper or not preset.published:
        set_statistics(average, [target.rainy for target in targets], options.device)
    return Fit(average.cpu().eval(), ended, losses, to_restore)


def _prepared(network: RainNetwork, preset: Preset, options: FitOptions) -> RainNetwork:
    """The network itself, ready for the first step; sets PyTorch's seed."""
    if not options.trained and not preset.published:
        start_at_identity(network)
    torch.manual_seed(SEED)
    network = network.to(options.device).train()
    if isinstance(network, UNet | ResNet | DnCNN) and not preset.published:
        network = network.in_channels_last()  # faster for their convolutions in training, too
    return network


def _share_gone(seconds: float, limit: float | None) -> float:
    """How much of the time limit is used up, 1 for all of it; 0 without a limit."""
    return 0.0 if limit is None else seconds / max(limit, 1e-9)


def _step(
    network: RainNetwork, optimizer: torch.optim.Adam, rainy: Tensor, clean: Tensor, precision: torch.dtype
) -> float:
    """One step on a batch; its loss."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(rainy.device.type, precision, enabled=precision != torch.float32):
        output = network(rainy)
    loss = F.mse_loss(output.float(), clean)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()


def start_at_identity(network: nn.Module) -> None:
    """Makes an untrained U-Net nearly return its input, so that it only has to learn the rain."""
    if isinstance(network, UNet):
        with torch.no_grad():
            convolution = network.get_submodule("dec_1.conv")
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            convolution.weight.mul_(0.1)
            convolution.bias.zero_()
            channels = convolution.out_channels
            convolution.weight[:, -channels:, 1, 1] += torch.eye(channels)


def has_settled(losses: Sequence[float]) -> bool:
    """Whether the last `PATIENCE` losses are barely lower than those before."""
    if len(losses) < 2 * PATIENCE:
        return False
    before, after = np.mean(losses[-2 * PATIENCE : -PATIENCE]), np.mean(losses[-PATIENCE:])
    return bool(after > 0.99 * before)


def set_statistics(network: RainNetwork, pictures: Sequence[Tensor], device: torch.device | str) -> None:
    """Sets the running averages of BatchNorm to the statistics of the pictures, equally weighted."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    network.train()
    side = int(WHOLE_PIXELS**0.5)
    with torch.no_grad():
        for picture in pictures:
            if is_large(picture):
                for _ in range(8):
                    network(padded(network, *random_crop(picture, picture, side))[0].to(device))
            else:
                network(padded(network, picture, picture)[0].to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
