"""Paths as programs give them, names that belong to results, and questions about paths that never raise.

The questions do not raise for names too long, links to themselves and folders without access either, for
some of which the methods of `Path` do, depending on the method and the version of Python.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from derain.errors import wrong_type

RESULT = "-derained"  # what the name of a result beside its source ends with
PREVIEW = f"{RESULT}-preview"  # the same for a sheet of results


def path_of(what: str, given: object) -> Path:
    """What a program gave as a path. Raises `UsageError`, saying what it is for, if it cannot be one."""
    if not isinstance(given, str | os.PathLike):
        raise wrong_type(what, given, "a path")
    return Path(given)


def written_beside(files: Iterable[Path]) -> set[Path]:
    """Those of the files that were made from another one of them, by their names."""
    files = list(files)
    # a.jpg -> a-derained.jpg, or a.jpg-derained.png where there is an a.png, too.
    sources = {file.with_suffix("") for file in files} | {*files}
    return {
        file
        for file in files
        for mark in (RESULT, PREVIEW)
        if file.stem.endswith(mark) and file.with_name(file.stem.removesuffix(mark)) in sources
    }


def parts_of(target: Path) -> Path:
    """The hidden folder beside a video that is not whole, with its finished parts; empty if its source was
    damaged or cut off."""
    return target.with_name(f".{target.name}.segments")


def exists(path: Path) -> bool:
    """Whether there is a file or folder that can be reached."""
    return os.path.exists(path)  # noqa: PTH110


def is_link(path: Path) -> bool:
    """Whether it is a link, wherever it leads."""
    return os.path.islink(path)  # noqa: PTH114


def is_folder(path: Path) -> bool:
    """Whether it is a folder, or a link to one."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Whether it is a regular file, or a link to one."""
    return os.path.isfile(path)  # noqa: PTH113


def real(path: Path) -> Path:
    """The absolute path without links, as far as it can be followed."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path.absolute()


def same(first: Path, second: Path) -> bool:
    """Whether two paths lead to the same file or folder."""
    try:
        return first.samefile(second)
    except (OSError, ValueError):
        return real(first) == real(second)
