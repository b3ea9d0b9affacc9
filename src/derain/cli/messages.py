"""What the command line prints: remedies spelled as options, and only what is safe on a terminal."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from derain.errors import DerainError, Remedy

JOINERS = "\u200c\u200d"  # invisible, but part of emoji, and of names in some scripts


def printable(text: str) -> str:
    """One line, safe on any terminal: control characters and the like are escaped."""
    return "".join(
        sign
        if sign.isprintable() or sign in JOINERS
        else sign.encode("unicode_escape", "surrogatepass").decode()
        for sign in text
    )


# Secrets are given as environment variables, as other users of the machine can read a command's options.
SECRETS = {"token": "DERAIN_TOKEN"}


def option(name: str, value: object = None) -> str:
    """A setting as an option of the command line: `--overwrite`, `--precision float32`."""
    if name in SECRETS and value is not None:
        return f"{SECRETS[name]}={value} in the environment"
    flag = "--" + name.replace("_", "-")
    return flag if value is None or value is True else f"{flag} {value}"


def in_words(message: str, remedy: Remedy | None = None) -> str:
    """A message and its remedy, safe to print."""
    return printable(message if remedy is None else f"{message} {remedy.sentence('give', option)}")


def complain(error: DerainError) -> None:
    """Prints an error on standard error."""
    print(f"derain: {in_words(error.message, error.remedy)}", file=sys.stderr, flush=True)


@contextmanager
def terminal() -> Iterator[None]:
    """Escapes characters that the terminal cannot show, and lets SIGTERM end a command as Ctrl-C does.

    Warnings that packages issue for programmers are shown only if Python was asked for them (-W).
    A command that is ended by a signal exits with 128 + the signal's number.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    received: list[int] = []
    try:
        with _interrupting(received), warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    # Ctrl-C may arrive while the command is still being set up, or is already exiting.
    except (SystemExit, KeyboardInterrupt) as end:
        if isinstance(end, SystemExit) and end.code != 130:
            raise
        print("derain: stopped; no half-written results were left behind.", file=sys.stderr)
        sys.exit(128 + (received or [signal.SIGINT])[0])
    finally:
        # Python remembers an interrupted exec, which dataclasses use, and would end itself with SIGINT.
        exec("")


@contextmanager
def _interrupting(received: list[int]) -> Iterator[None]:
    """Makes SIGTERM, and SIGINT unless ignored, raise `KeyboardInterrupt`; adds them to `received`."""
    parent = os.getpid()

    def interrupt(number: int, _: FrameType | None) -> None:
        if os.getpid() != parent:  # a worker process, which reports nothing
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if _pytorch_is_loading():
            again = threading.Timer(0.05, os.kill, (parent, number))
            again.daemon = True
            again.start()
            return
        received.append(number)
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _pytorch_is_loading() -> bool:
    """Whether PyTorch is being imported, when an exception between its C++ parts can abort the process."""
    return bool(getattr(getattr(sys.modules.get("torch"), "__spec__", None), "_initializing", False))
