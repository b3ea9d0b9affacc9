"""`derain run INPUT... -o OUT`: restores pictures and videos."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain.cli.options import ModelOptions, ResultOptions, grouped
from derain.cli.piping import PIPE, Pipes, refuse_options, restore_pipe
from derain.cli.shared import DryRun, FrameByFrame, OwnCode, typed

if TYPE_CHECKING:
    from derain.restore import Derainer, PictureOptions, Settings, VideoOptions
    from derain.restore.jobs import Job, Outcome
    from derain.restore.protecting import Protection
    from derain.restore.run import JobProgress

SUFFIXES = {  # of results, by --format
    "same": None,
    "png": ".png",
    "jpg": ".jpg",
    "webp": ".webp",
    "avif": ".avif",
    "tiff": ".tif",
    "tif": ".tif",
}


@dataclass(frozen=True)
class PictureFlags:
    """Options for pictures."""

    maps: Annotated[
        bool, typer.Option("--maps", help="Also write the rain mask or uncertainty map, to OUT/maps.")
    ] = False
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write before/after sheets of pictures, to OUT/compare.")
    ] = False
    jpeg_quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Quality of JPEG results. Default: the source's, else 95."),
    ] = None
    skip_dry: Annotated[bool, typer.Option("--skip-dry", help="Copy pictures without rain unchanged.")] = (
        False
    )
    sequence: Annotated[
        bool,
        typer.Option(
            "--sequence",
            help="Treat the pictures of a folder as the frames of a clip, in the order of their names.",
        ),
    ] = False

    def options(self) -> PictureOptions:
        """The options as the library takes them."""
        from derain.restore import PictureOptions

        return PictureOptions(**vars(self))


@dataclass(frozen=True)
class VideoFlags:
    """Options for videos."""

    codec: Annotated[
        str | None,
        typer.Option(
            help="Codec of videos: h264, h265, vp9, mpeg4, ffv1, prores or gif. "
            "Default: one that suits the file and its bit depth."
        ),
    ] = None
    crf: Annotated[
        int | None,
        typer.Option(
            help="Quality of videos; lower is better. Default: 18 for h264, 20 for h265, 24 for vp9."
        ),
    ] = None
    frame_by_frame: FrameByFrame = False
    temporal: Annotated[
        bool,
        typer.Option(
            "--temporal", help="Reduce flicker in videos of still or slow scenes, using neighbouring frames."
        ),
    ] = False
    keep_fields: Annotated[
        bool,
        typer.Option("--keep-fields", help="Refuse interlaced videos; otherwise they are deinterlaced."),
    ] = False
    resume: Annotated[bool, typer.Option("--resume", help="Continue a video whose run was interrupted.")] = (
        False
    )

    def options(self) -> VideoOptions:
        """The options as the library takes them."""
        from derain.restore import VideoOptions

        return VideoOptions(**vars(self))


@dataclass(frozen=True)
class RunFlags:
    """How the work is done, and in which format results are written."""

    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="local|HOST:PORT",
            help="Spread pictures over a Ray cluster: a running one, or one started on this machine.",
        ),
    ] = None
    format: Annotated[
        str,
        typer.Option(
            metavar="png|jpg|webp|tiff|avif|same",
            help="Format of restored pictures; same: that of the source.",
        ),
    ] = "same"
    own_code: OwnCode = False
    protect: Annotated[
        Path | None,
        typer.Option(
            help="A mask, or a folder of masks named like the inputs; their white areas stay unchanged.",
        ),
    ] = None
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Restore what is in a folder, then new files as they arrive, until Ctrl-C."
        ),
    ] = False


@grouped
def run(
    ctx: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Pictures, videos, and folders of them; - for frames from standard input."),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the results; for a single picture or video, the file. "
            "Default: beside the input, as NAME-derained. For frames: a video file, or - (the default).",
        ),
    ] = None,
    model: ModelOptions,
    picture: PictureFlags,
    flags: RunFlags,
    result: ResultOptions,
    dry_run: DryRun = False,
    video: VideoFlags,
    pipes: Pipes,
) -> None:
    """Remove rain from pictures and videos.

    Pictures keep bit depth, transparency and metadata; videos keep timing, sound, subtitles and colour.

    Example: derain run holiday/ clip.mp4 -o dry/

    Example: derain run holiday/ -o dry/ --compare

    Example: derain run archive/ -o dry/ --cluster local

    Example: ffmpeg -i clip.mp4 -f yuv4mpegpipe - | derain run - | ffplay -
    """
    from derain.errors import refuse_unknown

    refuse_unknown("--format", flags.format, SUFFIXES)
    given = typed(ctx) - ({"format"} if flags.format == "same" else set())
    request = Request(inputs, output, model, picture, video, flags, result)
    if PIPE in inputs:
        _refuse_beside_frames(inputs, given)
        restore_pipe(
            request.derainer(), output or PIPE, pipes, video.options(), result.overwrite, result.as_json
        )
        return
    _refuse_pipe_options(pipes, output)
    if flags.watch:
        _watch(request, dry_run)
    else:
        _restore(request, given, dry_run)


@dataclass(frozen=True)
class Request:
    """What the user asked for: the arguments and groups of options of `run`."""

    inputs: list[Path]
    output: Path | None
    model: ModelOptions
    picture: PictureFlags
    video: VideoFlags
    flags: RunFlags
    result: ResultOptions

    def derainer(self) -> Derainer:
        """Opens the network, which may take seconds."""
        from derain.restore import load

        return load(self.model.model, **vars(self.model.settings()), own_code=self.flags.own_code)

    def protection(self) -> Protection | None:
        """The masks of what stays unchanged; None if there are none."""
        from derain.restore.protecting import Protection

        return None if self.flags.protect is None else Protection(self.flags.protect)


def _watch(request: Request, dry_run: bool) -> None:
    """Restores what is in a folder, then new files as they arrive, until Ctrl-C."""
    from derain.cli.watching import follow_arrivals
    from derain.errors import UsageError
    from derain.restore.watching import watch

    inputs, flags, protection = request.inputs, request.flags, request.protection()
    if len(inputs) == 1 and not inputs[0].exists():
        raise UsageError(f"{inputs[0]}: no such folder.")
    if len(inputs) != 1 or not inputs[0].is_dir() or flags.cluster is not None or dry_run:
        raise UsageError("--watch takes one folder, and cannot be combined with --cluster or --dry-run.")
    if request.picture.sequence:
        raise UsageError(
            "--watch cannot be combined with --sequence, which needs the pictures that come next."
        )
    arriving = watch(
        request.derainer(),
        inputs[0],
        request.output,
        suffix=SUFFIXES[flags.format],
        overwrite=request.result.overwrite,
        pictures=request.picture.options(),
        videos=request.video.options(),
        protection=protection,
    )
    follow_arrivals(arriving, request.result.as_json)


def _restore(request: Request, given: Collection[str], dry_run: bool) -> None:
    """Restores files and folders, here or on a cluster, or shows what would be done.

    Args:
        request: what to restore, and how.
        given: names of the options that were typed.
        dry_run: only show what would be done.
    """
    from derain.cli.outcomes import in_folders, print_plan, summarise
    from derain.restore.jobs import plan
    from derain.restore.run import refuse_unusable, refuse_unused

    flags, picture, video, result = request.flags, request.picture, request.video, request.result
    protection, began = request.protection(), time.monotonic()
    planned = plan(
        request.inputs, request.output, suffix=SUFFIXES[flags.format], videos=flags.cluster is None
    )
    jobs = planned.jobs
    if flags.cluster is not None:
        _refuse_on_cluster(request, jobs)
    refuse_unused(jobs, [name for name in (*vars(picture), "format", *vars(video)) if name in given])
    refuse_unusable(jobs, request.model.model, picture.options(), video.options(), result.overwrite)
    if dry_run:
        print_plan(planned, result.overwrite, result.as_json, protection)
        return
    derainer = request.derainer()
    done = _follow(
        jobs, lambda progress: _outcomes(request, jobs, derainer, protection, progress), result.as_json
    )
    how, facts = _used(derainer, done)
    if any(outcome.status != "failed" for outcome in done):
        how += f" -> {jobs[0].target if len(jobs) == 1 else in_folders(jobs)}"
    summarise(done, planned.unread, result.as_json, began, how, facts)


def _outcomes(
    request: Request,
    jobs: Sequence[Job],
    derainer: Derainer,
    protection: Protection | None,
    progress: JobProgress,
) -> Iterator[Outcome]:
    """The outcome of each job; one that fails does not stop the others."""
    from derain.restore.run import restore_all

    if request.flags.cluster is not None:
        return _on_cluster(request, request.flags.cluster, jobs, derainer.settings)
    return restore_all(
        derainer,
        jobs,
        pictures=request.picture.options(),
        videos=request.video.options(),
        overwrite=request.result.overwrite,
        protection=protection,
        progress=progress,
    )


def _refuse_beside_frames(inputs: Sequence[Path], given: Collection[str]) -> None:
    """Raises `UsageError` for what cannot be combined with frames from standard input."""
    from derain.errors import UsageError

    if len(inputs) > 1:
        raise UsageError("- (standard input) must be the only input.")
    unsuited = [*vars(PictureFlags()), "temporal", "keep_fields", "resume"]
    unsuited += ["cluster", "protect", "watch", "format", "dry_run"]
    refuse_options([name for name in unsuited if name in given])


def _refuse_pipe_options(pipes: Pipes, output: Path | None) -> None:
    """Raises `UsageError` for an option that is only for frames, where files are restored."""
    from derain.errors import UsageError

    given = [name for name, value in vars(pipes).items() if value is not None]
    if given or output == PIPE:
        option = f"--{given[0]}" if given else "-o -"
        raise UsageError(f"{option} is for frames from standard input: give - as the input.")


def _refuse_on_cluster(request: Request, jobs: Sequence[Job]) -> None:
    """Raises `UsageError` for what a cluster cannot do."""
    from derain.errors import UsageError

    output = request.output
    if output is None or any(job.is_video or job.target == output for job in jobs):
        raise UsageError("--cluster is for pictures, with a folder for the results as --output.")
    if request.flags.own_code:
        raise UsageError(
            "--cluster and --own-code cannot be combined: other machines may not have that code."
        )
    if request.picture.sequence:
        raise UsageError("--sequence does not work on a cluster; leave out --cluster.")
    if request.flags.protect is not None:
        raise UsageError("--protect does not work on a cluster; leave out --cluster.")


def _follow(
    jobs: Sequence[Job], outcomes: Callable[[JobProgress], Iterator[Outcome]], as_json: bool
) -> list[Outcome]:
    """Collects the outcomes, under a bar that shows the frames of videos, too."""
    from derain.cli.outcomes import follow
    from derain.cli.progress import bar
    from derain.paths import exists, parts_of

    at_work: list[Job] = []
    with bar("restoring", len(jobs)) as progress:

        def told(job: Job, done: int, total: int | None) -> None:
            at_work[:] = [job]
            frames = f"{job.source.name}: frame {done}" + (f" of {total}" if total else "")
            progress.part(done, total, frames if job.is_video else "")

        try:
            return follow(outcomes(told), progress, as_json)
        except KeyboardInterrupt:
            if at_work and at_work[0].is_video:
                parts = parts_of(at_work[0].target)
                if exists(parts):
                    progress.say(f"{parts}: finished parts are kept; give --resume to continue.", error=True)
            raise


def _used(derainer: Derainer, done: Sequence[Outcome]) -> tuple[str, dict[str, Any]]:
    """What the results were restored with, in words and as entries of the JSON."""
    import torch

    precisions = "".join(f", {name}" for name in dict.fromkeys(o.precision for o in done if o.precision))
    facts = {"model": derainer.name, "device": str(derainer.device), "threads": torch.get_num_threads()}
    return f"with {derainer.name}{precisions}", facts


def _on_cluster(request: Request, address: str, jobs: Sequence[Job], settings: Settings) -> Iterator[Outcome]:
    from derain.checkpoints.bundled import is_plain_name
    from derain.checkpoints.hub import names_repository
    from derain.scale.cluster import Assignment, restore_on_cluster

    assert request.output is not None
    model = request.model.model
    is_path = model is not None and not is_plain_name(model) and not names_repository(model)
    found = Path(model).absolute() if model is not None and is_path else model
    assignment = Assignment(found, settings, request.picture.options())
    return restore_on_cluster(jobs, assignment, address, request.output, request.result.overwrite)
