"""The registry: every folder beside this file is one system and exports `METHOD`.

Other distributions add their own through an entry point in the group "derain.methods" that names a `Method`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Sequence
from typing import Any

from derain.errors import UsageError, first_line, log, refuse_unknown
from derain.methods.contract import Architecture, Method
from derain.methods.network import RainNetwork

GROUP = "derain.methods"  # the group of entry points


@functools.cache
def all_methods() -> tuple[Method, ...]:
    """The methods of this package, in alphabetical order of folders, then those of other distributions.

    A foreign method that cannot be loaded, or whose names are taken, is left out with a warning.
    """
    methods = [importlib.import_module(f"{__name__}.{folder}").METHOD for folder in folders()]
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            methods.append(_added(entry, methods))
        except Exception as error:  # a third-party package may raise anything on import
            log.warning("the method %s (%s) is skipped: %s.", entry.name, entry.value, error)
    return tuple(methods)


def folders() -> list[str]:
    """Names of the methods of this package."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if info.ispkg)


def _added(entry: importlib.metadata.EntryPoint, others: Sequence[Method]) -> Method:
    method = entry.load()
    if not isinstance(method, Method):
        raise TypeError("it is not a derain.methods.contract.Method")
    taken = {other.name for other in others} | {a.name for other in others for a in other.architectures}
    for name in (method.name, *(architecture.name for architecture in method.architectures)):
        if name in taken:
            raise ValueError(f"the name {name} is taken")
    return method


def all_architectures() -> tuple[Architecture, ...]:
    """Every network architecture of every method."""
    return tuple(architecture for method in all_methods() for architecture in method.architectures)


def method_of(architecture: Architecture) -> Method:
    """The method to which an architecture of the registry belongs."""
    return next(method for method in all_methods() if architecture in method.architectures)


@functools.cache
def network_names() -> dict[str, tuple[Architecture, str]]:
    """{name as users type it: (architecture, variant)}; "drsformer" is the default variant, "drsformer-light"
    another."""
    return {
        architecture.called(variant): (architecture, variant)
        for architecture in all_architectures()
        for variant in architecture.variants
    }


def create_network(name: str, **overrides: Any) -> RainNetwork:
    """A network with random weights.

    Args:
        name: "spanet", "drsformer", "drsformer-light", ...; see `derain models`.
        overrides: keyword arguments of the network that replace those of the variant.

    Raises:
        UsageError: the name is not known, or the network cannot be made with these arguments.
    """
    refuse_unknown("network", name, network_names())
    architecture, variant = network_names()[name]
    try:
        return architecture.build(**{**architecture.variants[variant], **overrides})
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last if memory runs out
        if not overrides:
            raise
        raise UsageError(f"{name} with {overrides}: {first_line(error).rstrip('.')}.") from error
