"""Applies a network to frames read from one pipe, and writes them to another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from derain.errors import DerainError
from derain.pictures.streams import FrameStream, FrameWriter
from derain.restore.prefetch import prefetch
from derain.restore.video import Finish, RestoreBatch, restored_frames


def broken_off(name: str) -> DerainError:
    """The error for a stream of this name that was restored, but was damaged or ended too early."""
    return DerainError(f"{name}: damaged or cut off; what could be read was restored.")


def restore_stream(
    stream: FrameStream,
    writer: FrameWriter,
    restore_batch: RestoreBatch,
    *,
    batch: int = 1,
    passes: int = 1,
    frame_by_frame: bool = False,
    finish: Finish | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> int:
    """Restores every frame of a stream, in order; reading, restoring and writing run in parallel.

    Args:
        stream: where frames are read.
        writer: where they are written.
        restore_batch, finish: see `derain.restore.video.restore_video`.
        batch: the number of frames restored in one pass, which waits until that many have arrived.
        passes: the number of passes made at the same time.
        frame_by_frame: do not wait for the next two frames to correct each by its neighbours.
        progress: called with the number of finished frames and their expected number, if known.

    Returns:
        The number of frames.

    Raises:
        DerainError: frames cannot be read or written.
    """
    facts, done = stream.facts, 0
    frames = restored_frames(stream, restore_batch, facts.bits, batch, passes, frame_by_frame, finish)
    with contextlib.closing(prefetch(frames)) as restored:
        try:
            for frame in restored:
                writer.write(frame)
                done += 1
                progress(done, facts.expected_frames)
        except BaseException:
            stream.stop()  # the thread that reads may be waiting for a frame that never comes
            raise
    return done
