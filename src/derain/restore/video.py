"""Applies a network to a video: decodes, restores, corrects by neighbouring frames and encodes, in parallel
and in bounded memory.

The video is encoded in independent segments. Each is saved as soon as it is finished, so that an interrupted
run can be resumed; the complete file is written at the end, with everything else that the source contains.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derain.atomic import new_file, replace_file
from derain.errors import DerainError, Remedy, UsageError
from derain.locks import exclusive_lock
from derain.paths import parts_of, real, same
from derain.pictures.video import Frame, VideoReader, frame_from_tensor, frame_to_tensor
from derain.pictures.video_encoding import EncodedFrame, Encoding, VideoEncoder, choose_encoding
from derain.pictures.video_facts import VideoFacts, video_facts
from derain.pictures.video_writing import refuse_misfit, write_video
from derain.restore.neighbours import RADIUS, Seen, corrected
from derain.restore.prefetch import mapped, prefetch
from derain.restore.settings import VideoOptions
from derain.restore.temporal import RADIUS as STEADY_RADIUS
from derain.restore.temporal import steady
from derain.restore.threads import divided_threads

SEGMENT = 120  # frames

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
RestoreBatch = Callable[[Tensor], Tensor]
Finish = Callable[[Tensor, Tensor], Tensor]
FrameProgress = Callable[[int, int | None], None]
Item = TypeVar("Item")
Value = TypeVar("Value")
Made = TypeVar("Made")


@dataclass(frozen=True)
class VideoResult:
    """What `restore_video` did.

    Attributes:
        frames: the number of frames in the file that was written.
        resumed: how many of them an earlier run had finished.
        shortfall: what is missing from the source, in words; empty if it was read to its end.
        left_out: what the new file cannot hold, and what was changed for it, in words.
        bits: the bits per channel of the source.
    """

    frames: int
    resumed: int
    shortfall: str
    left_out: tuple[str, ...]
    bits: int

    def raise_if_damaged(self, source: Path, target: Path) -> None:
        """Raises `DerainError` if a part of the source is missing; the rest has been written to `target`."""
        if self.shortfall:
            raise DerainError(
                f"{source}: {self.shortfall}; what could be read is in {target}.",
                Remedy("restore it again once it is complete", {"overwrite": True}),
            )


def restore_video(
    source: str | Path,
    target: str | Path,
    restore_batch: RestoreBatch,
    options: VideoOptions | None = None,
    *,
    batch: int = 1,
    passes: int = 1,
    finish: Finish | None = None,
    identity: str = "",
    progress: FrameProgress | None = None,
) -> VideoResult:
    """Restores a video and keeps its times, rotation, colour, depth, sound, subtitles and tags.

    Args:
        source: a video that `derain.pictures.kinds` knows.
        target: the file to write, replaced if it exists; its extension picks the container.
        restore_batch: maps rainy frames (B, 3, H, W), float32 RGB in [0, 1] on the CPU, upright, to
            restored ones of the same shape, on any device. Called from threads of their own.
        options: how it is restored and written; None for `VideoOptions()`.
        batch: the number of frames restored in one pass.
        passes: the number of passes made at the same time.
        finish: makes the final frame from the rainy and the corrected one, both (1, 3, H, W).
        identity: names the network and its weights; a run is resumed only under the same one.
        progress: called with the number of finished frames and their expected number, if known.

    Raises:
        UsageError: options contradict each other, do not suit the container or differ from the run to resume.
        DerainError: the source cannot be read or is interlaced against the options, the target cannot
            be written, or another process is writing it. Finished segments are kept for `resume`.
    """
    source, target, options = Path(source), Path(target), options or VideoOptions()
    if same(target, source):
        raise UsageError(f"{target}: is the source itself; write to another file.")
    facts = video_facts(source)
    if options.keep_fields and facts.interlaced:
        raise DerainError(
            f"{source}: is interlaced, and a progressive result cannot keep its fields.",
            Remedy("deinterlace it", {"keep_fields": None}),
        )
    encoding = choose_encoding(facts, target, options.codec, options.crf)
    refuse_misfit(facts, encoding, target)
    made_from = _made_from(facts, encoding, options, identity)
    with exclusive_lock(target), _Segments.open(target, made_from, options.resume) as segments:
        resumed = segments.frames
        # Finished frames that are decoded again as neighbours of those to come.
        reach = (0 if options.frame_by_frame else RADIUS) + (STEADY_RADIUS if options.temporal else 0)
        surplus = min(resumed, reach)
        reader = VideoReader(facts, skip=resumed - surplus)
        restored = restored_frames(
            reader, restore_batch, facts.bits, batch, passes, options.frame_by_frame, finish
        )
        if options.temporal:
            restored = _steady(restored, facts.bits)
        restored = _from(surplus, restored)
        length = SEGMENT if encoding.codec != "gif" else None
        for encoded in _encoded(prefetch(restored), facts, encoding, length, segments.frames, progress):
            segments.add(encoded)
        left_out = write_video(target, facts, encoding, segments.times(), segments.encoded)
        if (reader.transparent or (facts.alpha and resumed)) and not encoding.alpha:
            left_out.append(f"left out: its transparency ({target.suffix} with {encoding.codec} holds none)")
        segments.discard()
    if reader.shortfall:
        with contextlib.suppress(OSError):
            parts_of(target).mkdir()  # tells a later run that the file is not complete
    return VideoResult(segments.frames, resumed, reader.shortfall, tuple(left_out), facts.bits)


def restored_frames(
    reader: Iterable[Frame],
    restore_batch: RestoreBatch,
    bits: int,
    batch: int,
    passes: int,
    frame_by_frame: bool,
    finish: Finish | None,
) -> Generator[Frame]:
    """The frames of a video, restored; reading, restoring and correcting run in parallel.

    Args:
        reader: yields frames in the order of time.
        bits: the bits per channel of the frames.
        restore_batch, batch, passes, finish: see `restore_video`.
        frame_by_frame: see `VideoOptions`.
    """
    threads = torch.get_num_threads()
    with divided_threads(passes):
        restored = _restored(reader, restore_batch, bits, batch, passes)
        if not frame_by_frame:
            restored = _corrected(prefetch(restored), threads)
        with contextlib.closing(restored):
            for frame, pixels in restored:
                if finish is not None:
                    pixels = finished(finish, frame.pixels, pixels, bits)
                yield replace(frame, pixels=pixels)


def finished(finish: Finish, rainy: Pixels, corrected: Pixels, bits: int) -> Pixels:
    """The final frame, (H, W, 3) like the rainy and the corrected one, with `bits` bits per channel."""
    before, after = (frame_to_tensor(levels)[None] for levels in (rainy, corrected))
    return frame_from_tensor(finish(before, after)[0], bits)


def _restored(
    reader: Iterable[Frame], restore_batch: RestoreBatch, bits: int, batch: int, passes: int
) -> Generator[tuple[Frame, Pixels]]:
    """The frames as read, and restored one by one."""

    def restore(read: tuple[list[Frame], Tensor]) -> list[tuple[Frame, Pixels]]:
        frames, rainy = read
        with torch.inference_mode():
            images = restore_batch(rainy)
        assert images.shape == rainy.shape, f"{tuple(rainy.shape)} became {tuple(images.shape)}"
        pixels = [frame_from_tensor(image, bits) for image in images]
        return list(zip(frames, pixels, strict=True))

    with contextlib.closing(mapped(restore, _batches(reader, batch), passes)) as restored:
        for pairs in restored:
            yield from pairs


def _corrected(restored: Generator[tuple[Frame, Pixels]], threads: int) -> Generator[tuple[Frame, Pixels]]:
    """The same pairs, with restored frames corrected by their neighbours."""
    corrector = functools.partial(corrected, workers=threads)
    with contextlib.closing(
        _beside(restored, lambda pair: Seen(pair[0].pixels, pair[1]), corrector)
    ) as pairs:
        for (frame, _), pixels in pairs:
            yield frame, pixels


def _beside(
    items: Generator[Item],
    value_of: Callable[[Item], Value],
    process: Callable[[Iterator[Value]], Iterator[Made]],
) -> Generator[tuple[Item, Made]]:
    """The items, each paired with what a process makes of its value; the process may lag behind them."""
    waiting: deque[Item] = deque()

    def values() -> Generator[Value]:
        with contextlib.closing(items):
            for item in items:
                waiting.append(item)
                yield value_of(item)

    with contextlib.closing(values()) as source:
        for made in process(source):
            yield waiting.popleft(), made


def _batches(reader: Iterable[Frame], size: int) -> Iterator[tuple[list[Frame], Tensor]]:
    """Batches of `size` frames, also as a tensor (B, 3, H, W); fewer at the end."""
    frames = iter(reader)
    while batch := list(itertools.islice(frames, size)):
        pictures = [frame_to_tensor(frame.pixels) for frame in batch]
        yield batch, pictures[0][None] if len(pictures) == 1 else torch.stack(pictures)  # one: no copy


def _from(first: int, frames: Generator[Frame]) -> Generator[Frame]:
    """The frames from the one at index `first` on."""
    with contextlib.closing(frames):
        yield from itertools.islice(frames, first, None)


def _steady(restored: Generator[Frame], bits: int) -> Generator[Frame]:
    """The frames with less flicker; see `derain.restore.temporal`."""
    with contextlib.closing(_beside(restored, lambda frame: frame_to_tensor(frame.pixels), steady)) as pairs:
        for frame, image in pairs:
            yield replace(frame, pixels=frame_from_tensor(image, bits))


def _encoded(
    restored: Iterator[Frame],
    facts: VideoFacts,
    encoding: Encoding,
    length: int | None,
    done: int,
    progress: FrameProgress | None,
) -> Iterator[list[EncodedFrame]]:
    """Segments of `length` frames, each encoded on its own; None puts all frames in one segment."""
    encoder, encoded, inside = VideoEncoder(facts, encoding), list[EncodedFrame](), 0
    for frame in restored:
        encoded += encoder.encode(frame)
        inside += 1
        done += 1
        if progress is not None:
            progress(done, facts.expected_frames)
        if inside == length:
            yield encoded + encoder.finish()
            encoder, encoded, inside = VideoEncoder(facts, encoding), [], 0
    if inside:
        yield encoded + encoder.finish()


def _made_from(facts: VideoFacts, encoding: Encoding, options: VideoOptions, identity: str) -> str:
    """Everything that affects the frames, as JSON."""
    state = facts.path.stat()
    content = {
        "source": [str(real(facts.path)), state.st_size, state.st_mtime_ns],
        "encoding": asdict(encoding),
        "frame_by_frame": options.frame_by_frame,
        "temporal": options.temporal,
        "identity": identity,
    }
    return json.dumps(content, sort_keys=True)


class _Segments:
    """The finished segments of a run, in a hidden folder beside the target.

    Leaving the context keeps them for a later run, and an error then says so; with no segments, the folder is
    removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._files, self.frames = folder, list[Path](), 0

    @classmethod
    def open(cls, target: Path, made_from: str, resume: bool) -> _Segments:
        """Opens an empty store, or that of an earlier run.

        Raises:
            UsageError: the earlier run had another source or other options.
        """
        segments = cls(parts_of(target))
        note = segments._folder / "job.json"
        if resume and note.exists():
            if note.read_text() != made_from:
                raise UsageError(
                    f"{target}: the interrupted run had a different source, network or options.",
                    Remedy("start again", {"resume": None}),
                )
            for file in sorted(segments._folder.glob("?????.npz")):
                segments._count(file)
        else:
            segments.discard()
            replace_file(note, made_from.encode())
        return segments

    def _count(self, file: Path) -> None:
        with np.load(file) as content:
            self.frames += len(content["pts"])
        self._files.append(file)

    def add(self, frames: list[EncodedFrame]) -> None:
        """Saves a finished segment."""
        file = self._folder / f"{len(self._files):05d}.npz"
        with new_file(file) as temporary:
            np.savez(
                temporary,
                pts=np.array([frame.pts for frame in frames], np.int64),
                duration=np.array([frame.duration for frame in frames], np.int64),
                keyframe=np.array([frame.keyframe for frame in frames]),
                size=np.array([len(frame.data) for frame in frames]),
                beside=np.array([len(frame.beside) for frame in frames]),
                data=np.frombuffer(b"".join(frame.data + frame.beside for frame in frames), np.uint8),
            )
        self._count(file)

    def times(self) -> NDArray[np.int64]:
        """The presentation times (pts) of all frames in coding order, (N,)."""
        times: NDArray[np.int64] = np.concatenate([np.load(file)["pts"] for file in self._files])
        return times

    def encoded(self) -> Iterator[EncodedFrame]:
        """All frames in coding order; one segment is in memory at a time."""
        for file in self._files:
            with np.load(file) as content:
                data, beside = content["data"].tobytes(), content["beside"]
                end = np.cumsum(content["size"] + beside)
                start, middle = end - content["size"] - beside, end - beside
                columns = (content["pts"], content["duration"], content["keyframe"], start, middle, end)
            for pts, duration, key, *places in zip(*(column.tolist() for column in columns), strict=True):
                begin, stop, last = places
                yield EncodedFrame(pts, duration, key, data[begin:stop], data[stop:last])

    def discard(self) -> None:
        """Removes all segments and their folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._files = []

    def __enter__(self) -> _Segments:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if not self._files:
            self.discard()
        elif isinstance(error, DerainError) and error.remedy is None:
            error.remedy = Remedy(f"go on from the finished parts in {self._folder}", {"resume": True})
