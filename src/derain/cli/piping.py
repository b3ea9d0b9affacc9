"""Reads frames from pipes and writes them to pipes, for `derain run -` and `derain live`."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from derain.errors import Remedy, UsageError, refuse_unknown

if TYPE_CHECKING:
    from derain.pictures.streams import FrameWriter, RawFrames
    from derain.pictures.video_facts import VideoFacts
    from derain.restore import Derainer, VideoOptions

PIPE = Path("-")


@dataclass(frozen=True)
class Pipes:
    """Options for frames from standard input and to standard output."""

    raw: Annotated[
        str | None,
        typer.Option(
            metavar="rgb24|yuv420p", help="Format of raw frames, without a header, on standard input."
        ),
    ] = None
    size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Size of raw frames.")] = None
    rate: Annotated[str | None, typer.Option(help="Raw frames per second, such as 25 or 30000/1001.")] = None
    to: Annotated[
        str | None,
        typer.Option(
            metavar="y4m|raw|mkv",
            help="Format of standard output: frames with a header, without one, or encoded.",
        ),
    ] = None

    def frames(self) -> RawFrames | None:
        """The format of raw frames on standard input; None if a header states it."""
        from derain.pictures.streams import RawFrames

        if self.raw is None:
            unused = [name for name in ("size", "rate") if getattr(self, name) is not None]
            if unused:
                names = " and ".join(f"--{name}" for name in unused)
                raise UsageError(f"{names}: only for raw frames; give their format as --raw.")
            return None
        if self.size is None or self.rate is None:
            raise UsageError("raw frames have no header: give their --size and --rate, too.")
        sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", self.size)
        if sides is None:
            raise UsageError(f"--size {self.size}: give width and height in pixels, such as 640x480.")
        try:
            rate = Fraction(self.rate)
        except (ValueError, ZeroDivisionError):
            raise UsageError(f"--rate {self.rate}: give a number, such as 25 or 30000/1001.") from None
        return RawFrames(self.raw, int(sides[1]), int(sides[2]), rate)


def refuse_options(names: Sequence[str]) -> None:
    """Raises `UsageError` if any options are named; these cannot be used with a pipe."""
    if names:
        named = " and ".join(f"--{name.replace('_', '-')}" for name in names)
        remedy = Remedy("restore them", dict.fromkeys(names))
        raise UsageError(f"{named}: cannot be used with frames from standard input.", remedy)


@contextlib.contextmanager
def frame_writer(
    output: Path, pipes: Pipes, facts: VideoFacts, overwrite: bool, kind: str, options: VideoOptions
) -> Iterator[FrameWriter]:
    """Writes frames to standard output, or to a file that appears whole or not at all."""
    from derain.atomic import new_file
    from derain.pictures.streams import FILE_SUFFIXES, FrameWriter

    writer = functools.partial(
        FrameWriter, facts=facts, raw_format=pipes.raw or "rgb24", codec=options.codec, crf=options.crf
    )
    if output == PIPE:
        with writer(standard_output(), pipes.to or kind) as frames:
            yield frames
        return
    suffix = refuse_target(output, pipes, overwrite, FILE_SUFFIXES)
    with new_file(output) as temporary, writer(temporary, suffix) as frames:
        yield frames


def refuse_target(output: Path, pipes: Pipes, overwrite: bool, suffixes: tuple[str, ...]) -> str:
    """The suffix of a file that frames can be written to. Raises `UsageError` for any other file."""
    from derain.atomic import refuse_existing

    suffix = output.suffix.lower()
    if suffix not in suffixes:
        raise UsageError(
            f"{output}: unknown suffix for frames; give {' '.join(suffixes)}, or - for standard output."
        )
    if pipes.to is not None:
        raise UsageError("--to is for standard output; the format of a file follows from its suffix.")
    refuse_existing(output, overwrite)
    return suffix


def standard_input() -> BinaryIO:
    """Standard input with frames. Raises `UsageError` if it is a terminal."""
    if sys.stdin is None:
        raise UsageError("standard input is closed: send frames to it from a file or a program.")
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal: send frames to it from a file or a program.")
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Standard output for frames. Raises `UsageError` if it is a terminal."""
    if sys.stdout is None:
        raise UsageError("standard output is closed: pipe the frames into a program, or give -o.")
    if sys.stdout.isatty():
        raise UsageError(
            "frames cannot be written to a terminal: pipe them into a program or redirect them to a file, "
            "or give -o."
        )
    return sys.stdout.buffer


def restore_pipe(
    derainer: Derainer, output: Path, pipes: Pipes, options: VideoOptions, overwrite: bool, as_json: bool
) -> None:
    """`derain run -`: restores every frame of standard input, in order.

    Raises:
        DerainError: frames cannot be read or written, or only some could be read.
    """
    from derain.cli.messages import printable
    from derain.cli.output import is_quiet
    from derain.cli.progress import bar, duration
    from derain.pictures.streams import KINDS, open_pipe
    from derain.restore.stream import broken_off, restore_stream

    began = time.monotonic()
    source = standard_input()
    if pipes.to is not None:
        refuse_unknown("kind of stream", pipes.to, KINDS)
    with bar("restoring", None) as progress, open_pipe(source, pipes.frames()) as stream:
        kind = "y4m" if pipes.raw is None else "raw"
        with frame_writer(output, pipes, stream.facts, overwrite, kind, options) as writer:
            done = restore_stream(
                stream,
                writer,
                derainer.frame_restorer(stream.facts.bits),
                batch=derainer.frames_in_a_pass,
                passes=derainer.passes_at_once(),
                frame_by_frame=options.frame_by_frame,
                finish=derainer.frame_finish(),
                progress=progress.reach,
            )
    seconds = time.monotonic() - began
    if as_json:
        print(json.dumps({"frames": done, "seconds": round(seconds, 3)}), file=sys.stderr)
    elif not is_quiet():
        told = f"{done} frames restored in {duration(seconds)} with {derainer.name}"
        print(printable(told), file=sys.stderr)
    if stream.damaged:
        raise broken_off("standard input")
