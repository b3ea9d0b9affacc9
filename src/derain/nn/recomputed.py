"""Activations that are recomputed for the gradients instead of being stored until then."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from derain.nn.tracing import is_tracing


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """module(x) without storing intermediate results: a second pass recomputes them for the gradients.

    For modules whose intermediate results are quick to compute but take much memory. Results and gradients
    stay the same; the module must not draw random numbers.
    """
    if not torch.is_grad_enabled() or is_tracing():
        y: Tensor = module(x)
        return y
    made: Tensor = checkpoint(module, x, use_reentrant=False, preserve_rng_state=False)
    return made
