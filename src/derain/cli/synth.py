"""`derain synth CLEAN -o PAIRS`: rain made on clean pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from derain.cli.output import say
from derain.cli.shared import DryRun, Overwrite


def synth(
    clean: Annotated[Path, typer.Argument(help="A folder of clean pictures.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Gets the folders rainy/ and clean/.")],
    preset: Annotated[
        str,
        typer.Option(
            help="Kind of rain: light, heavy, ddn, did, real, drops, near, dry, falling, everyday or mixed."
        ),
    ] = "mixed",
    count: Annotated[int, typer.Option(help="Rainy versions of each picture.", min=1)] = 1,
    video: Annotated[
        int | None,
        typer.Option(
            help="Make a clip of so many frames from each picture instead, of rain that falls.", min=1
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another number gives other rain.", min=0)] = 0,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Make pairs of rainy and clean pictures, or rainy clips and clean pictures, for training or testing.

    Example: derain synth photos -o pairs --preset light --count 4
    """
    from derain.cli.messages import printable
    from derain.cli.progress import bar
    from derain.data.synthesis.clips import write_rain_clip
    from derain.data.synthesis.pairs import plan_pairs, write_pair
    from derain.errors import DerainError, UsageError, errors_of

    if video is not None and (preset != "mixed" or count != 1):
        raise UsageError("--preset and --count are for pictures; leave them out with --video.")
    suffix = ".png" if video is None else ".mkv"
    plan, failed = plan_pairs(clean, output, preset, count, overwrite, suffix), 0
    if dry_run:
        for pair in plan:
            typer.echo(printable(f"{pair.source} -> {pair.rainy}, {pair.clean}"))
        return
    with bar("rain", len(plan)) as progress:
        for pair in plan:
            try:
                with errors_of(pair.source, pair.rainy, pair.clean):
                    if video is None:
                        write_pair(pair, preset, seed)
                    else:
                        write_rain_clip(pair, video, seed + pair.number)
            except DerainError as error:
                failed += 1
                progress.complain(error.message, error.remedy)
            progress.advance()
    say(f"{output}: {len(plan) - failed} {'pairs' if video is None else 'clips'}.")
    if failed:
        raise typer.Exit(1)
