"""What a live frame costs, part by part: python benchmarks/live.py MODEL...

CPU seconds of one thread, so that other programs do not disturb: decoding and encoding H.264, colours in
and out, the network, the rain signal. Their sum is the latency of a frame on one core that does nothing
else. A name without weights here is measured with fresh ones, which cost the same.
"""

from __future__ import annotations

import functools
import io
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from derain.checkpoints.bundled import bundled_names
from derain.methods import create_network
from derain.pictures.streams import FrameWriter, open_file
from derain.pictures.video import Frame, frame_from_tensor, frame_to_tensor
from derain.restore import Derainer, load
from derain.restore.neighbours import Following, Seen
from derain.restore.rain import measure_rain

SIZES = ((640, 480), (1280, 720))
FRAMES = 5


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in sys.argv[1:] or ["everyday", "everyday-small"]:
        for width, height in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                costs = measured(name, noisy_clip(Path(folder) / "clip.mp4", width, height))
            parts = ", ".join(f"{part} {1000 * seconds:.1f}" for part, seconds in costs.items())
            total = sum(costs.values())
            print(
                f"{name} {width}x{height}: {1000 * total:.0f} ms, {1 / total:.1f} frames/s ({parts} ms)",
                flush=True,
            )


def measured(name: str, clip: Path) -> dict[str, float]:
    """Seconds of each part, the least of some frames; the network in the precision that `auto` takes."""
    restore = load(name) if name in bundled_names() else Derainer(create_network(name))
    precision = restore.precision_for(8)
    as_live = functools.partial(restore.restore, bits=8, one_pass=True)
    found: dict[str, list[float]] = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        found.setdefault(part, []).append(time.process_time() - began)
        return result

    following = Following()
    with open_file(clip) as stream, FrameWriter(io.BytesIO(), "mkv", stream.facts) as writer:
        frames = stream.decoded()
        for number in range(FRAMES):
            decoded = timed("decoding", lambda: next(frames))
            seen = timed("colours from YUV", lambda d=decoded: stream.rgb(d).pixels)
            rainy = timed("numbers in", lambda s=seen: frame_to_tensor(s)[None])
            image = timed(f"network in {precision}", lambda r=rainy: as_live(r).image)
            pixels = timed("numbers out", lambda i=image: frame_from_tensor(i[0], 8))
            corrected = functools.partial(following.corrected, Seen(seen, pixels))
            pixels = timed("correction", corrected)
            timed("encoding", lambda p=pixels, n=number: writer.write(Frame(p, n * 512, 512)))
            rain = timed("rain", lambda r=rainy, i=image: measure_rain(r, i))
            assert rain.share >= 0
    costs = {part: min(seconds[2:]) for part, seconds in found.items()}
    costs["rain"] /= 25  # once a second
    return costs


def noisy_clip(path: Path, width: int, height: int) -> Path:
    """Smooth noise that drifts, as H.264."""
    scene = np.random.default_rng(0).integers(0, 255, (height // 4 + 20, width // 4 + 20, 3), dtype=np.uint8)
    large = cv2.resize(scene, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=Fraction(25), options={"tune": "zerolatency"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for number in range(FRAMES + 2):
            part = np.ascontiguousarray(large[number : number + height, number : number + width])
            file.mux(video.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        file.mux(video.encode(None))
    return path


if __name__ == "__main__":
    main()
