"""`derain run INPUT... -o OUT`: the main job."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer


def run(
    inputs: Annotated[list[Path], typer.Argument(help="Pictures, folders of pictures, and videos.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the results (for one picture or video, a file). "
            "By default beside the input, as NAME-derained.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Bundled weights by name; see `derain models`.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint, an exported file (.onnx, .xml), or hf:OWNER/NAME, instead of bundled weights."
        ),
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
    jpeg_quality: Annotated[
        int | None,
        typer.Option(
            min=1, max=100, help="Of JPEG results; by default the source's, or 95 where it is no JPEG."
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            help="Of videos: h264, h265, vp9, mpeg4, ffv1 or gif. By default as container and depth ask."
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(help="Quality of videos, lower is better; 18 for h264, 20 for h265, 24 for vp9."),
    ] = None,
    temporal: Annotated[
        bool, typer.Option(help="Steady videos of still or slow scenes with the neighbouring frames.")
    ] = False,
    resume: Annotated[bool, typer.Option(help="Go on with a video whose run was interrupted.")] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="local|HOST:PORT",
            help="Spread pictures over a Ray cluster, on this machine or one that runs.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace results that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON for machines.")] = False,
) -> None:
    """Take the rain out of pictures and videos.

    Videos (mp4, mov, mkv, webm, avi, gif) keep their times, sound, subtitles and colour.

    Example: derain run holiday/ clip.mp4 -o dry/ --compare

    Example: derain run archive/ -o dry/ --cluster local
    """
    from derain.cli.progress import bar, duration
    from derain.errors import UsageError
    from derain.export import is_exported
    from derain.restore import load
    from derain.restore.clips import VideoOptions, is_video, plan_clips, refuse_unfit, restore_clip
    from derain.restore.folder import as_row, plan, restore_all

    if model is not None and weights is not None:
        raise UsageError("--model and --weights exclude each other; give one.")
    if maps and weights is not None and is_exported(weights):
        raise UsageError("--maps needs a checkpoint; exported files give the picture alone.")
    videos = [given for given in inputs if is_video(given)]
    others = [given for given in inputs if not is_video(given)]
    options = VideoOptions(codec, crf, resume, temporal)
    if not videos and options != VideoOptions():
        raise UsageError("--codec, --crf, --temporal and --resume are for videos; none was given.")
    if not others and (maps or compare):
        raise UsageError("--maps and --compare are for pictures; none was given.")
    jobs = plan(others, output, output_is_folder=bool(videos)) if others else []
    clips = plan_clips(videos, output, output_is_folder=bool(others))
    if cluster is not None and (videos or output is None or jobs[0].target == output):
        raise UsageError("--cluster is for pictures, with a folder for the results as --output.")
    refuse_unfit(clips, options)
    derainer = load(
        weights or model, device=device, precision=precision, tile=tile, overlap=overlap, ensemble=ensemble
    )
    began, outcomes, videos_done = time.monotonic(), [], []
    for clip in clips:
        with bar(clip.source.name, None) as progress:
            try:
                done = restore_clip(derainer, clip, options, overwrite, progress.reach)
            except KeyboardInterrupt:
                progress.say(f"{clip.source}: finished parts are kept; --resume goes on.", error=True)
                raise
            videos_done.append(done)
            if done.status == "failed":
                progress.say(f"derain: {done.note}", error=True)
            elif done.note:
                progress.say(f"{clip.source}: {done.note}")
    with bar("restoring", len(jobs)) as progress:
        if cluster is not None:
            assert output is not None
            from derain.checkpoints.hub import names_repository
            from derain.scale.cluster import Work, restore_on_cluster

            file = weights if weights is None or names_repository(weights) else weights.absolute()
            work = Work(file or model, derainer.settings, maps, compare, jpeg_quality)
            results = restore_on_cluster(jobs, work, cluster, output, overwrite)
        else:
            results = restore_all(
                derainer,
                jobs,
                overwrite=overwrite,
                maps=maps,
                compare=compare,
                jpeg_quality=jpeg_quality,
                progress=progress.part,
            )
        for outcome in results:
            outcomes.append(outcome)
            progress.advance()
            if outcome.status == "failed":
                progress.say(f"derain: {outcome.note}", error=True)
            elif outcome.note:
                progress.say(f"{outcome.job.source}: {outcome.note}")
    rows = [as_row(outcome) for outcome in outcomes]
    films = [as_row(outcome) for outcome in videos_done]
    counts = {
        status: sum(row["status"] == status for row in (*rows, *films))
        for status in ("restored", "skipped", "failed")
    }
    if as_json:
        typer.echo(json.dumps({"pictures": rows, "videos": films, **counts}, indent=2))
    else:
        where = output or (jobs[0].target if jobs else clips[0].target).parent
        summary = ", ".join(f"{count} {status}" for status, count in counts.items())
        typer.echo(f"{summary} in {duration(time.monotonic() - began)} with {derainer.name} -> {where}")
    if counts["failed"]:
        raise typer.Exit(1)
