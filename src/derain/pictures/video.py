"""The frames of a video one after another, as pixels and as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from torch import Tensor

from derain.errors import DerainError
from derain.pictures.matroska_elements import MATROSKA, is_whole
from derain.pictures.picture import quantised
from derain.pictures.video_decoding import Tally, decoded_frames, deinterlaced, open_video, video_stream
from derain.pictures.video_facts import RANGE_FULL, VideoFacts, has_alpha

# With these, YUV 4:2:0 -> RGB -> YUV returns the original samples.
EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    Attributes:
        pixels: (H, W, 3) RGB, upright; uint8, or uint16 (0 to 65535) if the video has more bits.
        pts: the time at which it is shown, in ticks of the time base.
        duration: its duration in ticks; 0 if unknown.
        alpha: (H, W) of the same type; None if everything is opaque.
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    pts: int
    duration: int
    alpha: NDArray[np.uint8] | NDArray[np.uint16] | None = None


def frame_to_tensor(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    """(H, W, 3) uint8 or uint16, as in `Frame` -> (3, H, W) float32 in [0, 1]."""
    largest = np.iinfo(pixels.dtype).max
    # Stays interleaved in memory, which suits convolutions.
    return torch.from_numpy(pixels.astype(np.float32)).div_(largest).permute(2, 0, 1)


def frame_from_tensor(image: Tensor, bits: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(3, H, W) RGB on any device, clamped to [0, 1] -> (H, W, 3): uint8 for 8 bits, else uint16.

    Raises:
        DerainError: a value is not finite.
    """
    return quantised(image, 255 if bits == 8 else 65535)


def packed_format(bits: int, alpha: bool) -> str:
    """FFmpeg's name of RGB, or RGBA with `alpha`, as NumPy arrays hold it: uint8 for 8 bits, else uint16."""
    if alpha:
        return "rgba" if bits == 8 else "rgba64le"
    return "rgb24" if bits == 8 else "rgb48le"


def pixels_of(
    frame: VideoFrame, facts: VideoFacts, to_rgb: VideoReformatter, number: int
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The colours of a decoded frame, (H, W, 3) RGB, upright, and its alpha; see `Frame`.

    Raises:
        DerainError: the frame, whose number the message states, has another size than the first.
    """
    if (frame.width, frame.height) != (facts.width, facts.height):
        raise DerainError(
            f"{facts.path}: frame {number} is {frame.width}x{frame.height}, the first is "
            f"{facts.width}x{facts.height}; split the video where its size changes."
        )
    alpha = has_alpha(frame.format.name)
    matrix = facts.colour.swscale_matrix(facts.height)
    rgb = to_rgb.reformat(
        frame,
        format=packed_format(facts.bits, alpha),
        interpolation=EXACT,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=facts.colour.swscale_range,
        dst_color_range=RANGE_FULL,
    )
    samples: NDArray[Any] = np.rot90(rgb.to_ndarray(), facts.turns)
    samples = samples[:, ::-1] if facts.mirrored else samples
    pixels = np.ascontiguousarray(samples[..., :3])
    if not alpha or samples[..., 3].min() == np.iinfo(samples.dtype).max:
        return pixels, None
    return pixels, np.ascontiguousarray(samples[..., 3])


class VideoReader:
    """Iterates over the frames of a video, once.

    Attributes:
        frames: how many frames have been read.
        shortfall: after the end, what is missing, in words; empty if nothing is.
        transparent: whether any frame so far was partly transparent.
    """

    def __init__(self, facts: VideoFacts, skip: int = 0) -> None:
        """
        Args:
            facts: the facts of the video to read.
            skip: how many frames to leave out at the start.
        """
        self.facts, self.frames, self.shortfall, self.transparent = facts, 0, "", False
        self._skip = skip

    def __iter__(self) -> Iterator[Frame]:
        facts, tally = self.facts, Tally()
        step = max(1, round(1 / (facts.rate * facts.time_base)))
        to_rgb, pts, duration = VideoReformatter(), 0, 0
        with open_video(facts.path) as container:
            decoded = decoded_frames(container, video_stream(container, facts.path), tally)
            for frame in deinterlaced(decoded) if facts.interlaced else decoded:
                pts = _later(frame.pts, pts, step) if self.frames else frame.pts or 0
                duration = frame.duration
                self.frames += 1
                if self.frames > self._skip:
                    pixels, alpha = pixels_of(frame, facts, to_rgb, self.frames)
                    self.transparent |= alpha is not None
                    yield Frame(pixels, pts, duration, alpha)
            if container.format.name == MATROSKA:
                tally.damaged |= not is_whole(facts.path)
        self.shortfall = self._shortfall(tally, (pts + duration) * facts.time_base)

    def _shortfall(self, tally: Tally, end: Fraction) -> str:
        facts = self.facts
        if tally.packets < facts.packets:
            return f"cut off after {self.frames} of {facts.packets} frames"
        if facts.packets == 0 and facts.duration is not None and end + 2 / facts.rate < facts.duration:
            return f"cut off after {float(end):.2f} of {facts.duration:.2f} seconds"
        return "damaged in places" if tally.damaged else ""


def _later(pts: int | None, last: int, step: int) -> int:
    """The time of a frame after another; its own may be missing, equal or, in joined files, earlier."""
    if pts is None or pts < last:
        return last + step
    return max(pts, last + 1)
