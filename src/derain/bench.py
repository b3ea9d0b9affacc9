"""Time and memory of networks on this machine (`derain bench`).

Every measurement runs in its own process: memory that one has freed could be reused by the next, which
would then seem to need less.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from derain.atomic import new_file
from derain.checkpoints import open_checkpoint
from derain.checkpoints.bundled import bundled_names
from derain.checkpoints.exported import is_exported
from derain.cores import usable_threads
from derain.errors import DerainError, UsageError
from derain.export import TARGETS
from derain.methods import create_network, network_names
from derain.methods.network import RainNetwork
from derain.nn.padding import pad_to, round_up
from derain.peak_memory import most_memory, start_memory
from derain.pictures import Picture, read_picture, to_tensor, with_pixels, write_picture
from derain.pictures.charts import chart_sheet
from derain.precisions import PRECISIONS
from derain.restore import Derainer, Settings, load
from derain.restore.memory import ran_out

BITS = 8  # of the pictures that are measured, as photographs have
WARM_UP = 64  # pixels a side of the picture before the measured ones


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        model: name of a network or of bundled weights, or a checkpoint.
        threads: of the CPU; None for PyTorch's default.
        passes: timed restorations; the median counts.
    """

    model: str
    height: int
    width: int
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    passes: int = 3

    def picture(self) -> Tensor:
        """(1, 3, height, width), the same noise each time."""
        return torch.rand(1, 3, self.height, self.width, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Measurement:
    """What one process measured.

    Attributes:
        network: e.g. "drsformer".
        device, precision, threads: those that were used.
        seconds: wall time of restoring one picture in memory, median.
        cpu_seconds: of all threads, median.
        peak_bytes: peak memory above that of the process with the network loaded; on CUDA, of the
            accelerator; None where it cannot be measured (MPS).
        matrix_flops: operations per second of a large matrix product in the same precision, right after
            the pictures.
        multiply_adds: of the network's plain form on the picture, or its reduced copy, in one piece.
        note: how the picture was cut into tiles, if it was.
        read_seconds, pad_seconds, write_seconds: wall time of the other parts of `derain run` for a JPEG
            of that size, the shortest of the passes: decoding; conversion to floats and padding;
            rounding and encoding.
    """

    model: str
    network: str
    height: int
    width: int
    device: str
    precision: str
    threads: int
    passes: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int | None
    matrix_flops: float
    multiply_adds: int
    note: str
    read_seconds: float
    pad_seconds: float
    write_seconds: float

    @property
    def megapixels(self) -> float:
        return self.height * self.width / 1e6

    @property
    def all_seconds(self) -> float:
        """Of a JPEG, from file to file."""
        return self.read_seconds + self.pad_seconds + self.seconds + self.write_seconds

    @property
    def share(self) -> float:
        """Speed relative to a matrix product with as many multiply-adds; above 1 for a fast form that
        needs fewer. With one CPU thread, CPU seconds count, which other programs do not affect."""
        seconds = self.cpu_seconds if _counts_cpu(self.device, self.threads) else self.seconds
        return 2 * self.multiply_adds / self.matrix_flops / seconds

    @property
    def how(self) -> str:
        """E.g. "cpu, float32, 2 threads"."""
        return f"{self.device}, {self.precision}, {self._threads}"

    @property
    def machine(self) -> str:
        """E.g. "cpu, 2 threads"."""
        return f"{self.device}, {self._threads}"

    @property
    def _threads(self) -> str:
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    def to_json(self) -> dict[str, object]:
        """All attributes, with pictures and megapixels per second."""
        rates = {
            "pictures_per_second": 1 / self.seconds,
            "megapixels_per_second": self.megapixels / self.seconds,
            "share_of_matrix_rate": self.share,
        }
        return {**asdict(self), **rates}


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """ "640x480,256x256" as [(height, width), ...]; users write the width first, as is usual.

    Raises:
        UsageError: not of this form, or a side is 0.
    """
    sizes = []
    for part in text.split(","):
        width, cross, height = part.strip().lower().partition("x")
        if not cross or not (width.isdecimal() and height.isdecimal()) or not int(width) * int(height):
            raise UsageError(f"size '{part.strip()}': write WIDTHxHEIGHT in pixels, such as 640x480.")
        sizes.append((int(height), int(width)))
    return sizes


def check_task(task: Task) -> None:
    """Opens the network once, so that errors are reported before anything is measured.

    Raises:
        DerainError: the name, the file, the device or the precision cannot be used.
    """
    _derainer(task)


def measure(task: Task) -> Measurement:
    """Measures in a fresh process.

    Raises:
        DerainError: what that process reported, or that it was killed, e.g. for lack of memory.
    """
    environment = dict(os.environ)
    if task.threads is not None:
        environment["OMP_NUM_THREADS"] = str(usable_threads(task.threads))
    command = [sys.executable, "-m", "derain.bench", json.dumps(asdict(task))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        raise DerainError(f"{task.model} at {task.width}x{task.height}: {said[-1]}")
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def measure_here(task: Task) -> Measurement:
    """Measures in this process, which should have done nothing else before."""
    if task.threads is not None:
        torch.set_num_threads(usable_threads(task.threads))
    derainer = _derainer(task)
    derainer.restore(replace(task, height=WARM_UP, width=WARM_UP).picture(), bits=BITS, one_pass=True)
    picture = task.picture()
    before = start_memory(derainer.device)
    turns, note = [], ""
    for _ in range(task.passes):
        wall, cpu = time.perf_counter(), time.process_time()
        note = derainer.restore(picture, bits=BITS, one_pass=True).note
        turns.append((time.perf_counter() - wall, time.process_time() - cpu))
    after = most_memory(derainer.device)
    seen = _padded(derainer.network, *derainer.seen_size(task.height, task.width))
    return Measurement(
        model=task.model,
        network=derainer.name,
        height=task.height,
        width=task.width,
        device=str(derainer.device),
        precision=derainer.precision_for(BITS),
        threads=torch.get_num_threads(),
        passes=task.passes,
        seconds=statistics.median(wall for wall, _ in turns),
        cpu_seconds=statistics.median(cpu for _, cpu in turns),
        peak_bytes=None if before is None or after is None else max(0, after - before),
        matrix_flops=matrix_flops(derainer.device, derainer.dtype_for(BITS)),
        multiply_adds=derainer.network.multiply_adds(*seen),
        note=note,
        **_other_parts(task, *seen),
    )


def _other_parts(task: Task, height: int, width: int) -> dict[str, float]:
    """Seconds that a JPEG takes besides the network, whose input has this size, padded or reduced."""
    # A JPEG of plain noise takes longer than one of a photograph.
    scene = F.avg_pool2d(task.picture(), 5, 1, 2)
    picture = with_pixels(Picture(np.zeros((task.height, task.width, 3), np.uint8)), scene)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.jpg"
        write_picture(file, picture)
        parts: dict[str, Callable[[], object]] = {
            "read_seconds": lambda: read_picture(file),
            "pad_seconds": lambda: (
                to_tensor(picture) if height < task.height else pad_to(to_tensor(picture), height, width)
            ),
            "write_seconds": lambda: write_picture(file, with_pixels(picture, scene)),
        }
        return {name: min(_seconds(part) for _ in range(task.passes)) for name, part in parts.items()}


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Choice:
    """A way to run one and the same network.

    Attributes:
        precision: that PyTorch computes in; "" for other runtimes.
        runtime: what the network was exported for: "onnx" or "openvino"; "" for PyTorch.
    """

    precision: str = ""
    runtime: str = ""

    def __str__(self) -> str:
        return {"onnx": "ONNX Runtime, float32", "openvino": "OpenVINO, float32"}.get(
            self.runtime, f"PyTorch, {self.precision}"
        )


def choices(task: Task) -> list[Choice]:
    """The ways to run a network here: in the precisions that it tolerates, and in installed runtimes.

    Raises:
        DerainError: see `check_task`.
    """
    derainer = _derainer(replace(task, precision="float32"))
    refused = {
        *derainer.network.spec.refused_precisions,
        *(("float16",) if derainer.device.type == "cpu" else ()),
    }
    found = [Choice(precision) for precision in PRECISIONS if precision not in refused]
    if derainer.device.type != "cpu" or derainer.checkpoint is None or is_exported(derainer.checkpoint.path):
        return found
    needed = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
    return found + [
        Choice(runtime=runtime) for runtime, names in needed.items() if all(map(find_spec, names))
    ]


def as_chosen(task: Task, choice: Choice, folder: Path) -> Task:
    """The task in one of the ways; if it needs an exported network, that is kept in the folder.

    Raises:
        DerainError: the network cannot be exported.
    """
    if not choice.runtime:
        return replace(task, precision=choice.precision)
    from derain.export.files import export  # its packages load slowly

    file = folder / f"network{TARGETS[choice.runtime]}"
    if not file.exists():
        export(open_checkpoint(task.model, own_code=None), choice.runtime, file)
    return replace(task, model=str(file), precision="float32")


def _padded(network: RainNetwork, height: int, width: int) -> tuple[int, int]:
    multiple = network.spec.multiple_of
    return round_up(height, multiple), round_up(width, multiple)


def _counts_cpu(device: str, threads: int) -> bool:
    return device == "cpu" and threads == 1


def matrix_flops(device: torch.device, dtype: torch.dtype = torch.float32, size: int = 2048) -> float:
    """Operations per second in the best of five products of `size` x `size` matrices."""
    clock = time.process_time if _counts_cpu(device.type, torch.get_num_threads()) else time.perf_counter
    a = torch.rand(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        began = clock()
        torch.mm(a, a)[0, 0].item()  # waits for the accelerator
        best = min(best, clock() - began)
    return 2 * size**3 / best


def plot(measurements: Sequence[Measurement], path: Path) -> None:
    """Draws seconds against megapixels as a PNG, one line per model."""
    lines = {
        model: [(m.megapixels, m.seconds) for m in measurements if m.model == model]
        for model in dict.fromkeys(m.model for m in measurements)
    }
    first = measurements[0]
    title = (
        f"seconds per picture against megapixels; {first.device}, {first.precision}, {first.threads} threads"
    )
    sheet = chart_sheet([(title, [(model, sorted(line)) for model, line in lines.items()])])
    with new_file(path) as temporary:
        sheet.save(temporary, "PNG")


def _derainer(task: Task) -> Derainer:
    # Fresh weights cost what trained ones do.
    if is_exported(Path(task.model)):
        return load(task.model, device=task.device, precision=task.precision)
    fresh = task.model in network_names() and task.model not in bundled_names()
    model = create_network(task.model) if fresh else open_checkpoint(task.model, own_code=None)
    return Derainer(model, Settings(device=task.device, precision=task.precision))


def main() -> None:
    """The process of one measurement: a task as JSON in, a measurement as JSON out."""
    try:
        print(json.dumps(asdict(measure_here(Task(**json.loads(sys.argv[1]))))))
    except DerainError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        print("not enough memory.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
