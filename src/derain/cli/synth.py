"""`derain synth CLEAN -o PAIRS`: adds synthetic rain to clean pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from derain.cli.output import say
from derain.cli.shared import DryRun, Overwrite


def synth(
    clean: Annotated[Path, typer.Argument(help="A folder of clean pictures.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results, in rainy/ and clean/.")
    ],
    preset: Annotated[
        str,
        typer.Option(
            help="Type of rain: light, heavy, ddn, did, short, real, drops, near, dry, falling, everyday or "
            "mixed."
        ),
    ] = "mixed",
    count: Annotated[int, typer.Option(help="Number of rainy versions of each picture.", min=1)] = 1,
    video: Annotated[
        int | None,
        typer.Option(
            help="Make a clip of this many frames from each picture instead, with falling rain.", min=1
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random rain.", min=0)] = 0,
    angle: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Degrees from vertical, drawn at random for each picture or clip; positive falls to the "
            "right. Default: the preset's.",
        ),
    ] = None,
    density: Annotated[
        str,
        typer.Option(
            metavar="LOW,HIGH",
            help="Amount of rain relative to the preset, up to 10; 2 is twice as much. From 4 up, "
            "dense presets turn much of a picture white.",
        ),
    ] = "1",
    brightness: Annotated[
        str,
        typer.Option(metavar="LOW,HIGH", help="Brightness of the streaks relative to the preset, up to 10."),
    ] = "1",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Make pairs of rainy and clean pictures, or rainy clips and clean pictures, for training or testing.

    Example: derain synth photos -o pairs --preset light --count 4

    Example: derain synth photos -o slanted --preset heavy --angle 20,40 --density 0.5,2 --brightness 1.5
    """
    from derain.cli.messages import printable
    from derain.cli.progress import bar
    from derain.data.synthesis import preset as find_preset
    from derain.data.synthesis.clips import write_rain_clip
    from derain.data.synthesis.pairs import plan_pairs, refuse_mixture, write_note, write_pair
    from derain.data.synthesis.weather import Weather
    from derain.errors import DerainError, UsageError, errors_of
    from derain.locks import exclusive_lock
    from derain.made_pairs import NOTE

    if video is not None and (preset != "mixed" or count != 1):
        raise UsageError("--preset and --count are for pictures; leave them out with --video.")
    weather = Weather(
        angle=None if angle is None else _range("angle", angle),
        density=_range("density", density),
        brightness=_range("brightness", brightness),
    )
    kinds = weather.applied_to(find_preset(preset))
    suffix = ".png" if video is None else ".mkv"
    plan, failed = plan_pairs(clean, output, preset, count, overwrite, suffix), 0
    asked = {"angle": angle, "density": density, "brightness": brightness}
    changed = {name: text for name, text in asked.items() if text not in (None, "1")}
    facts = {"preset": preset if video is None else "clips", "seed": seed, **changed}
    refuse_mixture(output, plan, facts)
    if dry_run:
        for pair in plan:
            typer.echo(printable(f"{pair.source} -> {pair.rainy}, {pair.clean}"))
        return
    with exclusive_lock(output / NOTE), bar("rain", len(plan)) as progress:
        write_note(output, plan, facts)
        for pair in plan:
            try:
                with errors_of(pair.source, pair.rainy, pair.clean):
                    if video is None:
                        write_pair(pair, kinds, seed)
                    else:
                        write_rain_clip(pair, video, seed + pair.number, weather)
            except DerainError as error:
                failed += 1
                progress.complain(error.message, error.remedy)
            progress.advance()
    say(f"{output}: {len(plan) - failed} {'pairs' if video is None else 'clips'}.")
    if failed:
        raise typer.Exit(1)


def _range(name: str, text: str) -> tuple[float, float]:
    """The range in LOW,HIGH, or in one number for both."""
    from derain.errors import UsageError

    try:
        ends = [float(part) for part in text.split(",")]
    except ValueError:
        ends = []
    if len(ends) not in (1, 2):
        raise UsageError(f"--{name} {text}: give a number, or two as LOW,HIGH.")
    return ends[0], ends[-1]
