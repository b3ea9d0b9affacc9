"""Activations that are computed again for the gradients instead of being kept until then."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from derain.nn.tracing import is_tracing


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """module(x), of whose intermediate results none is kept: a second pass makes them for the gradients.

    For modules that compute quickly what takes much memory. Results and gradients stay the same; the module
    must not draw random numbers.
    """
    if not torch.is_grad_enabled() or is_tracing():
        y: Tensor = module(x)
        return y
    made: Tensor = checkpoint(module, x, use_reentrant=False, preserve_rng_state=False)
    return made
