"""The user's own networks: `package.module:name` in place of a name from the registry."""

from __future__ import annotations

from typing import Any

from derain.errors import UsageError, with_class
from derain.methods.contract import AbsoluteError, Architecture, Method
from derain.methods.network import RainNetwork
from derain.own_code import own_function


def is_own(network: str) -> bool:
    """Whether a network is named by its Python code."""
    return ":" in network


def own_method(target: str) -> Method:
    """A method whose only architecture is what `package.module:name` returns for keyword arguments.

    ITS MODULE IS RUN, with all rights of this process.

    Raises:
        UsageError: there is no such class or function. The architecture's `build` raises it if the
            result is not a `RainNetwork`.
    """
    make = own_function(target)

    def build(**config: Any) -> RainNetwork:
        try:
            network = make(**config)
        except Exception as error:  # the user's code may raise anything
            raise UsageError(f"{target}: {with_class(error)}") from error
        if not isinstance(network, RainNetwork):
            raise UsageError(
                f"{target}: returned {type(network).__name__}; a network must derive from derain.RainNetwork."
            )
        return network

    architecture = Architecture(
        name=target,
        build=build,
        variants={"own": {}},
        recognise=lambda state: None,  # names and shapes do not tell which code is needed
        tiny={},
        loss=AbsoluteError,
    )
    return Method(target, "a custom network", "", (architecture,))
