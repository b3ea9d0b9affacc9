"""Peak memory of a piece of work, as counted by the system or the accelerator's driver."""

from __future__ import annotations

import ctypes
import re
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

STATUS = Path("/proc/self/status")


def start_memory(device: torch.device) -> int | None:
    """Bytes in use now; from here on `most_memory` counts. None where it cannot be measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    # Memory that was freed but is kept for reuse would hide what the work needs.
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):  # elsewhere it is the peak since the process began, which is no less
        Path("/proc/self/clear_refs").write_text("5")
    return int(psutil.Process().memory_info().rss)


def most_memory(device: torch.device) -> int | None:
    """Most bytes in use at once since `start_memory`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident_peak() if device.type == "cpu" else None


def resident_peak() -> int:
    """Most bytes that this process had in memory."""
    # Not getrusage on Linux: there its maximum includes that of the process which started this one.
    if STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
        assert found is not None
        return int(found[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
