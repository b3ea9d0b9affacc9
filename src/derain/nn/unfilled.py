"""Modules without values, to be loaded from a checkpoint or to count parameters and operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# PyTorch's functions that fill a tensor with random numbers, as modules call them.
_FILLING = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


@contextmanager
def unfilled() -> Iterator[None]:
    """Modules created inside have shapes and types but no values (device "meta")."""
    with torch.device("meta"), _LeftUnfilled():
        yield


@contextmanager
def to_be_loaded() -> Iterator[None]:
    """Parameters of modules created inside have memory but no values, which a checkpoint must provide."""
    with _LeftUnfilled():
        yield


class _LeftUnfilled(TorchFunctionMode):
    """Skips drawing random numbers, which takes long for a large network, and loads PyTorch's whole compiler
    for tensors without memory."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        return given["tensor"] if func in _FILLING else func(*args, **given)
