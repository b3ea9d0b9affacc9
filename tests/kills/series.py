"""Commands that are killed at moments spread over their whole length, and started again.

Each command is a fork of this process, which has loaded all that it needs, so that a start costs next to
nothing. A moment is a share of the processor time that the command takes undisturbed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
import yaml

import derain.evaluation.page
import derain.restore.video
import derain.training  # noqa: F401  # what the commands load
from clips import moving_scene, write_clip
from derain.checkpoints import save_checkpoint
from derain.cli import main
from derain.methods import create_network
from derain.pictures import Picture, write_picture
from derain.records import read_records

PICTURES = (".png", ".jpg", ".tif", ".webp")


@dataclass(frozen=True)
class Series:
    """A command to kill.

    Attributes:
        name: of what it does.
        moments: of the long run.
        prepare: makes its inputs in a folder.
        arguments: of `derain`, for the folders of the inputs and of the results.
        content: of the results, what must come out the same: {name: bytes}.
        visible: whether what is in the folder of the results is whole at any time.
        excludes: whether a second run at the same time is told to wait.
        again: further arguments of the run after a kill.
    """

    name: str
    moments: int
    prepare: Callable[[Path], None]
    arguments: Callable[[Path, Path], list[str]]
    content: Callable[[Path], Mapping[str, bytes]]
    visible: bool
    excludes: bool
    again: tuple[str, ...] = ()


@dataclass
class Running:
    """A command in a process of its own, and of its own group."""

    arguments: list[str]
    error: Path
    pid: int = field(init=False)

    def __post_init__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.setsid()
                with self.error.open("wb") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                sys.argv = ["derain", *self.arguments]
                code = _exit_code()
            finally:
                os._exit(code)

    @property
    def seconds(self) -> float:
        """Of processors, so far."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return times.user + times.system + times.children_user + times.children_system

    @property
    def is_over(self) -> bool:
        return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE

    def kill(self, all_of_it: bool) -> None:
        """SIGKILL to the process, or to all that it started as well."""
        (os.killpg if all_of_it else os.kill)(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, str, float]:
        """The exit code, what was printed, and the processor time."""
        _, status, usage = os.wait4(self.pid, 0)
        told = self.error.read_text(errors="replace") if self.error.exists() else ""
        return os.waitstatus_to_exitcode(status), told, usage.ru_utime + usage.ru_stime


def _exit_code() -> int:
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 71
    return 0


def run(series: Series, folder: Path, moments: int) -> list[str]:
    """Kills a command at so many moments, each in a new folder; what went wrong, in words."""
    given, error = folder / "given", folder / "error"
    given.mkdir()
    series.prepare(given)
    code, told, seconds = Running(series.arguments(given, folder / "whole"), error).wait()
    assert code == 0, told
    whole = series.content(folder / "whole")
    assert whole
    problems = []
    tick = threading.Event()
    for number in range(moments):
        output = folder / str(number)
        running = Running(series.arguments(given, output), error)
        while running.seconds < seconds * (number + 0.5) / moments and not running.is_over:
            tick.wait(0.002)
        running.kill(all_of_it=number % 2 == 0)
        running.wait()
        if series.visible:
            there = series.content(output)
            problems += [
                f"{number}: {name} is not whole after the kill"
                for name in there
                if there[name] != whole.get(name)
            ]
        code, told, _ = Running([*series.arguments(given, output), *series.again], error).wait()
        problems += _differences(f"{number}", code, told, output, series, whole)
    return problems


def two_at_once(series: Series, folder: Path) -> list[str]:
    """Starts a command twice at the same time; what went wrong, in words."""
    given = folder / "given"
    given.mkdir()
    series.prepare(given)
    code, told, _ = Running(series.arguments(given, folder / "whole"), folder / "error").wait()
    assert code == 0, told
    whole, output = series.content(folder / "whole"), folder / "both"
    both = [Running(series.arguments(given, output), folder / f"error{number}") for number in range(2)]
    ended = sorted(running.wait()[:2] for running in both)
    problems = _differences("two at once", *ended[0], output, series, whole)
    code, told = ended[1]
    waits = series.excludes and code == 1 and "is being written by process" in told
    if not waits and code != 0:
        problems.append(f"two at once: the second ended with {code}: {told[-500:]}")
    return problems


