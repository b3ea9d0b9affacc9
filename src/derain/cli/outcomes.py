"""Outcomes of many files: a line each while they are processed, a summary or JSON at the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from derain.cli.messages import in_words, printable
from derain.cli.output import log, say
from derain.cli.progress import Bar, duration
from derain.errors import Remedy
from derain.paths import exists

if TYPE_CHECKING:
    from derain.pictures import Unread
    from derain.restore.jobs import Job, Outcome, Plan
    from derain.restore.protecting import Protection


def follow(outcomes: Iterable[Outcome], progress: Bar, as_json: bool, advance: bool = True) -> list[Outcome]:
    """Collects outcomes as they arrive; errors and notes appear above the bar at once.

    Results that exist already are only counted, as there may be thousands after an interruption.
    """
    done, existing = [], []
    for outcome in outcomes:
        done.append(outcome)
        job = outcome.job
        told = printable(f"{job.source} -> {job.target}: {outcome.status} {outcome.precision}".strip())
        log.info("%s", told)
        if advance:
            progress.advance()
        if outcome.status == "failed":
            progress.complain(outcome.note, outcome.remedy)
        elif outcome.exists:
            existing.append(outcome)
        elif outcome.note:
            told = in_words(outcome.note, outcome.remedy)
            progress.say(f"{outcome.job.source}: {told}", error=as_json)
    if len(existing) == 1:
        told = in_words(existing[0].note, existing[0].remedy)
        progress.say(f"{existing[0].job.target}: {told}", error=as_json)
    elif existing:
        told = in_words(
            f"{len(existing)} results exist already, perhaps made with other settings.",
            Remedy("replace them", {"overwrite": True}),
        )
        progress.say(told, error=as_json)
    return done


# What is printed after a target, by the status that it would get.
PLANNED: Mapping[str, str] = {
    "restored": "",
    "skipped": " (exists already, would be skipped)",
    "failed": " (exists already but is incomplete, would fail)",
}


def print_plan(planned: Plan, overwrite: bool, as_json: bool, protection: Protection | None = None) -> None:
    """Prints what would happen to each file, and with which mask."""
    from derain.restore.jobs import skipped

    rows = []
    for job in planned.jobs:
        status = skipped(job).status if exists(job.target) and not overwrite else "restored"
        row = {"source": str(job.source), "target": str(job.target), "status": status}
        if protection is not None:
            row["mask"] = str(protection.path(job.name) or "")
        rows.append(row)
    if as_json:
        typer.echo(json.dumps({"planned": rows}, indent=2))
        return
    for row in rows:
        there = PLANNED[row["status"]]
        mask = f" (mask: {row['mask'] or 'none found'})" if "mask" in row else ""
        typer.echo(printable(f"{row['source']} -> {row['target']}{there}{mask}"))
    for entry in planned.unread:
        advice = f"; {entry.advice}" if entry.advice else ""
        typer.echo(printable(f"{entry.source}: would be skipped ({entry.kind}{advice})"))


def in_folders(jobs: Sequence[Job]) -> str:
    """The folders of the results, the first three of them by name."""
    folders = list(dict.fromkeys(str(job.folder) for job in jobs))
    others = len(folders) - 3
    named = ", ".join(folders[:3]) or "nowhere"
    return f"{named} and {others} other{'s' if others > 1 else ''}" if others > 0 else named


def summarise(
    outcomes: Sequence[Outcome],
    unread: Sequence[Unread],
    as_json: bool,
    began: float,
    how: str,
    facts: Mapping[str, object] | None = None,
) -> None:
    """Prints a summary; exits with 1 unless all went well.

    Args:
        outcomes: of all jobs.
        unread: files that were skipped.
        as_json: print JSON instead of a line.
        began: `time.monotonic()` at the start.
        how: completes the line: with which model, and where the results are.
        facts: further entries of the JSON.
    """
    from derain.pictures import passed_over
    from derain.restore.jobs import STATUSES, as_row
    from derain.restore.run import is_complete

    counts: dict[str, int] = {
        status: sum(outcome.status == status for outcome in outcomes) for status in STATUSES
    }
    if as_json:
        rows = [as_row(outcome, in_words(outcome.note, outcome.remedy)) for outcome in outcomes]
        videos = [outcome.job.is_video for outcome in outcomes]
        content: dict[str, object] = {
            "pictures": [row for row, is_video in zip(rows, videos, strict=True) if not is_video],
            "videos": [row for row, is_video in zip(rows, videos, strict=True) if is_video],
            **counts,
            **(facts or {}),
            "unread": [
                {"source": str(entry.source), "kind": entry.kind, "advice": entry.advice} for entry in unread
            ],
        }
        typer.echo(json.dumps(content, indent=2))
    else:
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        say(f"{told} in {duration(time.monotonic() - began)} {how}")
        if any(entry.advice for entry in unread):
            print(f"derain: {printable(passed_over(unread))}", file=sys.stderr)
        elif unread:
            say(passed_over(unread))
    if not is_complete(outcomes, unread):
        raise typer.Exit(1)
