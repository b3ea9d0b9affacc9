"""`derain run INPUT... -o OUT`: the main job."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer


def run(
    inputs: Annotated[list[Path], typer.Argument(help="Pictures and folders of pictures.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the results (for one picture, a file). "
            "By default beside the input, as NAME-derained.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Bundled weights by name; see `derain models`.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A checkpoint file instead of bundled weights.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (fp32), fp32, bf16 or fp16.")] = "auto",
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side of a tile in pixels; 0: never tile. By default chosen by the memory at hand."
        ),
    ] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels that neighbouring tiles share.")] = None,
    ensemble: Annotated[bool, typer.Option(help="Average over the eight flips and turns.")] = False,
    maps: Annotated[
        bool, typer.Option(help="Also write the rain mask or uncertainty map, to OUT/maps.")
    ] = False,
    compare: Annotated[bool, typer.Option(help="Also write before/after sheets, to OUT/compare.")] = False,
    jpeg_quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG results.")] = 95,
    overwrite: Annotated[bool, typer.Option(help="Replace results that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON for machines.")] = False,
) -> None:
    """Take the rain out of pictures.

    Example: derain run holiday/ -o dry/ --compare
    """
    from derain.cli.progress import bar, duration
    from derain.errors import UsageError
    from derain.restore import load
    from derain.restore.folder import plan, restore_all

    if model is not None and weights is not None:
        raise UsageError("--model and --weights exclude each other; give one.")
    jobs = plan(inputs, output)
    derainer = load(
        weights or model, device=device, precision=precision, tile=tile, overlap=overlap, ensemble=ensemble
    )
    began, outcomes = time.monotonic(), []
    with bar("restoring", len(jobs)) as progress:
        for outcome in restore_all(
            derainer,
            jobs,
            overwrite=overwrite,
            maps=maps,
            compare=compare,
            jpeg_quality=jpeg_quality,
            progress=progress.part,
        ):
            outcomes.append(outcome)
            progress.advance()
            if outcome.status == "failed":
                progress.say(f"derain: {outcome.note}", error=True)
            elif outcome.note:
                progress.say(f"{outcome.job.source}: {outcome.note}")
    counts = {
        status: sum(o.status == status for o in outcomes) for status in ("restored", "skipped", "failed")
    }
    if as_json:
        pictures = [
            {"source": str(o.job.source), "target": str(o.job.target), "status": o.status, "note": o.note}
            for o in outcomes
        ]
        typer.echo(json.dumps({"pictures": pictures, **counts}, indent=2))
    else:
        where = output or jobs[0].target.parent
        summary = ", ".join(f"{count} {status}" for status, count in counts.items())
        typer.echo(f"{summary} in {duration(time.monotonic() - began)} with {derainer.name} -> {where}")
    if counts["failed"]:
        raise typer.Exit(1)