def _differences(
    when: str, code: int, told: str, output: Path, series: Series, whole: Mapping[str, bytes]
) -> list[str]:
    problems = [] if code == 0 else [f"{when}: ended with {code}: {told[-500:]}"]
    found = series.content(output)
    problems += [f"{when}: {name} is missing" for name in whole if name not in found]
    problems += [f"{when}: {name} differs" for name in found if found[name] != whole.get(name)]
    left = [
        path
        for path in output.parent.rglob(".*")
        if path.is_relative_to(output) or path.parent == output.parent
    ]
    return problems + [f"{when}: left behind: {path.name}" for path in left]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def _weights(folder: Path) -> None:
    torch.manual_seed(0)
    save_checkpoint(folder / "small.safetensors", create_network("spanet", width=4).state_dict(), {})


def _scene(number: int, height: int = 40, width: int = 48) -> Picture:
    return Picture(next(iter(moving_scene(1, height + number, width))))


def _pictures(folder: Path) -> None:
    _weights(folder)
    for number in range(24):
        suffix = PICTURES[number % len(PICTURES)]
        write_picture(folder / "rainy" / f"sub{number % 3}" / f"{number}{suffix}", _scene(number))


def _pairs(folder: Path) -> None:
    _weights(folder)
    for number in range(8):
        write_picture(folder / "clean" / f"{number}.png", _scene(number))
        write_picture(folder / "rainy" / f"{number}.png", Picture(_scene(number).pixels // 2))


def _clip(folder: Path) -> None:
    _weights(folder)
    write_clip(folder / "rainy.mp4", list(moving_scene(260, 16, 24)), audio="aac")


def _recipe(folder: Path) -> None:
    for number in range(10):
        write_picture(folder / "photos" / f"{number}.png", _scene(number))
    content = {
        "network": "spanet",
        "options": {"width": 4},
        "data": {"clean": str(folder / "photos"), "rain": "light"},
        "steps": 30,
        "stages": [{"patch": 16, "batch": 4, "steps": 15}, {"patch": 24, "batch": 2}],
        "optimizer": {"rate": 1e-3, "clip": 0.5},
        "schedule": {"name": "cosine", "length": 30},
        "ema": 0.9,
        "workers": 0,
        "log_every": 1,
        "save_every": 3,
        "validation": {"every": 10, "hold_out": 5},
    }
    for workers in (0, 1):
        text = yaml.safe_dump(content | {"workers": workers})
        (folder / f"recipe{workers}.yaml").write_text(text)


def _trained(output: Path) -> dict[str, bytes]:
    """The weights, and what the log says without times."""
    found = {name: content for name, content in _files(output).items() if name.endswith(".safetensors")}
    steps = [
        {k: v for k, v in event.items() if "second" not in k and k != "time"}
        for event in read_records(output / "log.jsonl")
    ]
    return found | {"log": json.dumps(steps).encode()} if (output / "last.safetensors").exists() else {}


def _evaluated(output: Path) -> dict[str, bytes]:
    """The restored pictures, and the scores of the report."""
    found = {name: content for name, content in _files(output).items() if name.startswith("restored/")}
    report = output / "report.json"
    if report.exists():
        found["scores"] = json.dumps(json.loads(report.read_text())["protocols"]).encode()
    return found


def _video(given: Path, output: Path) -> list[str]:
    model = str(given / "small.safetensors")
    return ["run", str(given / "rainy.mp4"), "-o", str(output / "dry.mp4"), "--model", model, "--overwrite"]


SERIES = {
    series.name: series
    for series in (
        Series(
            "training",
            40,
            _recipe,
            lambda given, output: ["train", str(given / "recipe0.yaml"), "-o", str(output)],
            _trained,
            visible=False,
            excludes=True,
        ),
        Series(
            "training with workers",
            10,
            _recipe,
            lambda given, output: ["train", str(given / "recipe1.yaml"), "-o", str(output)],
            _trained,
            visible=False,
            excludes=True,
        ),
        Series(
            "folder",
            30,
            _pictures,
            lambda given, output: [
                *("run", str(given / "rainy"), "-o", str(output), "--maps", "--compare"),
                *("--model", str(given / "small.safetensors")),
            ],
            _files,
            visible=True,
            excludes=False,
        ),
        Series("video", 20, _clip, _video, _files, visible=True, excludes=True, again=("--resume",)),
        Series(
            "temporal video",
            10,
            _clip,
            lambda given, output: [*_video(given, output), "--temporal"],
            _files,
            visible=True,
            excludes=True,
            again=("--resume",),
        ),
        Series(
            "evaluate",
            10,
            _pairs,
            lambda given, output: [
                *("evaluate", str(given / "rainy"), str(given / "clean"), "-o", str(output)),
                *("-m", str(given / "small.safetensors"), "-p", "rgb_psnr"),
            ],
            _evaluated,
            visible=False,
            excludes=True,
        ),
    )
}
