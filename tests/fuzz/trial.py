"""One broken input, given to the program as a user would, and what must not come of it."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from derain.errors import DerainError

SLOW = 20.0  # seconds of processors that one input may take
LARGE = 2000.0  # MB of memory, of which the program itself takes 300 to 600


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: in the plural.
        count: of inputs in the long run.
        make: writes one below a folder and gives its path.
        use: gives it to the program, with a folder for the results; raises `DerainError` where the
            program refuses it, and anything else where a promise is broken.
        around: what must be there meanwhile.
        quiet: whether the program must not print anything.
    """

    name: str
    count: int
    make: Callable[[np.random.Generator, Path], Path]
    use: Callable[[Path, Path], None]
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    quiet: bool = True


@dataclass(frozen=True)
class Verdict:
    """What came of one input.

    Attributes:
        number: of the input; it is the same in every run.
        outcome: "done" and "refused" are right; "traceback", "slow", "large", "partial", "chatter" and
            "died" are not.
        told: the message, or what went wrong.
        seconds: of all processors.
        megabytes: most memory in use.
    """

    number: int
    outcome: str
    told: str
    seconds: float
    megabytes: float

    @property
    def is_right(self) -> bool:
        return self.outcome in ("done", "refused")


def judged(kind: Kind, number: int, folder: Path) -> Verdict:
    """Makes input `number` of a kind below an empty folder, uses it and judges what came of it."""
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    rng = np.random.default_rng([number, *kind.name.encode()])
    source = kind.make(rng, folder / "in")
    _forget_memory()
    began = time.process_time()
    outcome, told = "done", ""
    with _standard_error() as chatter, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as the command line does; in Python they are the program's
        try:
            kind.use(source, folder / "out")
        except DerainError as error:
            outcome, told = "refused", str(error)
            if "an unexpected error" in told:
                outcome = "traceback"
            elif "\n" in told:
                outcome, told = "traceback", f"more than one line: {told!r}"
        except BaseException:
            outcome, told = "traceback", traceback.format_exc()
    seconds, megabytes = time.process_time() - began, _most_memory()
    said = chatter.read_bytes().decode(errors="replace")
    chatter.unlink()
    leftovers = [path.name for path in (folder / "out").rglob(".*")]
    if outcome in ("done", "refused"):
        if seconds > SLOW:
            outcome = "slow"
        elif megabytes > LARGE:
            outcome = "large"
        elif leftovers:
            outcome, told = "partial", f"left behind: {', '.join(leftovers)}"
        elif "Traceback" in said or (kind.quiet and said):
            outcome, told = "chatter", said[:2000]
    return Verdict(number, outcome, told, seconds, megabytes)


@contextmanager
def _standard_error() -> Iterator[Path]:
    """A file that receives what anything in this process writes to the standard error stream."""
    number, path = tempfile.mkstemp()
    sys.stderr.flush()
    before = os.dup(2)
    os.dup2(number, 2)
    os.close(number)
    try:
        yield Path(path)
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)


def _forget_memory() -> None:
    """Linux counts the most memory of a process anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _most_memory() -> float:
    """MB; 0 where nobody counts."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), 0.0)
