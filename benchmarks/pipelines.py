"""What files cost beside the network: a folder of photographs, or clips, against the network alone.

    python benchmarks/pipelines.py INPUT... [--model everyday] [--precision auto] [--wall] [--threads 2]

In CPU seconds of one process with one thread, so that other work on the machine matters little. `--wall`
measures wall seconds, on a machine that does nothing else, with so many threads for pictures and frames; the
network alone runs in as many at the same time.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import cv2
import torch

import derain
from derain.pictures import read_picture
from derain.restore import Derainer
from derain.restore.jobs import Job, plan
from derain.restore.run import restore_all
from derain.restore.threads import divided_threads

ROUNDS = 5  # of the network alone


def frames_of(job: Job) -> tuple[int, int, int]:
    """Number, height and width of a clip's frames; a picture is one."""
    if not job.is_video:
        return 1, *read_picture(job.source).size
    with av.open(str(job.source)) as clip:
        stream = clip.streams.video[0]
        return sum(1 for _ in clip.decode(stream)), stream.height, stream.width


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return clock() - began


def network_alone(derainer: Derainer, height: int, width: int, clock: Callable[[], float]) -> float:
    """Seconds for each picture of that size, or its reduced copy, in bands of rows, one in every thread."""
    multiple = derainer.network.spec.multiple_of
    height, width = derainer.seen_size(height, width)
    height, width = (-(-side // multiple) * multiple for side in (height, width))
    rainy = torch.rand(1, 3, height, width).contiguous(memory_format=torch.channels_last)
    dtype = derainer.dtype_for(8)

    def run(_: int) -> None:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            for _ in derainer.network.in_bands(
                lambda first, end: rainy[:, :, first:end], height, width, with_maps=False
            ):
                pass

    passes = derainer.passes_at_once()
    with divided_threads(passes), ThreadPoolExecutor(passes) as pool:
        return seconds(lambda: list(pool.map(run, range(ROUNDS * passes))), clock) / (ROUNDS * passes)


def restored(derainer: Derainer, jobs: Sequence[Job]) -> None:
    list(restore_all(derainer, jobs))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument("--model", default="everyday")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    derainer = derain.load(options.model, device="cpu", precision=options.precision)
    with tempfile.TemporaryDirectory() as folder:
        jobs = plan(options.inputs, Path(folder) / "out").jobs
        sizes = [frames_of(job) for job in jobs]
        clock = time.perf_counter if options.wall else time.process_time
        # In turn, so that both meet the same other work on the machine, unless files are to overlap.
        parts = [(jobs, sizes)] if options.wall else [([j], [s]) for j, s in zip(jobs, sizes, strict=True)]
        total = own = 0.0
        for part, shapes in parts:
            total += seconds(functools.partial(restored, derainer, part), clock)
            own += sum(n * network_alone(derainer, height, width, clock) for n, height, width in shapes)
    frames = sum(number for number, _, _ in sizes)
    print(f"{frames} pictures or frames; network {own:.2f} s, everything {total:.2f} s")
    print(f"{total / own:.2f} of the network's time, {own / total:.2f} of its rate")


if __name__ == "__main__":
    main()
