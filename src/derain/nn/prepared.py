"""Values that are computed from a network's weights once, and again only after these have changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
Prepared = TypeVar("Prepared")


def once_per_weights(prepare: Callable[[Network], Prepared]) -> Callable[[Network], Prepared]:
    """A decorator: `prepare(network)` runs again only when a parameter has changed since the last call.

    Parameters that were replaced, moved, cast, loaded or written in place are noticed; writes through
    `parameter.data` or by another process are not. Results are stored outside the network: copies,
    pickles and the state dict do not contain them, and they are freed with it.
    """
    kept: WeakKeyDictionary[Network, tuple[list[Any], Prepared]] = WeakKeyDictionary()

    def prepared(network: Network) -> Prepared:
        state = [part for parameter in network.parameters() for part in _state(parameter)]
        found = kept.get(network)
        if found is None or found[0] != state:
            with torch.no_grad():
                found = kept[network] = (state, prepare(network))
        return found[1]

    return prepared


def _state(parameter: Tensor) -> tuple[Any, ...]:
    # Tensors made in inference mode do not count their changes.
    version = None if parameter.is_inference() else parameter._version
    return id(parameter), parameter.data_ptr(), version, parameter.dtype, parameter.device
