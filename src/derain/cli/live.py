"""`derain live SOURCE`: removes rain from a camera or stream in real time."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain.cli.options import ModelOptions, ResultOptions, grouped
from derain.cli.piping import PIPE, Pipes, refuse_target, standard_input, standard_output
from derain.cli.shared import FrameByFrame, OwnCode
from derain.errors import DerainError, UsageError, reason

if TYPE_CHECKING:
    from torch import Tensor

    from derain.pictures.streams import FrameWriter
    from derain.restore import Derainer
    from derain.restore.live import Figures, Shown
    from derain.restore.rain import Rain
    from derain.restore.video import Finish
    from derain.serve.live_page import LivePage

EVERY = 1.0  # seconds between reports


@grouped
def live(
    source: Annotated[
        str,
        typer.Argument(
            help="A camera (0, /dev/video0), an address (rtsp://, http://, udp://, ...), a video file, or - "
            "for a pipe."
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A video file to record to, or - for a pipe."),
    ] = None,
    page: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Show the frames on a local web page at this port."),
    ] = None,
    model: ModelOptions,
    protect: Annotated[
        Path | None, typer.Option(help="A mask for the frames; its white areas stay unchanged.")
    ] = None,
    frame_by_frame: FrameByFrame = False,
    result: ResultOptions,
    own_code: OwnCode = False,
    pipes: Pipes,
) -> None:
    """Remove rain from a camera or stream in real time, until Ctrl-C.

    Always restores the newest frame, and corrects it using the two shown before; frames that arrive in the
    meantime are dropped and counted. With --json, one line per second reports how much rain there is.

    Example: derain live /dev/video0 --model everyday-small --page 8080

    Example: derain live rtsp://camera/stream -o dry.mkv --json | mosquitto_pub -l -t garden/rain
    """
    from derain.cli.output import is_quiet
    from derain.restore import load
    from derain.restore.live import Live, source_of

    frames = standard_input() if source == "-" else None
    if source != "-" and any(value is not None for value in (pipes.raw, pipes.size, pipes.rate)):
        raise UsageError("--raw, --size and --rate are for frames from standard input: give - as the source.")
    origin = source_of(source, frames, pipes.frames())
    if output is None and page is None and not result.as_json:
        raise UsageError("nothing to do: give -o to record, --page to watch, or --json to report the rain.")
    restore = load(model.model, **vars(model.settings()), own_code=own_code)
    report = _Report(result.as_json, sys.stderr if output == PIPE else sys.stdout, is_quiet(), restore.name)
    with contextlib.ExitStack() as stack:
        shown_on: LivePage | None = None
        if page is not None:
            shown_on = stack.enter_context(_page(page))
            report.say(shown_on.address)
        loop = Live(
            origin,
            lambda rainy, bits: restore.frame_restorer(bits)(rainy),
            frame_by_frame=frame_by_frame,
            finish=_finish(restore, protect),
            on_message=report.say,
            idle=lambda: tell(newest) if newest is not None and report.due() else None,
        )
        writer: FrameWriter | None = None
        newest: Shown | None = None

        def tell(shown: Shown) -> None:
            figures = loop.figures()
            row = report.tell(figures, _rain(restore, shown) if figures.frames else None)
            if shown_on is not None:
                shown_on.tell(row)

        problem: DerainError | None = None
        try:
            for shown in loop:
                if newest is not None and report.due():  # figures cover only finished frames
                    tell(shown)
                newest = shown
                if output is not None:
                    writer = writer or stack.enter_context(_writer(output, pipes, shown, result.overwrite))
                    writer.write(shown.frame)
                if shown_on is not None:
                    shown_on.show(shown.frame.pixels)
        except KeyboardInterrupt:
            pass  # the usual way to stop
        except DerainError as error:
            if newest is None:
                raise
            problem = error
        if newest is not None and (report.due() or report.nothing_told):
            tell(newest)
        report.end(loop.figures())
        if problem is not None:
            raise problem


def _finish(restore: Derainer, protect: Path | None) -> Finish | None:
    """A function that applies the strength and the mask, which must have the size of the frames."""
    from derain.restore.protecting import Protection

    if protect is None:
        return restore.frame_finish()
    protection = Protection(protect)

    def finish(rainy: Tensor, image: Tensor) -> Tensor:
        height, width = rainy.shape[-2:]
        whole = restore.frame_finish(protection.keep((height, width)))
        return image if whole is None else whole(rainy, image)

    return finish


def _rain(restore: Derainer, shown: Shown) -> Rain:
    from derain.restore.rain import measure_rain

    return measure_rain(shown.rainy, shown.image, threshold=restore.rain_threshold)


def _page(port: int) -> LivePage:
    from derain.extras import extra

    for module in ("fastapi", "uvicorn"):
        extra(module, "serve")
    from derain.serve.live_page import LivePage

    return LivePage(port)


def _writer(output: Path, pipes: Pipes, shown: Shown, overwrite: bool) -> FrameWriter:
    """A writer to standard output, or to a growing file, which keeps what was recorded whatever happens."""
    from derain.pictures.streams import FILE_SUFFIXES, FrameWriter

    raw_format = pipes.raw or "rgb24"
    if output == PIPE:
        return FrameWriter(standard_output(), pipes.to or "mkv", shown.facts, raw_format=raw_format)
    suffix = refuse_target(output, pipes, overwrite, FILE_SUFFIXES)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DerainError(f"{output}: its folder cannot be created ({reason(error)}).") from None
    return FrameWriter(output, suffix, shown.facts)


class _Report:
    """Reports once per second: a line that is updated in place on a terminal, or a line of JSON."""

    def __init__(self, as_json: bool, lines: Any, quiet: bool, name: str) -> None:
        self._as_json, self._lines, self._quiet, self._name = as_json, lines, quiet, name
        self._began = self._told = time.monotonic()
        self._frames, self._dropped, self._latency = 0, 0, 0.0
        self._status = sys.stderr.isatty() and not quiet and not (as_json and lines.isatty())

    def say(self, text: str) -> None:
        """Prints a message on standard error, unless the user gave `-q`."""
        from derain.cli.messages import printable

        if not self._quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def due(self) -> bool:
        """Whether it is time for a report."""
        return time.monotonic() - self._told >= EVERY

    def tell(self, figures: Figures, rain: Rain | None) -> dict[str, Any]:
        """Reports figures since the last report, with `rain` if there was a frame; returns the JSON row."""
        now = time.monotonic()
        seconds, self._told = now - self._told, now
        self._count(figures)
        mean = figures.latency / max(1, figures.frames)
        row = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "frames_per_second": round(figures.frames / seconds, 2),
            "dropped": figures.dropped,
            "reconnects": figures.reconnects,
            "latency_ms": round(1000 * mean, 1),
            "worst_latency_ms": round(1000 * figures.worst, 1),
            "rain": None if rain is None else rain.as_row(),
        }
        if self._as_json:
            print(json.dumps(row), file=self._lines, flush=True)
        if self._status:
            told = f"{row['frames_per_second']:5.1f} frames/s, {figures.dropped} dropped, "
            told += f"latency {row['latency_ms']:.0f} ms"
            told += "" if rain is None else f", rain {100 * rain.share:.1f} %"
            print(f"\r\x1b[K{told}", end="", file=sys.stderr, flush=True)
        return row

    @property
    def nothing_told(self) -> bool:
        """Whether nothing was reported yet, as a source may be shorter than a second."""
        return not self._frames

    def end(self, figures: Figures) -> None:
        """Prints a summary."""
        from derain.cli.progress import duration

        self._count(figures)
        mean = 1000 * self._latency / max(1, self._frames)
        if self._status:
            print("\r\x1b[K", end="", file=sys.stderr)
        self.say(
            f"{self._frames} frames restored and {self._dropped} dropped in "
            f"{duration(time.monotonic() - self._began)} with {self._name}; latency {mean:.0f} ms"
        )

    def _count(self, figures: Figures) -> None:
        self._frames += figures.frames
        self._dropped += figures.dropped
        self._latency += figures.latency
