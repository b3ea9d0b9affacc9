"""Infers a network's hyper-parameters from the names and shapes of a state dict."""

from __future__ import annotations

from derain.errors import DerainError
from derain.methods.contract import StateDict


def shape_of(state: StateDict, name: str, axes: int = 4) -> tuple[int, ...]:
    """The shape of a tensor from which a hyper-parameter is read.

    Args:
        state: the state dict of the network.
        name: the tensor's name.
        axes: the number of axes that it must have.

    Raises:
        DerainError: it is missing, empty, or has another number of axes.
    """
    if name not in state:
        raise DerainError(f"{name} is missing.")
    shape = tuple(state[name].shape)
    if len(shape) != axes or 0 in shape:
        raise DerainError(f"{name} is {shape}, not of {axes} dimensions.")
    return shape


def count_below(state: StateDict, prefix: str) -> int:
    """How many modules are directly below `prefix`, such as "encoder.0" for "encoder.0.0.weight", ..."""
    start = f"{prefix}."
    return len({name.removeprefix(start).split(".")[0] for name in state if name.startswith(start)})


def has_kernels(state: StateDict, *names: str) -> bool:
    """Whether all of these tensors exist, and are convolution kernels."""
    return all(name in state and state[name].dim() == 4 for name in names)
