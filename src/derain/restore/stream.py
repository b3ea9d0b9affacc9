"""A network applied to frames from a pipe, written to another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from derain.pictures.streams import FrameStream, FrameWriter
from derain.pictures.video import Frame, frame_from_tensor
from derain.restore.prefetch import prefetch
from derain.restore.video import RestoreBatch, restored_frames


def restore_stream(
    stream: FrameStream,
    writer: FrameWriter,
    restore_batch: RestoreBatch,
    *,
    batch: int = 1,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> int:
    """Restores every frame of a stream, in order; reading, restoring and writing run in parallel.

    Args:
        stream: where frames come from.
        writer: where they go.
        restore_batch: as for `derain.restore.video.restore_video`.
        batch: frames that are restored at once; waits until that many have arrived.
        progress: called with the number of finished frames and their expected number, if known.

    Returns:
        How many there were.

    Raises:
        DerainError: frames cannot be read or written.
    """
    facts, done = stream.facts, 0
    with contextlib.closing(prefetch(restored_frames(stream, restore_batch, batch))) as restored:
        for frame in restored:
            pixels = frame_from_tensor(frame.image, facts.bits)
            writer.write(Frame(pixels, frame.pts, frame.duration, frame.alpha))
            done += 1
            progress(done, facts.expected_frames)
    return done
