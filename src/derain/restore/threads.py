"""How many CPU threads are fastest."""

from __future__ import annotations

import os

import psutil

SAMPLE = 0.1  # seconds


def fastest_threads(most: int) -> int:
    """As many threads as there are idle cores, at least 1 and at most `most`.

    All threads wait for the slowest, so one that shares its core with another program makes the work slower
    than one thread fewer would. Low-priority programs give way and do not count. `OMP_NUM_THREADS` is the
    user's own choice and is respected.
    """
    if most == 1 or "OMP_NUM_THREADS" in os.environ:
        return most
    shares = psutil.cpu_times_percent(SAMPLE)
    free = shares.idle + getattr(shares, "nice", 0.0)
    return max(1, min(most, round(free / 100 * (psutil.cpu_count() or 1))))
