"""What files cost beside the network: a folder of photographs, or clips, against the network alone.

    python benchmarks/pipelines.py INPUT... [--model everyday] [--precision auto]

In CPU seconds of one process with one thread, so that other work on the machine matters little. With a second
core, reading and writing happen beside the network, and the wall time is that of the slower of the two.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import torch

import derain
from derain.pictures import read_picture
from derain.restore import Derainer
from derain.restore.jobs import Job, plan
from derain.restore.run import restore_all


def frames_of(job: Job) -> tuple[int, int, int]:
    """Number, height and width of a clip's frames; a picture is one."""
    if not job.is_video:
        return 1, *read_picture(job.source).size
    with av.open(str(job.source)) as clip:
        stream = clip.streams.video[0]
        return sum(1 for _ in clip.decode(stream)), stream.height, stream.width


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def network_alone(derainer: Derainer, height: int, width: int) -> float:
    """CPU seconds of a picture of that size, as bands of rows, without reading and writing."""
    multiple = derainer.network.spec.multiple_of
    height, width = (-(-side // multiple) * multiple for side in (height, width))
    rainy = torch.rand(1, 3, height, width).contiguous(memory_format=torch.channels_last)
    dtype = derainer.dtype_for(8)

    def run() -> None:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            for _ in derainer.network.in_bands(lambda first, end: rainy[:, :, first:end], height, width):
                pass

    return cpu_seconds(run)


def restored(derainer: Derainer, job: Job) -> None:
    list(restore_all(derainer, [job]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument("--model", default="everyday")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(1)
    derainer = derain.load(options.model, device="cpu", precision=options.precision)
    with tempfile.TemporaryDirectory() as folder:
        jobs = plan(options.inputs, Path(folder) / "out").jobs
        sizes = [frames_of(job) for job in jobs]
        own = total = 0.0
        for job, (number, height, width) in zip(jobs, sizes, strict=True):
            # In turn, so that both meet the same other work on the machine.
            total += cpu_seconds(functools.partial(restored, derainer, job))
            own += number * network_alone(derainer, height, width)
    frames = sum(number for number, _, _ in sizes)
    print(f"{frames} pictures or frames; network {own:.2f} CPU s, everything {total:.2f}")
    print(f"{total / own:.2f} of the network's time, {own / total:.2f} of its rate")


if __name__ == "__main__":
    main()
