"""Which number format a network computes in, and whether its results bear it."""

from __future__ import annotations

import torch

from derain.errors import Remedy, UsageError
from derain.methods.network import RainNetwork
from derain.precisions import precision_name


def choose_precision(name: str, network_name: str, network: RainNetwork) -> torch.dtype:
    """The type that "auto" (float32) or one of `PRECISIONS`, full or in short form, stands for.

    Raises:
        UsageError: the network's results would suffer in this precision.
    """
    name = precision_name(name)
    refused = network.spec.refused_precisions
    if name in refused:
        raise UsageError(
            f"{network_name} does not run in {name}: {refused[name]}.",
            Remedy("run it", {"precision": "float32"}),
        )
    dtype: torch.dtype = torch.float32 if name == "auto" else getattr(torch, name)
    return dtype


def is_bfloat16_native(device: torch.device) -> bool:
    """Whether a processor multiplies bfloat16 natively, which makes it the fastest format there."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
