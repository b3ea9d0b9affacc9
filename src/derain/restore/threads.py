"""How many CPU threads are fastest."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

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
    before, mine = psutil.cpu_times()._asdict(), time.process_time()
    time.sleep(SAMPLE)
    # Not psutil.cpu_times_percent: its shares of so short a time are too small where there are few cores.
    # What this process spends at low priority counts as free already.
    own = 0.0 if psutil.Process().nice() > 0 else time.process_time() - mine
    after = psutil.cpu_times()._asdict()
    return idle_cores(before, after, own, psutil.cpu_count() or 1, most)


def idle_cores(
    before: Mapping[str, float], after: Mapping[str, float], own: float, cores: int, most: int
) -> int:
    """How many cores were idle, or ran low-priority programs or this one, between two readings; 1 to `most`.

    Args:
        before, after: seconds by what they were spent on, as from `psutil.cpu_times`, of all cores together.
        own: seconds of it that this process spent, as on starting its threads.
        cores: of the machine.
        most: the most to return.
    """
    # What guests use is part of "user" and "nice".
    spent = {name: after[name] - before[name] for name in after if not name.startswith("guest")}
    free = own + sum(spent.get(name, 0.0) for name in ("idle", "iowait", "nice"))
    return max(1, min(most, round(free / max(sum(spent.values()), 1e-9) * cores)))
