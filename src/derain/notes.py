"""Notes about how something was done, as one line."""

from __future__ import annotations


def join_notes(*notes: str) -> str:
    """Several notes as one, each once; empty ones are left out.

    >>> join_notes("in tiles", "", "no rain found", "in tiles")
    'in tiles; no rain found'
    """
    return "; ".join(dict.fromkeys(filter(None, notes)))
