"""Rain2Avoid's training loss: the mean squared error, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def loss_terms(outputs: Mapping[str, Tensor], clean: Tensor) -> dict[str, Tensor]:
    """The one term, with weight 1.

    Args:
        outputs: of a backbone; `image` (B, 3, H, W).
        clean: (B, 3, H, W) in [0, 1], or a reference made from the rainy picture.
    """
    return {"mse": F.mse_loss(outputs["image"], clean)}
