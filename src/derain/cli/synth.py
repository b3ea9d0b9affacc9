"""`derain synth CLEAN -o PAIRS`: rain made on clean pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from derain.cli.output import say
from derain.cli.shared import Overwrite


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
) -> None:
    """Make pairs of rainy and clean pictures, or rainy clips and clean pictures, for training or testing.

    Example: derain synth photos -o pairs --preset light --count 4
    """
    from rich.console import Console
    from rich.progress import track

    from derain.data.synthesis.clips import write_rain_clip
    from derain.data.synthesis.pairs import plan_pairs, write_pair
    from derain.errors import UsageError

    if video is not None:
        if preset != "mixed" or count != 1:
            raise UsageError("--preset and --count are for pictures; leave them out with --video.")
        clips = plan_pairs(clean, output, preset, overwrite=overwrite, rainy_suffix=".mkv")
        for clip in clips:
            write_rain_clip(clip, video, seed + clip.number)
        say(f"{output}: {len(clips)} clips.")
        return
    plan = plan_pairs(clean, output, preset, count, overwrite)
    console = Console(stderr=True)
    for pair in track(plan, "rain", console=console, transient=True, disable=not console.is_terminal):
        write_pair(pair, preset, seed)
    say(f"{output}: {len(plan)} pairs.")
