"""Trains the first edition of the bundled SPANet on rain made over a folder of clean pictures.

    python scripts/train_first_edition.py CLEAN_FOLDER RUN_FOLDER --steps 6000

Resumes from RUN_FOLDER/last.pt when it is there. The last 20 pictures (by name, every 19th) are
kept for validation with fixed synthetic rain; nothing else is looked at while training.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from derain.data.synthesis import PRESETS, make_rainy
from derain.methods.spanet.loss import loss_terms
from derain.methods.spanet.network import SPANet

KINDS = 3 * PRESETS["light"] + PRESETS["heavy"][:1]


class RainyPatches(Dataset):
    """Patch pairs (2, 3, S, S), rainy first; item i is a function of (seed, i) alone."""

    def __init__(self, pictures, size, count, seed):
        self.pictures, self.size, self.count, self.seed = pictures, size, count, seed

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, index])
        picture = self.pictures[rng.integers(len(self.pictures))]
        top = rng.integers(picture.shape[0] - self.size + 1)
        left = rng.integers(picture.shape[1] - self.size + 1)
        clean = picture[top : top + self.size, left : left + self.size]
        if rng.random() < 0.5:
            clean = np.ascontiguousarray(clean[:, ::-1])
        rainy = make_rainy(rng, clean, KINDS)
        return torch.from_numpy(np.stack([rainy, clean]).astype(np.float32) / 255).permute(0, 3, 1, 2)


def load_pictures(folder):
    paths = sorted(Path(folder).iterdir())
    pictures = [cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB) for p in paths]
    return [p for i, p in enumerate(pictures) if i % 19], [p for i, p in enumerate(pictures) if not i % 19]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clean")
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=1e-3)
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)

    train, held_out = load_pictures(options.clean)
    validation = torch.stack([RainyPatches(held_out, 160, 24, seed=2)[i] for i in range(24)])
    network = SPANet().to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), options.rate)
    start, last = 0, options.run / "last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=True)
        network.load_state_dict(saved["state_dict"])
        optimiser.load_state_dict(saved["optimiser"])
        start = saved["step"]

    patches = RainyPatches(train, options.patch, options.steps * options.batch, seed=1)
    order = range(start * options.batch, len(patches))
    loader = DataLoader(patches, options.batch, sampler=order, num_workers=1, prefetch_factor=8)
    began, sums = time.time(), {}
    for step, pair in enumerate(loader, start + 1):
        rate = (
            options.rate * min(1, step / 200) * (0.5 + 0.5 * math.cos(math.pi * step / options.steps)) + 1e-6
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        rainy, clean = pair[:, 0], pair[:, 1]
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network.outputs(rainy.contiguous(memory_format=torch.channels_last))
        terms = loss_terms({k: v.float() for k, v in outputs.items()}, clean, rainy)
        loss = sum(terms.values())
        if not torch.isfinite(loss):
            raise SystemExit(f"step {step}: the loss is not finite")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimiser.step()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.item()
        if step % 50 == 0:
            means = " ".join(f"{n} {v / 50:.4f}" for n, v in sums.items())
            print(
                f"{step} {means} rate {rate:.1e} {(time.time() - began) / (step - start):.2f} s/step",
                flush=True,
            )
            sums = {}
        if step % 250 == 0 or step == options.steps:
            print(f"{step} validation {validate(network, validation)}", flush=True)
            state = {"state_dict": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
            torch.save(state, last.with_suffix(".new"))
            last.with_suffix(".new").replace(last)


def validate(network, pairs):
    """Mean RGB PSNR of the rainy and of the restored patches, dB."""
    rainy, clean = pairs[:, 0], pairs[:, 1]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        restored = torch.cat([network(x) for x in rainy.split(8)]).float().clamp(0, 1)
    return [
        f"{(-10 * torch.log10(((x - clean) ** 2).mean((1, 2, 3)))).mean():.3f}" for x in (rainy, restored)
    ]


if __name__ == "__main__":
    main()
