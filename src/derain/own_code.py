"""The user's own functions, named as `package.module:function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from derain.errors import UsageError, with_class


def own_function(target: str) -> Callable[..., Any]:
    """The function or class that `package.module:name` names; modules in the current folder are found, too.

    ITS MODULE IS RUN, with all rights of this process: call it only with code the user has chosen to run.

    Raises:
        UsageError: there is no such module, it fails, or it has no callable of that name.
    """
    module_name, colon, name = target.partition(":")
    if not (colon and module_name and name):
        raise UsageError(f"'{target}': write a function as package.module:function.")
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # it may do anything
        raise UsageError(f"{target}: cannot import {module_name} ({with_class(error)}).") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"{target}: {module_name} has no function {name}.")
    found: Callable[..., Any] = function
    return found
