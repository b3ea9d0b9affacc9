"""How many threads of a processor are fastest."""

from __future__ import annotations

import os

import psutil

SAMPLE = 0.1  # seconds


def fastest_threads(most: int) -> int:
    """As many threads as there are cores with nothing to do, at least 1 and not above `most`.

    All threads wait for the slowest of them, so that one that shares its core with another program makes
    the work slower than one thread fewer. Work that gave itself a low priority makes room and doesn't
    count. `OMP_NUM_THREADS` is a user's own choice and left alone.
    """
    if most == 1 or "OMP_NUM_THREADS" in os.environ:
        return most
    shares = psutil.cpu_times_percent(SAMPLE)
    free = shares.idle + getattr(shares, "nice", 0.0)
    return max(1, min(most, round(free / 100 * (psutil.cpu_count() or 1))))
