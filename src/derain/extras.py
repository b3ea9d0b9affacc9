"""Packages that only some users need."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from derain.errors import DerainError

# What keeps packages from reporting their use to their makers, which some do as soon as they are imported.
SILENCE = {"ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
REPORTER = "openvino_telemetry"  # OpenVINO works without this package, and has no variable of its own


def silence() -> None:
    """Keeps packages that are imported from now on from reporting their use."""
    for variable, value in SILENCE.items():
        os.environ.setdefault(variable, value)
    sys.modules.setdefault(REPORTER, None)  # type: ignore[arg-type]  # None: as if not installed


def how_to_install(name: str) -> str:
    """How the optional dependencies `name` are installed, in words."""
    return f'pip install ".[{name}]" in a copy of derain'


def extra(module: str, name: str) -> Any:
    """A module of the optional dependencies `name`, silenced.

    Raises:
        DerainError: it is not installed.
    """
    silence()
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DerainError(f"{module} is not installed; it comes with: {how_to_install(name)}.") from None
