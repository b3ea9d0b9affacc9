"""How many CPU cores there are for this process."""

from __future__ import annotations

import os


def cores() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_threads(wanted: int) -> int:
    """As many threads as are wanted, but no more than cores.

    More would slow each other down, and too many end the process.
    """
    return min(wanted, cores())
