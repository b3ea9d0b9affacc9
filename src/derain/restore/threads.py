"""How many CPU threads are fastest, and how work is divided among them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping

import cv2
import psutil
import torch

from derain.restore.memory import CPU_BUDGET

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
    # Not psutil.cpu_times_percent: over so short a time, its shares are too small where there are few cores.
    # Time that this process spends at low priority already counts as free.
    own = 0.0 if psutil.Process().nice() > 0 else time.process_time() - mine
    after = psutil.cpu_times()._asdict()
    return idle_cores(before, after, own, psutil.cpu_count() or 1, most)


def idle_cores(
    before: Mapping[str, float], after: Mapping[str, float], own: float, cores: int, most: int
) -> int:
    """How many cores were idle, or ran low-priority programs or this one, between two readings; 1 to `most`.

    Args:
        before, after: CPU seconds of all cores together by kind of use, as from `psutil.cpu_times`.
        own: how many of these seconds this process spent, as on starting its threads.
        cores: the number of cores of the machine.
        most: the largest number to return.
    """
    # The time of guests is already part of "user" and "nice".
    spent = {name: after[name] - before[name] for name in after if not name.startswith("guest")}
    free = own + sum(spent.get(name, 0.0) for name in ("idle", "iowait", "nice"))
    return max(1, min(most, round(free / max(sum(spent.values()), 1e-9) * cores)))


def pictures_at_once(threads: int, count: int) -> int:
    """How many of `count` pictures a CPU restores at the same time: one in each thread, if memory allows.

    Several threads for one picture gain less, as much of the work on it runs in a single one.
    """
    fitting = psutil.virtual_memory().available // 2 // CPU_BUDGET
    return max(1, min(threads, count, fitting))


@contextlib.contextmanager
def divided_threads(parts: int) -> Iterator[None]:
    """Gives each of `parts` parallel tasks an equal share of this process's threads."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(max(1, torch_threads // parts))
    cv2.setNumThreads(max(1, cv2_threads // parts))
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)
