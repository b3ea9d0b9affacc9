"""Training pairs from clips of real rain: some frames, and what their neighbours show behind the rain.

    python scripts/clip_pairs.py PAIRS CLIP...

Every fifth of the first 49 frames, at most 960 pixels wide, restored by the default network and corrected
twice by the frames before and after it. Look through the pairs: a clip in which a truth still has rain, or
has lost what moves, is no good.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain import load
from derain.pictures.video import VideoReader, frame_from_tensor, frame_to_tensor
from derain.pictures.video_facts import video_facts
from derain.restore.neighbours import RADIUS, Seen, corrected

FRAMES, EVERY, WIDEST = 49, 5, 960

Pixels = NDArray[np.uint8]


def frames_of(clip: Path) -> list[Pixels]:
    """The first frames of a clip, (H, W, 3) uint8."""
    found = []
    for frame in itertools.islice(VideoReader(video_facts(clip)), FRAMES):
        pixels = frame.pixels if frame.pixels.dtype == np.uint8 else np.rint(frame.pixels / 257)
        scale = min(WIDEST / pixels.shape[1], 1)
        found.append(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return [np.asarray(frame, np.uint8) for frame in found]


def main(pairs: Path, clips: list[Path]) -> None:
    for folder in ("rainy", "clean"):
        (pairs / folder).mkdir(parents=True, exist_ok=True)
    restore, _ = load().for_frames(8)
    for clip in clips:
        rainy = frames_of(clip)
        clean = [frame_from_tensor(restore(frame_to_tensor(frame)[None])[0], 8) for frame in rainy]
        for _ in range(2):
            clean = list(corrected(Seen(*pair) for pair in zip(rainy, clean, strict=True)))
        for number in range(RADIUS + 1, len(rainy) - RADIUS, EVERY):
            for folder, frame in (("rainy", rainy[number]), ("clean", clean[number])):
                cv2.imwrite(str(pairs / folder / f"{clip.stem}_{number:03d}.png"), frame[..., ::-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
