"""Applies a network to a camera or stream in real time.

The newest frame is always the one restored, and is corrected by those shown before it. Frames that arrive in
the meantime are dropped and counted, so a slow machine skips frames rather than falling behind.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from derain.errors import DerainError, UsageError
from derain.paths import is_file, is_folder
from derain.pictures.cameras import open_camera
from derain.pictures.streams import RawFrames, open_address, open_file, open_pipe, without_password
from derain.pictures.video import Frame, frame_from_tensor, frame_to_tensor
from derain.pictures.video_facts import VideoFacts
from derain.restore.neighbours import Following, Seen
from derain.restore.stream import broken_off
from derain.restore.video import Finish, finished

FIRST_DELAY, LONGEST_DELAY = 1.0, 15.0  # seconds before trying to reopen a lost source
CLOSING = 2.0  # seconds that a source has to shut down
IDLE = 1.0  # seconds without a frame after which this is reported
TICKS = 1000  # units of frame times per second


class LiveStream(Protocol):
    """An open source: `derain.pictures.streams.FrameStream`, or one from a camera."""

    facts: VideoFacts

    @property
    def damaged(self) -> bool:
        """Whether something could not be decoded so far."""

    def decoded(self) -> Iterator[Any]:
        """The frames as they arrive."""

    def rgb(self, frame: Any) -> Frame:
        """One of them as a picture."""


@dataclass(frozen=True)
class LiveSource:
    """Where frames come from.

    Attributes:
        name: what messages call it.
        open: returns a context manager of the open source; called again when the source is lost.
        ends: whether everything ends with it; otherwise it is opened again.
        paced: whether to delay frames until their own times, for files, which deliver them all at once.
    """

    name: str
    open: Callable[[], contextlib.AbstractContextManager[LiveStream]]
    ends: bool = False
    paced: bool = False


def source_of(text: str, standard_input: Any = None, raw: RawFrames | None = None) -> LiveSource:
    """The source that a user means by a text.

    Args:
        text: "0" or "/dev/video0", an address such as "rtsp://camera/stream", "-" for `standard_input`,
            or a video file.
        standard_input: a binary stream.
        raw: the format of raw frames on standard input.

    Raises:
        UsageError: there is no such file.

    Examples:
        >>> source_of("rtsp://guard:secret@camera/stream").name
        'rtsp://camera/stream'
    """
    if text == "-":
        return LiveSource("standard input", lambda: open_pipe(standard_input, raw, live=True), ends=True)
    if "://" in text:
        return LiveSource(without_password(text), lambda: open_address(text))
    if text.isdecimal() or text.startswith("/dev/"):
        return LiveSource(text, lambda: open_camera(text))
    if not is_file(Path(text)):
        what = "is a folder" if is_folder(Path(text)) else "no such file"
        raise UsageError(f"{text}: {what}; give a camera, an address, a video or - for standard input.")
    return LiveSource(text, lambda: open_file(Path(text)), ends=True, paced=True)


@dataclass
class Figures:
    """What was done since the last report.

    Attributes:
        frames: the number of restored frames.
        dropped: the number of frames dropped because they arrived while another was being restored.
        reconnects: how often the source was reopened.
        latency: seconds from a frame's arrival to its output, summed over all frames.
        worst: the longest of these.
    """

    frames: int = 0
    dropped: int = 0
    reconnects: int = 0
    latency: float = 0.0
    worst: float = 0.0


@dataclass(frozen=True)
class Shown:
    """A frame before and after.

    Attributes:
        frame: restored and corrected, as pixels; its time is in milliseconds since the first.
        facts: those of the source, with a time base of milliseconds.
        rainy, image: (1, 3, H, W) float32 RGB in [0, 1], before and after the network.
    """

    frame: Frame
    facts: VideoFacts
    rainy: Tensor
    image: Tensor


@dataclass
class _Newest:
    """A slot for one frame: a newer one replaces it if it has not been taken."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: tuple[LiveStream, Any, float] | None = None
    dropped: int = 0
    reconnects: int = 0
    over: bool = False
    error: BaseException | None = None

    def put(self, stream: LiveStream, frame: Any, arrived: float) -> None:
        """Replaces the waiting frame."""
        with self.changed:
            self.dropped += self.waiting is not None
            self.waiting = (stream, frame, arrived)
            self.changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        """Marks that no more frames will come, because of `error`, or None if the source simply ended."""
        with self.changed:
            self.over, self.error = True, error
            self.changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Waits at most this long for a frame or the end; returns whether one of them came."""
        with self.changed:
            return self.changed.wait_for(lambda: self.waiting is not None or self.over, seconds)

    def take(self) -> tuple[LiveStream, Any, float] | None:
        """Waits for and returns the newest frame; None at the end. Raises the source's error."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting is not None or self.over)
            taken, self.waiting = self.waiting, None
            if taken is None and self.error is not None:
                raise self.error
            return taken


