"""`derain run FOLDER --watch`: restores new files until Ctrl-C."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from derain.cli.messages import complain, in_words, printable
from derain.cli.output import say
from derain.errors import DerainError

if TYPE_CHECKING:
    from derain.restore.jobs import Outcome


def follow_arrivals(outcomes: Iterator[Outcome], as_json: bool) -> None:
    """Prints a line for each finished file, as JSON if asked to; exits with 1 if any failed."""
    from derain.restore.jobs import STATUSES, as_row

    counts: Counter[str] = Counter()
    try:
        for outcome in outcomes:
            counts[outcome.status] += 1
            note = in_words(outcome.note, outcome.remedy)
            if as_json:
                typer.echo(json.dumps(as_row(outcome, note)))
                sys.stdout.flush()
            elif outcome.status == "failed":
                complain(DerainError(outcome.note, outcome.remedy))
            elif outcome.status == "restored" or outcome.rain is not None:
                said = f"{outcome.job.source} -> {outcome.job.target}" + (f" ({note})" if note else "")
                say(printable(said))
                sys.stdout.flush()
    except KeyboardInterrupt:  # the usual way to stop
        if not as_json:
            say(", ".join(f"{counts[status]} {status}" for status in STATUSES))
    if counts["failed"]:
        raise typer.Exit(1)
