"""Packages that only some users need."""

from __future__ import annotations

import importlib
from typing import Any

from derain.errors import DerainError


def extra(module: str, name: str) -> Any:
    """A module of the optional dependencies `name`. Raises `DerainError` if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DerainError(
            f"{module} is not installed; it comes with: pip install 'derain[{name}]'."
        ) from None