class Live:
    """Iterates over the restored frames of a source until it ends.

        restore = derain.load("everyday-small")
        image = lambda rainy, bits: restore.frame_restorer(bits)(rainy)
        for shown in Live(source_of("rtsp://camera/stream"), image, finish=restore.frame_finish()):
            ...  # shown.frame.pixels: (H, W, 3), the newest frame without its rain

    What the loop does with a frame counts towards latency. It is an error if the source cannot be opened at
    first; if it is lost later, it is reopened. A file or pipe that was damaged or cut off is an error after
    its last frame.
    """

    def __init__(
        self,
        source: LiveSource,
        restore: Callable[[Tensor, int], Tensor],
        *,
        frame_by_frame: bool = False,
        finish: Finish | None = None,
        on_message: Callable[[str], None] = lambda text: None,
        idle: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """
        Args:
            source: see `source_of`.
            restore: maps (1, 3, H, W) float32 RGB in [0, 1], of the given bits per channel, to the same, at
                full strength; `finish` applies another strength.
            frame_by_frame: do not correct each frame by the two shown before it, see
                `derain.restore.neighbours`: faster, but more rain stays.
            finish: makes the final frame from the rainy and the corrected one, both (1, 3, H, W).
            on_message: called with messages about the source.
            idle: called in the loop's thread while no frame comes, once a second.
            clock: seconds that never go back.
            wait: waits for this many seconds; by default it returns early when the loop ends.
        """
        self._source, self._restore, self._on_message, self._clock = source, restore, on_message, clock
        self._idle = idle
        self._following = None if frame_by_frame else Following()
        self._finish = finish
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._newest = _Newest()
        self._figures = Figures()

    def figures(self) -> Figures:
        """What was done since the last call."""
        figures, self._figures = self._figures, Figures()
        with self._newest.changed:
            figures.dropped, self._newest.dropped = self._newest.dropped, 0
            figures.reconnects, self._newest.reconnects = self._newest.reconnects, 0
        return figures

    def __iter__(self) -> Iterator[Shown]:
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        began = None
        try:
            while (taken := self._next()) is not None:
                stream, decoded, arrived = taken
                began = arrived if began is None else began
                yield self._shown(stream, decoded, round((arrived - began) * TICKS))
                seconds = self._clock() - arrived
                self._figures.frames += 1
                self._figures.latency += seconds
                self._figures.worst = max(self._figures.worst, seconds)
        finally:
            self._stop.set()
            reader.join(CLOSING)  # it may be waiting for the network

    def _next(self) -> tuple[LiveStream, Any, float] | None:
        while not self._newest.wait(IDLE):
            self._idle()
        return self._newest.take()

    def _shown(self, stream: LiveStream, decoded: Any, time: int) -> Shown:
        facts = replace(stream.facts, time_base=Fraction(1, TICKS))
        seen = stream.rgb(decoded).pixels
        rainy = frame_to_tensor(seen)[None]
        with torch.inference_mode():
            image = self._restore(rainy, facts.bits)
        pixels = frame_from_tensor(image[0], facts.bits)
        if self._following is not None:
            pixels = self._following.corrected(Seen(seen, pixels))
        if self._finish is not None:
            pixels = finished(self._finish, seen, pixels, facts.bits)
        return Shown(Frame(pixels, time, 0), facts, rainy, image)

    def _read(self) -> None:
        """Opens the source, reopens it when it is lost, and passes on its frames; runs in its own thread."""
        delay, error, was_open = FIRST_DELAY, None, False
        try:
            while not self._stop.is_set():
                try:
                    with self._source.open() as stream:
                        self._newest.reconnects += was_open
                        if was_open:
                            self._on_message(f"{self._source.name}: back again.")
                        was_open, delay = True, FIRST_DELAY
                        self._pass_on(stream)
                        if self._source.ends and stream.damaged and not self._stop.is_set():
                            raise broken_off(self._source.name)
                    gone = "no more frames"
                except DerainError as failure:
                    if self._source.ends or not was_open:
                        raise
                    gone = failure.message.removeprefix(f"{self._source.name}: ").rstrip(".")
                if self._source.ends or self._stop.is_set():
                    return
                self._on_message(f"{self._source.name}: {gone}; trying again in {delay:g} s.")
                self._wait(delay)
                delay = min(2 * delay, LONGEST_DELAY)
        except BaseException as failure:
            error = failure
        finally:
            self._newest.end(error)

    def _pass_on(self, stream: LiveStream) -> None:
        began: tuple[float, float] | None = None
        for frame in stream.decoded():
            if self._stop.is_set():
                return
            if self._source.paced and frame.pts is not None:
                due = float(frame.pts * stream.facts.time_base)
                began = began or (self._clock(), due)
                late = self._clock() - began[0] - (due - began[1])
                if late < 0:
                    self._wait(-late)
            self._newest.put(stream, frame, self._clock())
