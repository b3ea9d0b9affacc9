"""How much a command prints: with `-q` only errors and what was asked for, with `-v` also how it was done."""

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
    """Prints a line of a report, unless the user gave `-q`; output that was asked for is not a report."""
    if not is_quiet():
        typer.echo(printable(text))


def tell(*lines: str) -> None:
    """Prints lines that were asked for, safe on any terminal whatever names they contain."""
    for line in lines:
        typer.echo(printable(line))


def tables() -> Console:
    """The console for tables; it prints text as it is, even if a name looks like markup."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False)


def be_quiet(quiet: bool) -> None:
    """Sets whether reports are left out."""
    _QUIET.set(quiet)


def be_verbose(verbose: bool) -> None:
    """Shows the library's log on standard error, with tracebacks of errors."""
    if not verbose:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
