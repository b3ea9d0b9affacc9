"""`derain background CLIP -o clean.png`: the clean background of a static clip."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain.cli.messages import printable
from derain.cli.output import say
from derain.cli.shared import AsJson, Overwrite

if TYPE_CHECKING:
    from derain.background.clean_frame import CleanFrame
    from derain.cli.progress import Bar


def background(
    clip: Annotated[
        Path,
        typer.Argument(help="A video, a folder of numbered pictures, or a pattern such as rain_%04d.png."),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The clean picture to write.")] = None,
    variant: Annotated[
        str, typer.Option(help="fixed, or official, which equals the published notebook bit for bit.")
    ] = "fixed",
    frames: Annotated[int | None, typer.Option(help="Use only this many frames, from the start.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for report.json and maps of the confidence and of where the method fails."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Folder to which rainy/clean training pairs are added, in the layout of SPA-Data."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Find the clean background of a rainy clip from a static camera.

    For most of the clip only rain may move, and the exposure must be locked; --report shows
    where that fails. If the camera moves for most of the clip, only the report is written.

    Example: derain background rain.mp4 -o clean.png --report report/
    """
    from derain.atomic import refuse_existing
    from derain.background import clean_frame
    from derain.background.clip import open_clip
    from derain.background.report import facts, refuse_movement, warnings, write_report
    from derain.background.spa_layout import CLEAN, RAINY, refuse_listed, write_pairs
    from derain.background.votes import check_variant
    from derain.cli.progress import bar
    from derain.errors import UsageError, reason
    from derain.pictures import Picture, write_picture
    from derain.pictures.writing import FORMATS

    if output is None and report is None and pairs is None:
        raise UsageError("nothing to write; give -o PICTURE, --report FOLDER or --pairs FOLDER.")
    if output is not None and output.suffix.lower() not in FORMATS:
        raise UsageError(f"{output}: the file name must end in {', '.join(FORMATS)}.")
    for target in filter(None, (output, report and report / "report.json")):
        refuse_existing(target, overwrite)
    method = check_variant(variant)
    source = open_clip(clip, frames)
    if pairs is not None:
        refuse_listed(pairs, source.name)
    scratch = next(folder for folder in (output and output.parent, report, pairs) if folder)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{scratch}: this folder cannot be created ({reason(error)}).") from None
    with bar("finding the clean picture", 2) as progress:
        counted = _counted(source.frames(), source.expected_frames, progress)
        result = clean_frame(counted, method, scratch, progress=progress.part)
    if report is not None:
        write_report(report, result)
    refuse_movement(clip, result)
    if output is not None:
        write_picture(output, Picture(result.picture))
    written = 0
    if pairs is not None:
        with bar("writing pairs", result.frames) as progress:
            each = _advancing(source.frames(), progress)
            written = write_pairs(pairs, source.name, each, result.picture)
    for warning in warnings(result):
        print(f"derain: warning: {printable(f'{clip}: {warning}')}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps({"clip": str(clip), "pairs": written, **facts(result)}, indent=2))
        return
    _summarise(result, [path for path in (output, report) if path is not None])
    if pairs is not None:
        say(f"{written} pairs -> {pairs / RAINY}, {pairs / CLEAN}")


def _summarise(result: CleanFrame, written: Sequence[Path]) -> None:
    """Prints how many frames there were, how far they agree, and where the results are."""
    from derain.background.report import facts

    found = facts(result)["mean_confidence_percent"]
    trust = "too few to estimate the confidence"
    if found is not None:
        trust = f"on average, {found:.0f} % of them agree with the clean picture"
    where = ", ".join(map(str, written))
    say(f"{result.frames} frames, {trust}" + (f" -> {where}" if where else ""))


def _counted(frames: Iterator[Any], expected: int | None, progress: Bar) -> Iterator[Any]:
    """Yields the frames, which together are one step of the bar."""
    for number, frame in enumerate(frames, 1):
        yield frame
        if expected is not None:
            progress.part(min(number, expected), expected)
    progress.advance()


def _advancing(frames: Iterator[Any], progress: Bar) -> Iterator[Any]:
    """Yields the frames, each of which is a step of the bar."""
    for frame in frames:
        yield frame
        progress.advance()
