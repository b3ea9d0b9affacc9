"""Errors that are meant for the user: one line that says what, where and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DerainError(ValueError):
    """Something that the user gave cannot be used; the command line prints it and exits with 1."""

    exit_code = 1


class UsageError(DerainError):
    """The request itself is wrong (an unknown name, contradicting options); exits with 2."""

    exit_code = 2


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist; suggests the nearest ones that do."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UsageError(f"unknown {kind} '{name}'.{hint} Known: {', '.join(known)}.")
