"""What networks need to know while traced into a graph, which cannot branch by value or size."""

from __future__ import annotations

import torch
from torch import Tensor


def is_tracing() -> bool:
    """True while a graph for pictures of every size is recorded (export, compilation)."""
    return torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling()


def constant(weight: Tensor) -> Tensor:
    """The same numbers; an exported graph stores them as constants instead of the steps that made them."""
    if not torch.onnx.is_in_onnx_export():
        return weight
    return torch.from_numpy(weight.detach().numpy().copy())  # the tracer cannot follow through NumPy
