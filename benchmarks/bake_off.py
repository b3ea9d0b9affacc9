"""Designs of this project's own network compared at equal processor time of training.

    python benchmarks/bake_off.py CLEAN_FOLDER figures.json [--minutes 60] [--only plain gated ...]

Every design learns from the same batches in the same order, each for so many minutes of one processor core,
made rain not counted; then its average restores the same held-out pictures. Blocks of 1x1 convolutions
learn with Adam, since Muon at the rate of the others hardly moved them. Designs that the file holds already
are skipped, so a run that was stopped goes on. Ends with a table.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.atomic import replace_file
from derain.evaluation.similarity import psnr
from derain.methods.everyday import METHOD
from derain.methods.everyday.loss import EverydayLoss
from derain.methods.everyday.network import Everyday, start_small
from derain.nn.ema import move_average
from derain.training.batches import batches, open_sources, to_device
from derain.training.optimizers import make_optimizer
from derain.training.recipe import Optimizer, Recipe, checked
from derain.training.schedule import Cosine, rate_at
from derain.training.validation import pairs

TAUGHT = {"light": 0.4, "near": 0.4, "dry": 0.2}  # rain of the training data, with its shares
JUDGED = ("light", "near")
CPU = torch.device("cpu")
SIDE = 512  # of the picture whose seconds and multiply-adds are told
Rule = Literal["muon", "adam"]
RATES: dict[Rule, float] = {"muon": 1.5e-3, "adam": 1e-3}
FALL = Cosine(name="cosine", length=10_000)  # of the time of training, in steps of a ten-thousandth
MAX_STEPS = 100_000


class Gated(nn.Module):
    """x + a 1x1 convolution of the product of two halves, after 3x3 kernels of one channel each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, 2 * channels, 1)
        self.near = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.join = nn.Conv2d(channels, channels, 1)
        start_small(self.join)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.near(self.spread(normalised(x))).chunk(2, 1)
        joined: Tensor = self.join(first * second)
        return x + joined


class LargeKernel(nn.Module):
    """x + two 1x1 convolutions, to twice the channels and back, after 7x7 kernels of one channel each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.spread = nn.Conv2d(channels, 2 * channels, 1)
        self.join = nn.Conv2d(2 * channels, channels, 1)
        start_small(self.join)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.join(F.relu(self.spread(normalised(self.wide(x)))))
        return x + joined


def normalised(x: Tensor) -> Tensor:
    """The values of every pixel over their root mean square, without which these blocks hardly learn."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


