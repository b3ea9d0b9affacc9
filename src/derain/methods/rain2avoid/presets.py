"""How Rain2Avoid learns: as published, and a quick form of it.

Peng, Li and Chen, IEEE TMM 2025; Peng and Li, ICASSP 2023. As published, a fresh U-Net learns on one
picture to map it to 50 drawn references in turn, by MSE and Adam. The mean of the losses against all
references differs from the loss against their mean by a constant only, so `quick` learns from the mean
directly, without the noise of the draws. Its reference is better (`streaks.py`), its network starts at the
identity, its result is averaged over the last weights and the four flips, and pixels that are not suspected
of rain are left unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How much to learn from: `steps` batches of `batch` square crops of side `crop`.

    Without `crop`, a batch is the whole picture.
    """

    steps: int
    batch: int = 1
    crop: int | None = None


@dataclass(frozen=True)
class Preset:
    """How to learn.

    Attributes:
        published: drawn references, a constant learning rate, the last weights, running statistics, and
            the network's output as it is. Otherwise as described above.
        first_paper: with the prior and the uniform draws of Peng and Li, ICASSP 2023, and the pictures' own
            statistics in place of running ones.
        network: the default network, by its name in the registry.
        alone, together: the schedule for one picture, and for many.
        learning_rate: Adam's learning rate.
    """

    published: bool
    network: str
    alone: Schedule
    together: Schedule
    learning_rate: float = 0.001
    first_paper: bool = False


PRESETS = {
    "quick": Preset(False, "rain2avoid_unet-slim", Schedule(450, 4, 96), Schedule(2000, 8, 96)),
    "published": Preset(True, "rain2avoid_unet", Schedule(5000), Schedule(4000, 64, 64)),
    "icassp2023": Preset(
        True, "rain2avoid_unet", Schedule(5000), Schedule(4000, 64, 64), learning_rate=0.01, first_paper=True
    ),
}
