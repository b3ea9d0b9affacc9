"""How much a command says: `-q` leaves errors and what was asked for, `-v` adds how things were done."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING

import typer

from derain.cli.messages import printable

if TYPE_CHECKING:
    from rich.console import Console

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
log = logging.getLogger("derain")


def is_quiet() -> bool:
    """Whether the user gave `-q`."""
    return _QUIET.get()


def say(text: str) -> None:
    """Prints a line of report, unless the user wants none; what a command is asked to print is no report."""
    if not is_quiet():
        typer.echo(printable(text))


def tell(*lines: str) -> None:
    """Prints lines that a command was asked for, whatever names are in them."""
    for line in lines:
        typer.echo(printable(line))


def tables() -> Console:
    """What prints tables: as they are, without signs of a markup that a name may have by chance."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False)


def be_quiet(quiet: bool) -> None:
    """Sets whether reports are left out."""
    _QUIET.set(quiet)


def be_verbose(verbose: bool) -> None:
    """Shows on standard error what the library logs, with the places that errors come from."""
    if not verbose:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