class Reparameterised(nn.Module):
    """The plain block, each 3x3 kernel trained as the sum of a 3x3 one and a 1x1 one; one when restoring."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.first_point, self.second_point = (nn.Conv2d(channels, channels, 1, bias=False) for _ in range(2))
        start_small(self.second)
        nn.init.normal_(self.second_point.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return x + _sum(self.second, self.second_point, F.relu(_sum(self.first, self.first_point, x)))


def _sum(square: nn.Conv2d, point: nn.Conv2d, x: Tensor) -> Tensor:
    kernel = square.weight + F.pad(point.weight, (1, 1, 1, 1))
    return F.conv2d(x, kernel, square.bias, padding=1)


def with_blocks(network: Everyday, block: Callable[[int], nn.Module], times: int = 1) -> Everyday:
    """The network with other residual blocks, `times` as many."""
    for part in (network.encoder, network.decoder):
        for level, (blocks, width) in enumerate(zip(part, network.widths, strict=False)):
            assert isinstance(blocks, nn.Sequential)
            part[level] = nn.Sequential(*[block(width) for _ in range(times * len(blocks))])
    return network


def with_quarter_size_stem(network: Everyday) -> Everyday:
    """The network on the sixteen quarter-size phases of the picture, for the four half-size ones."""
    finest = network.widths[0]
    head = nn.Conv2d(finest, 16 * 3, 3, padding=1)
    start_small(head)
    network.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16 * 3, finest, 3, padding=1))  # type: ignore[assignment]
    network.head = nn.Sequential(head, nn.PixelShuffle(2))  # type: ignore[assignment]
    return network


def plain() -> Everyday:
    return Everyday(**METHOD.architectures[0].variants["default"])


DESIGNS: dict[str, tuple[Callable[[], Everyday], Rule]] = {
    "plain": (plain, "muon"),
    "plain, Adam": (plain, "adam"),
    "wide, three levels": (lambda: Everyday((36, 72, 128), (2, 2, 4), (2, 2)), "muon"),
    "narrow, deep": (lambda: Everyday((24, 48, 96, 160), (3, 4, 4, 6), (3, 3, 3)), "muon"),
    "quarter-size stem": (
        lambda: with_quarter_size_stem(Everyday((72, 112, 160), (3, 3, 4), (3, 3))),
        "muon",
    ),
    "gated, Adam": (lambda: with_blocks(plain(), Gated, 2), "adam"),
    "large kernels, Adam": (lambda: with_blocks(plain(), LargeKernel, 2), "adam"),
    "reparameterised": (lambda: with_blocks(plain(), Reparameterised), "muon"),
}


@dataclass(frozen=True)
class Figures:
    """What one design came to: of training, the updates; of restoring, dB over the rainy picture by kind of
    rain; of the network, multiply-adds a pixel, parameters and processor seconds for 512x512 in float32."""

    updates: int
    gains: dict[str, float]
    multiply_adds: int
    parameters: int
    seconds: float


def recipe_of(clean: str, shares: Mapping[str, float]) -> Recipe:
    sources = [
        {"clean": clean, "rain": rain, "share": share, "sideways": 0.0} for rain, share in shares.items()
    ]
    content: dict[str, Any] = {
        "network": "everyday",
        "data": {"sources": sources},
        "validation": {"hold_out": 19, "every": 1000, "count": 21, "patch": 256},
        "steps": MAX_STEPS,
        "stages": [{"patch": 128, "batch": 8}],
        "optimizer": {"name": "muon", "rate": 1e-3},
        "channels_last": True,
        "seed": 5,
    }
    return checked(content, "bake-off")


def trained(
    make: Callable[[], Everyday], optimizer: Rule, clean: str, minutes: float
) -> tuple[Everyday, int]:
    """The average of the weights after so many minutes of this process's time, and the number of updates.
    The rate falls along a cosine of the time that has passed."""
    torch.manual_seed(5)
    network = make().in_channels_last().train()
    average, loss = copy.deepcopy(network), EverydayLoss()
    updater = make_optimizer(Optimizer(name=optimizer, rate=RATES[optimizer]), network)
    recipe = recipe_of(clean, TAUGHT)
    used, updates = 0.0, 0
    for (part,) in batches(recipe, open_sources(recipe)[0], 0, 0, 1):
        rainy, truth = to_device(part, CPU, channels_last=True)
        begun = time.process_time()
        rate = rate_at(FALL, RATES[optimizer], int(FALL.length * used / (60 * minutes)))
        for group in updater.param_groups:
            group["lr"] = rate * min(1.0, (updates + 1) / 50)
        with torch.autocast("cpu", torch.bfloat16):
            image = network.plain(rainy)["image"].float()
        updater.zero_grad(set_to_none=True)
        torch.stack(list(loss({"image": image}, truth, rainy).values())).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        updater.step()
        move_average(average, network, min(0.995, (1 + updates) / (10 + updates)))
        updates += 1
        used += time.process_time() - begun
        if used >= 60 * minutes:
            break
    return average.eval(), updates


@torch.no_grad()
def judged(network: Everyday, clean: str, updates: int) -> Figures:
    gains = {}
    for rain in JUDGED:
        recipe = recipe_of(clean, {rain: 1.0})
        assert recipe.validation is not None
        held_out = open_sources(recipe)[1]
        figures = [
            decibels(network.plain(rainy)["image"].clamp(0, 1), truth) - decibels(rainy, truth)
            for rainy, truth in pairs(held_out, recipe.validation)
            if not torch.equal(rainy, truth)
        ]
        gains[rain] = sum(figures) / len(figures)
    picture = torch.rand(1, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    network.plain(picture)
    times = []
    for _ in range(3):
        begun = time.process_time()
        network.plain(picture)
        times.append(time.process_time() - begun)
    return Figures(
        updates=updates,
        gains=gains,
        multiply_adds=network.multiply_adds(SIDE, SIDE) // SIDE**2,
        parameters=sum(p.numel() for p in network.parameters()),
        seconds=min(times),
    )


def decibels(image: Tensor, truth: Tensor) -> float:
    """PSNR of pictures (1, 3, H, W) in [0, 1]."""
    return psnr(image.contiguous().numpy().ravel(), truth.contiguous().numpy().ravel(), 1)


def table(figures: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "| design | parameters | multiply-adds | seconds | updates | `light` | `near` |"
    yield "| --- | --: | --: | --: | --: | --: | --: |"
    for name, f in figures.items():
        yield (
            f"| {name} | {f['parameters'] / 1e6:.2f} M | {f['multiply_adds']:,} | {f['seconds']:.2f} "
            f"| {f['updates']:,} | {f['gains']['light']:+.2f} | {f['gains']['near']:+.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clean")
    parser.add_argument("figures", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", nargs="*", choices=tuple(DESIGNS), default=tuple(DESIGNS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = json.loads(options.figures.read_text()) if options.figures.exists() else {}
    for name in options.only:
        if name in figures:
            continue
        make, optimizer = DESIGNS[name]
        network, updates = trained(make, optimizer, options.clean, options.minutes)
        figures[name] = vars(judged(network, options.clean, updates))
        replace_file(options.figures, json.dumps(figures, indent=1).encode())
        print(name, figures[name], flush=True)
    print("\n".join(table(figures)))


if __name__ == "__main__":
    main()
