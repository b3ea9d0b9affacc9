"""What networks need to know while traced into a graph, which cannot branch by value or size."""

from __future__ import annotations

import sys

import torch
from torch import Tensor


def is_tracing() -> bool:
    """True while a graph for pictures of every size is recorded (export, compilation)."""
    return torch.compiler.is_compiling() or _is_exporting()


def constant(weight: Tensor) -> Tensor:
    """The same numbers; an exported graph stores them as constants instead of the steps that made them."""
    if not _is_exporting():
        return weight
    return torch.from_numpy(weight.detach().numpy().copy())  # the tracer cannot see through NumPy


def _is_exporting() -> bool:
    # PyTorch loads its exporter when it is first named; until then, nothing is being exported.
    return "torch.onnx" in sys.modules and torch.onnx.is_in_onnx_export()
