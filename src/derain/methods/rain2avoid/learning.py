"""Rain2Avoid under the contract of self-supervision: target, fit, result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from derain.methods.network import RainNetwork
from derain.methods.rain2avoid import fitting
from derain.methods.rain2avoid.batches import LEAST_SIDE
from derain.methods.rain2avoid.ldgp import FIRST_PAPER, JOURNAL, rain_prior
from derain.methods.rain2avoid.presets import PRESETS, Preset
from derain.methods.rain2avoid.pseudo_truth import UNIFORM
from derain.methods.rain2avoid.sampling import PUBLISHED
from derain.methods.rain2avoid.targets import make_target
from derain.methods.self_supervision import Bytes, Fit, FitOptions, SelfSupervision, Target


@dataclass(frozen=True)
class Rain2Avoid:
    """Learning by one preset; see `SelfSupervision`."""

    preset: Preset
    seed: int = fitting.SEED
    least_side: int = LEAST_SIDE

    @property
    def network(self) -> str:
        return self.preset.network

    @property
    def takes_trained(self) -> bool:
        return not self.preset.published

    @property
    def safe_in_bfloat16(self) -> bool:
        return not self.preset.published

    @property
    def flips(self) -> bool:
        return not self.preset.published

    def rain_map(self, rainy: Bytes) -> tuple[Bytes, str]:
        prior = rain_prior(rainy, FIRST_PAPER if self.preset.first_paper else JOURNAL)
        rule = UNIFORM if self.preset.first_paper else PUBLISHED
        share = 100 * float((prior.map > rule.threshold).mean())
        return prior.map, f"{share:.1f} % suspected, leaning {prior.theta} degrees"

    def target(self, rainy: Tensor, derained: Tensor | None = None) -> Target:
        return make_target(rainy, self.preset, derained)

    def fit(self, targets: Sequence[Target], network: RainNetwork, options: FitOptions) -> Fit:
        return fitting.fit(targets, network, self.preset, options)

    def finished(self, target: Target, image: Tensor) -> Tensor:
        if self.preset.published:
            return image
        # Rain only adds light; network and reference have different errors, so their mean has smaller ones.
        mean = (torch.minimum(image, target.rainy) + target.mean) / 2
        return torch.where(target.suspected, mean, target.rainy)


def presets() -> Mapping[str, SelfSupervision]:
    """Ways to learn, by name; the first is the default."""
    return {name: Rain2Avoid(preset) for name, preset in PRESETS.items()}
