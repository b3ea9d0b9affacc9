"""NeRD-Rain's training loss: three scales against a pyramid of the clean picture, and both INRs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.methods.contract import Loss

FREQUENCY_WEIGHT = 0.01
EDGE_WEIGHT = 0.05
INR_WEIGHT = 0.1


@dataclass(frozen=True)
class NeRDRainLoss(Loss):
    """Three distances at each of the three scales, and the pictures of both INRs."""

    def __call__(self, outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        targets = clean_pyramid(clean)
        pairs = list(zip((outputs["image"], outputs["half"], outputs["quarter"]), targets, strict=True))
        inr = F.l1_loss(outputs["inr_half"], targets[1]) + F.l1_loss(outputs["inr_quarter"], targets[2])
        return {
            "charbonnier": _sum([charbonnier(x, y) for x, y in pairs]),
            "frequency": FREQUENCY_WEIGHT * _sum([frequency(x, y) for x, y in pairs]),
            "edge": EDGE_WEIGHT * _sum([edge(x, y) for x, y in pairs]),
            "inr": INR_WEIGHT * inr,
        }


def clean_pyramid(clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The clean picture at full, half and quarter size, blurred before each halving.

    Args:
        clean: (B, 3, H, W); H and W are multiples of 4.
    """
    half = _blurred_half(clean)
    return clean, half, _blurred_half(half)


def _blurred_half(x: Tensor) -> Tensor:
    blurred = _depthwise(F.pad(x, (2, 2, 2, 2), mode="reflect"), (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16))
    return F.avg_pool2d(blurred, 2)


def charbonnier(x: Tensor, y: Tensor) -> Tensor:
    """mean sqrt((x - y)^2 + 1e-6)."""
    return torch.sqrt((x - y) ** 2 + 1e-6).mean()


def frequency(x: Tensor, y: Tensor) -> Tensor:
    """Mean modulus of the difference of the unnormalised two-dimensional Fourier transforms."""
    difference: Tensor = torch.fft.fft2(x - y)
    return difference.abs().mean()


def edge(x: Tensor, y: Tensor) -> Tensor:
    """Charbonnier distance of the Laplacians."""
    return charbonnier(laplacian(x), laplacian(y))


def laplacian(x: Tensor) -> Tensor:
    """x minus the coarser level of its Laplacian pyramid, (B, 3, H, W) -> the same."""
    kept = torch.zeros_like(x)
    kept[:, :, ::2, ::2] = 4 * _edge_blur(x)[:, :, ::2, ::2]
    return x - _edge_blur(kept)


def _edge_blur(x: Tensor) -> Tensor:
    return _depthwise(F.pad(x, (2, 2, 2, 2), mode="replicate"), (0.05, 0.25, 0.4, 0.25, 0.05))


def _depthwise(x: Tensor, taps: Sequence[float]) -> Tensor:
    """outer(taps, taps) on each channel, without padding; the kernel has float32 precision, as published."""
    line = torch.tensor(taps, dtype=torch.float32, device=x.device)
    kernel = torch.outer(line, line).to(x.dtype).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(x, kernel, groups=x.shape[1])


def _sum(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
