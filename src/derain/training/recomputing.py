"""Gradient checkpointing for any network: activations are recomputed instead of being stored."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(network: nn.Module) -> None:
    """Makes every child with parameters store only its inputs; results and gradients stay the same.

    The children of lists and dicts count as children of the network. Running averages of batch
    normalisation are updated twice per step, since the forward pass runs twice.
    """
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            checkpoint_activations(child)
        elif any(True for _ in child.parameters()):
            _checkpoint(child)


def _checkpoint(module: nn.Module) -> None:
    plain = module.forward

    def forward(*inputs: Any, **options: Any) -> Tensor:
        if not module.training:
            result: Tensor = plain(*inputs, **options)
            return result
        recomputed: Tensor = checkpoint(plain, *inputs, use_reentrant=False, **options)
        return recomputed

    module.forward = forward
