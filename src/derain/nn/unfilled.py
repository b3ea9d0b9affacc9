"""Modules without values: to be filled from a checkpoint, or to count parameters and operations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# PyTorch's warning of a module without weights, which does not fit the checkpoint anyway.
warnings.filterwarnings("ignore", "Initializing zero-element tensors")


@contextmanager
def unfilled() -> Iterator[None]:
    """Modules created inside have shapes and types but no values (device "meta")."""
    with torch.device("meta"), _NoNormal():
        yield


class _NoNormal(TorchFunctionMode):
    """Skips drawing normal numbers: for tensors without values PyTorch would load its whole compiler to
    do so, which takes longer than anything else at the start of a program."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is nn.init.normal_:
            return given["tensor"]
        return args[0] if func is Tensor.normal_ else func(*args, **given)
