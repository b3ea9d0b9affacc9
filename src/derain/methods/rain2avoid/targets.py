"""What Rain2Avoid takes from a rainy picture: references of its clean version, and where it may change."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derain.methods.rain2avoid.ldgp import FIRST_PAPER, JOURNAL, rain_prior, refuse_too_small
from derain.methods.rain2avoid.presets import Preset
from derain.methods.rain2avoid.pseudo_truth import sample_pseudo_truths
from derain.methods.rain2avoid.sampling import sample_references
from derain.methods.rain2avoid.streaks import combined_reference, find_rain, rain_map_at
from derain.methods.self_supervision import Bytes, References, Target

NO_RAIN = 0.6  # levels of 8 bits that streaks add on average; pictures without rain can show less
SUSPECT = 0.5  # levels of 8 bits that a reference must differ by for its pixel to be suspected


def make_target(rainy: Tensor, preset: Preset, derained: Tensor | None = None) -> Target:
    """The references of one picture (1, 3, H, W) in [0, 1].

    Args:
        rainy: the picture.
        preset: drawn references as published, else the combined one.
        derained: the result of an already trained network (not as published). Where that is not brighter,
            it is moved towards the combined reference as far as the two agree.

    Raises:
        DerainError: a side is shorter than 32 pixels.
    """
    picture = (rainy[0].permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
    refuse_too_small(picture)
    rain = find_rain(picture)
    if preset.published:
        prior = rain_prior(picture, FIRST_PAPER if preset.first_paper else JOURNAL)
        draw = sample_pseudo_truths if preset.first_paper else sample_references
        draws = draw(picture, prior.map)
        change = draws.fused().astype(np.float32) - picture
        return _target(rainy, prior.map, rain.light, change, draws)
    rain_map = rain_map_at(picture, rain.theta)
    change = combined_reference(picture, rain.theta, rain_map) - picture
    if derained is not None:
        darker = torch.minimum(derained, rainy) - rainy  # rain only adds light
        change = agreed_change(change, 255 * darker[0].permute(1, 2, 0).numpy())
    return _target(rainy, rain_map, rain.light, change)


def agreed_change(found: NDArray[Any], trained: NDArray[Any]) -> NDArray[np.float32]:
    """What to subtract from a picture, given what the prior and a trained network find, all (H, W, 3).

    Both have errors, but different ones, so their mean has smaller ones; but where bright lines of the scene
    look like rain the prior removes them, which shows only as disagreement with the network. Its weight is
    half the fourth power of the cosine between the two: 0.5 when they are the same, 0.03 at a cosine
    of 0.5. Weight and power were fitted to 21 clean photographs under real streak layers.
    """
    lengths = np.sqrt(float((found**2).sum()) * float((trained**2).sum()))
    cosine = max(float((found * trained).sum()) / lengths, 0.0) if lengths else 0.0
    return np.asarray(trained + cosine**4 / 2 * (found - trained), np.float32)


def _target(
    rainy: Tensor, rain_map: Bytes, light: float, change: NDArray[Any], draws: References | None = None
) -> Target:
    """`change` is what to add, (H, W, 3) in levels of 8 bits; a deeper picture keeps its depth."""
    difference = torch.from_numpy(np.asarray(change, np.float32)).permute(2, 0, 1)[None]
    suspected = difference.abs().amax(1, keepdim=True) > SUSPECT
    mean = torch.where(suspected, (rainy + difference / 255).clamp(0, 1), rainy)
    warning = "" if light >= NO_RAIN else "hardly any rain found; fine texture may suffer"
    if not suspected.any():
        warning = "no rain found, picture left unchanged"
    return Target(rainy, rain_map, draws, mean, suspected, warning)
