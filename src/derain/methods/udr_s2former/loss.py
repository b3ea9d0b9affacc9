"""UDR-S2Former's training loss: negative PSNR at four scales, perceptual and uncertainty terms."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.errors import DerainError
from derain.methods.contract import Loss
from derain.methods.udr_s2former.network import LEVELS
from derain.tensors import read_tensors

PERCEPTUAL_WEIGHT = 0.2
_VGG_SHAPES = {
    "features.0.weight": (64, 3, 3, 3),
    "features.0.bias": (64,),
    "features.2.weight": (64, 64, 3, 3),
    "features.2.bias": (64,),
}


@dataclass(frozen=True)
class VGGFilters:
    """The first two convolutions of an ImageNet VGG-19: {name: tensor}, never trained."""

    state: Mapping[str, Tensor]

    def features(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Both convolutions' results before their ReLU, from (B, 3, H, W) RGB in [0, 1] as it is."""
        w = {name: tensor.to(picture) for name, tensor in self.state.items()}
        first = F.conv2d(picture, w["features.0.weight"], w["features.0.bias"], padding=1)
        second = F.conv2d(F.relu(first), w["features.2.weight"], w["features.2.bias"], padding=1)
        return first, second


def read_vgg(path: str | Path) -> VGGFilters:
    """The filters of the perceptual term, from a file that the user names.

    Args:
        path: torchvision's state dict of VGG-19, or any checkpoint file with the four tensors
            features.0.weight, features.0.bias, features.2.weight and features.2.bias.

    Raises:
        DerainError: the file cannot be read, or a tensor is missing or of another shape.
    """
    state = read_tensors(path).state
    for name, shape in _VGG_SHAPES.items():
        if name not in state or tuple(state[name].shape) != shape:
            found = f"is {tuple(state[name].shape)}" if name in state else "is missing"
            raise DerainError(
                f"{path}: {name} {found}, VGG-19 has it as {shape}. The perceptual term needs the "
                "ImageNet weights of VGG-19 in torchvision's format."
            )
    return VGGFilters({name: state[name].detach() for name in _VGG_SHAPES})


@dataclass(frozen=True)
class UDRS2FormerLoss(Loss):
    """Negative PSNR and the likelihood of the error at all scales, and a perceptual term.

    Attributes:
        vgg: a file with the ImageNet weights of VGG-19, or null to leave the perceptual term out, which
            departs from the paper; see `read_vgg`.
    """

    vgg: str | None

    def __call__(self, outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        pairs = [(outputs["image"], clean, outputs["uncertainty"])]
        for k in LEVELS:
            target = F.interpolate(clean, scale_factor=0.5**k, mode="bicubic") if k else clean
            pairs.append((outputs[f"scale{k}"], target, outputs[f"uncertainty{k}"]))
        psnrs = [negative_psnr(restored, target) for restored, target, _ in pairs]
        uncertainties = [uncertainty_term(*pair) for pair in pairs]
        terms = {
            "psnr": psnrs[0] + 0.5 * torch.stack(psnrs[1:]).mean(),
            "uncertainty": torch.stack(uncertainties).mean(),
        }
        if self.vgg:
            distance = perceptual_term(_read_once(self.vgg), outputs["image"], clean)
            terms["perceptual"] = PERCEPTUAL_WEIGHT * distance
        return terms


_read_once = functools.cache(read_vgg)


def negative_psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean over the samples of -PSNR in dB, for a peak of 1."""
    error = (restored - clean).square().mean((1, 2, 3))
    return 10 / math.log(10) * torch.log(error + 1e-8).mean()


def uncertainty_term(restored: Tensor, clean: Tensor, uncertainty: Tensor) -> Tensor:
    """L1 of the error over exp(v), plus 2 mean(v): the likelihood of an error that v foresees."""
    confidence = torch.exp(-uncertainty)
    return ((restored - clean) * confidence).abs().mean() + 2 * uncertainty.mean()


def perceptual_term(vgg: VGGFilters, restored: Tensor, clean: Tensor) -> Tensor:
    """Mean L1 distance of the two feature maps."""
    pairs = zip(vgg.features(restored), vgg.features(clean), strict=True)
    return 0.5 * sum((F.l1_loss(a, b) for a, b in pairs), start=restored.new_zeros(()))
