"""A long video through a cheap network: is memory flat, and does the network set the pace?

    python benchmarks/video.py [--frames 1000] [--load 0.1]

The network is one small convolution and waits until `load` seconds have passed for each frame, as a
graphics card would keep it busy; the rest of the work happens beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import psutil
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from clips import moving_scene
from derain.restore.video import restore_video


def write_source(path: Path, frames: int, height: int, width: int) -> None:
    scene = list(moving_scene(25, height, width))
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=Fraction(25), options={"preset": "ultrafast", "crf": "23"})
        video.height, video.width, video.pix_fmt = height, width, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(scene[number % 25], format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--load", type=float, default=0.1, help="seconds per frame")
    options = parser.parse_args()
    kernel = torch.zeros(3, 3, 3, 3)
    kernel[range(3), range(3), 1, 1] = 0.98
    busy = 0.0

    def network(rainy: Tensor) -> Tensor:
        nonlocal busy
        start = time.perf_counter()
        restored = torch.nn.functional.conv2d(rainy, kernel, padding=1)
        time.sleep(max(0.0, options.load * len(rainy) - (time.perf_counter() - start)))
        busy += time.perf_counter() - start
        return restored

    resident: dict[int, int] = {}
    process = psutil.Process()

    def watch(done: int, _total: int | None) -> None:
        if done % 100 == 0:
            resident[done] = process.memory_info().rss

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rain.mp4"
        write_source(source, options.frames, 720, 1280)
        start = time.perf_counter()
        result = restore_video(source, Path(folder) / "out.mp4", network, progress=watch)
        wall = time.perf_counter() - start
    print(
        json.dumps(
            {
                "frames": result.frames,
                "frames_per_second": round(result.frames / wall, 2),
                "network_alone": round(result.frames / busy, 2),
                "share": round(busy / wall, 3),
                "resident_mib": {done: round(size / 2**20) for done, size in resident.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
