"""`derain adapt INPUT... -o OUT`: learn to derain from the rainy pictures alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer


def adapt(
    inputs: Annotated[list[Path], typer.Argument(help="Rainy pictures and folders of pictures.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results (for one picture, a file).")
    ],
    preset: Annotated[
        str, typer.Option(help="quick (about a minute a picture) or published (about an hour).")
    ] = "quick",
    only: Annotated[
        str | None, typer.Option(help="mask: write the published rain maps as PNG files, and learn nothing.")
    ] = None,
    together: Annotated[
        bool,
        typer.Option(help="One network for all pictures, saved as OUT/network.safetensors for `derain run`."),
    ] = False,
    backbone: Annotated[
        str | None, typer.Option(help="Network to learn with, see `derain models`. Default: the preset's.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Trained weights to start from: a checkpoint file or a bundled name."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.05, help="Time limit: per picture, or for all with --together.")
    ] = None,
    keep: Annotated[bool, typer.Option(help="Keep mask, references and weights in OUT/kept.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="To learn in: auto (fp32), fp32, or bf16, twice as fast on some processors.")
    ] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace results that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON for machines.")] = False,
) -> None:
    """Take rain out of pictures by learning from them alone: no clean pictures, no trained weights.

    Example: derain adapt rainy.jpg -o dry.jpg
    """
    from derain.cli.outcomes import follow, summarise
    from derain.cli.progress import bar
    from derain.errors import UsageError, unknown_name
    from derain.methods.rain2avoid.adapt import PRESETS
    from derain.restore.adapting import (
        NETWORK_FILE,
        adapt_each,
        adapt_together,
        starting_point,
        write_maps,
    )
    from derain.restore.derainer import DEVICES, choose_device, choose_precision
    from derain.restore.jobs import plan

    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    if only not in (None, "mask"):
        raise unknown_name("--only", only, ["mask"])
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    precisions = ("auto", "fp32", "bf16")
    if precision not in precisions:
        raise unknown_name("precision", precision, precisions)
    if only and (together or backbone or start or minutes or keep or precision != "auto"):
        raise UsageError("--only mask learns nothing; leave out the options that say how to learn.")
    planned = plan(inputs, output, suffix=".png" if only else None, videos=False)
    jobs = planned.jobs
    if together and len(jobs) == 1 and output.suffix:
        raise UsageError("--together needs a folder as output: the network is saved there, too.")
    began = time.monotonic()
    with bar("learning", 1 if together else len(jobs)) as progress:
        if only:
            results = write_maps(jobs, overwrite)
        else:
            begin = starting_point(preset, backbone, start)
            how: dict[str, Any] = {
                "seconds": None if minutes is None else 60 * minutes,
                "device": choose_device(device),
                "precision": choose_precision(precision, begin.name, begin.network()),
                "keep": keep,
                "overwrite": overwrite,
                "progress": progress.part,
            }
            if together:
                results = adapt_together(jobs, begin, PRESETS[preset], output / NETWORK_FILE, **how)
            else:
                results = adapt_each(jobs, begin, PRESETS[preset], **how)
        done = follow(results, progress, as_json, advance=not together)
    summarise(done, planned.unread, as_json, began, f"-> {output}")
