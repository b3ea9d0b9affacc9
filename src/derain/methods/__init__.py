"""The registry: every folder beside this file is one published system and exports `METHOD`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

from derain.errors import unknown_name
from derain.methods.contract import Architecture, Method
from derain.methods.network import RainNetwork


@functools.cache
def all_methods() -> tuple[Method, ...]:
    """Every method of this package, in alphabetical order of its folder."""
    folders = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.ispkg)
    return tuple(importlib.import_module(f"{__name__}.{folder}").METHOD for folder in folders)


def all_architectures() -> tuple[Architecture, ...]:
    """Every network architecture of every method."""
    return tuple(architecture for method in all_methods() for architecture in method.architectures)


def method_of(architecture: Architecture) -> Method:
    """The method that an architecture of the registry belongs to."""
    return next(method for method in all_methods() if architecture in method.architectures)


@functools.cache
def network_names() -> dict[str, tuple[Architecture, str]]:
    """Names as users type them: "drsformer" (default variant), "drsformer-light", ..."""
    names = {}
    for architecture in all_architectures():
        for position, variant in enumerate(architecture.variants):
            name = architecture.name if position == 0 else f"{architecture.name}-{variant}"
            names[name] = (architecture, variant)
    return names


def create_network(name: str, **overrides: Any) -> RainNetwork:
    """A network with fresh weights.

    Args:
        name: "spanet", "drsformer", "drsformer-light", ...; see `derain models`.
        overrides: keyword arguments of the network that replace those of the variant.

    Raises:
        UsageError: the name is not known.
    """
    if name not in network_names():
        raise unknown_name("network", name, network_names())
    architecture, variant = network_names()[name]
    return architecture.build(**{**architecture.variants[variant], **overrides})
