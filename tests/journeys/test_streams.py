"""Frames in and out of pipes, through the real command line."""

from __future__ import annotations

import array
import contextlib
import fcntl
import io
import signal
import subprocess
import sys
import termios
import threading
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clips import moving_scene, write_clip
from command_line import derain, derain_here, environment
from derain.methods import all_architectures
from derain.tensors import save_checkpoint

SIZE = (48, 64)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that changes what it gets."""
    torch.manual_seed(3)
    architecture = next(a for a in all_architectures() if a.name == "everyday")
    network = architecture.build(**architecture.tiny)
    torch.nn.init.normal_(network.head.weight, std=0.05)
    file = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(file, network.state_dict(), {})
    return file


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = list(moving_scene(6, *SIZE))
    return write_clip(tmp_path_factory.mktemp("clip") / "rain.mp4", frames, rate=Fraction(30000, 1001))


def piped(content: bytes, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """`derain ARGUMENTS...` with these bytes as its standard input."""
    command = [sys.executable, "-m", "derain", *map(str, arguments)]
    return subprocess.run(command, input=content, env=environment(), capture_output=True, timeout=600)


def stored(source: Path | bytes, **options: Any) -> tuple[list[NDArray[np.uint8]], Fraction | None]:
    """The samples of all frames as they are stored, and the rate."""
    with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), **options) as file:
        video = file.streams.video[0]
        return [frame.to_ndarray() for frame in file.decode(video)], video.average_rate


def through_a_pipe(source: Path, kind: str, codec: str, pixel_format: str | None = None) -> bytes:
    """What `ffmpeg -i SOURCE -f KIND -` writes to its pipe."""
    buffer = io.BytesIO()

    class Pipe:
        write = buffer.write

    with av.open(str(source)) as file, av.open(Pipe(), "w", format=kind) as pipe:
        video = file.streams.video[0]
        # As ffmpeg takes it over from H.264; y4m's header says it.
        siting = {"chroma_sample_location": "left"}
        out = pipe.add_stream(codec, rate=video.average_rate, options=siting)
        out.width, out.height = video.width, video.height
        out.pix_fmt = pixel_format or video.format.name
        for number, frame in enumerate(file.decode(video)):
            plain = frame.reformat(format=out.pix_fmt)
            plain.pts, plain.time_base, plain.pict_type = number, 1 / video.average_rate, 0
            pipe.mux(out.encode(plain))
        pipe.mux(out.encode(None))
    return buffer.getvalue()


@pytest.fixture(scope="session")
def restored(clip: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[NDArray[np.uint8]]:
    """What `derain run CLIP` makes of it, without loss."""
    target = tmp_path_factory.mktemp("restored") / "dry.mkv"
    done = derain("run", clip, "-o", target, "--codec", "ffv1", "--model", weights)
    assert done.returncode == 0, done.stderr
    return stored(target)[0]


def equal(frames: list[NDArray[np.uint8]], others: list[NDArray[np.uint8]]) -> bool:
    return len(frames) == len(others) and all(map(np.array_equal, frames, others))


def test_y4m_in_and_out_gives_the_frames_of_the_clip(
    clip: Path, weights: Path, restored: list[NDArray[np.uint8]]
) -> None:
    done = piped(through_a_pipe(clip, "yuv4mpegpipe", "wrapped_avframe"), "run", "-", "--model", weights)
    assert done.returncode == 0, done.stderr
    frames, rate = stored(done.stdout)
    assert rate == Fraction(30000, 1001)
    assert equal(frames, restored)
    assert not equal(frames, stored(clip)[0])
    assert b"6 frames restored" in done.stderr


def test_an_encoded_stream_becomes_a_file(
    clip: Path, weights: Path, restored: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    stream, target = through_a_pipe(clip, "matroska", "ffv1"), tmp_path / "dry.mkv"
    done = piped(stream, "run", "-", "-o", target, "--codec", "ffv1", "--model", weights, "--json")
    assert done.returncode == 0, done.stderr
    assert b'"frames": 6' in done.stderr
    assert equal(stored(target)[0], restored)
    again = piped(stream, "run", "-", "-o", target, "--model", weights)
    assert again.returncode == 2
    assert b"exists already. To replace it, give --overwrite." in again.stderr


def test_raw_frames_in_and_out(clip: Path, weights: Path, restored: list[NDArray[np.uint8]]) -> None:
    raw = through_a_pipe(clip, "rawvideo", "rawvideo")
    assert len(raw) == 6 * SIZE[0] * SIZE[1] * 3 // 2
    options = ("--raw", "yuv420p", "--size", f"{SIZE[1]}x{SIZE[0]}", "--rate", "25")
    done = piped(raw, "run", "-", *options, "--model", weights)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"".join(frame.tobytes() for frame in restored)


def test_raw_rgb_becomes_an_encoded_stream(clip: Path, weights: Path) -> None:
    raw = through_a_pipe(clip, "rawvideo", "rawvideo", "rgb24")
    options = ("--raw", "rgb24", "--size", f"{SIZE[1]}x{SIZE[0]}", "--rate", "25", "--to", "mkv")
    done = piped(raw, "run", "-", *options, "--model", weights)
    assert done.returncode == 0, done.stderr
    frames, rate = stored(done.stdout)
    assert (len(frames), rate) == (6, 25)


def test_one_line_for_what_cannot_be(
    weights: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    y4m = through_a_pipe(clip, "yuv4mpegpipe", "wrapped_avframe")
    cases = [
        (b"", ("-",), 1, "standard input: nothing arrived"),
        (b"YUV4MPEG2 Wx H48 F25:1\nFRAME\n" + bytes(9999), ("-",), 1, "no readable video (impossible size)"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", ("-",), 1, "AVI, FLV, Motion JPEG, H.264, H.265"),
        (y4m, ("-", "--maps"), 2, "--maps: cannot be used with frames from standard input. To restore them"),
        (y4m, ("-", "--raw", "rgb24"), 2, "give their --size and --rate"),
        (y4m, ("-", "--size", "64x48"), 2, "for raw frames; give their format as --raw"),
        (y4m, ("-", "-o", str(tmp_path / "a.gif")), 2, "unknown suffix for frames"),
        (y4m, (str(clip), "--to", "y4m"), 2, "--to is for frames from standard input"),
    ]
    for content, arguments, code, message in cases:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        done = derain_here("run", *arguments, "--model", weights)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        lines = done.stderr.splitlines()
        assert len(lines) == 1, lines
        assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_breaks_off_is_restored_as_far_as_it_goes(clip: Path, weights: Path) -> None:
    stream = through_a_pipe(clip, "yuv4mpegpipe", "wrapped_avframe")
    frame = SIZE[0] * SIZE[1] * 3 // 2 + 6
    for missing, left in ((frame + 100, 4), (frame - 3, 5), (1, 5)):
        done = piped(stream[:-missing], "run", "-", "--model", weights)
        assert len(stored(done.stdout)[0]) == left
        assert done.returncode == 1
        assert b"standard input: damaged or cut off; what could be read was restored" in done.stderr
    assert piped(stream[:-frame], "run", "-", "--model", weights).returncode == 0


def test_live_frames_that_break_off_are_recorded_as_far_as_they_go(
    clip: Path, weights: Path, tmp_path: Path
) -> None:
    stream, target = through_a_pipe(clip, "yuv4mpegpipe", "wrapped_avframe"), tmp_path / "dry.mkv"
    done = piped(stream[:-100], "live", "-", "-o", target, "--model", weights)
    assert done.returncode == 1
    assert b"standard input: damaged or cut off; what could be read was restored" in done.stderr
    assert b"frames restored" in done.stdout + done.stderr
    assert stored(target)[0]
    assert piped(stream, "live", "-", "-o", tmp_path / "all.mkv", "--model", weights).returncode == 0


def test_a_reader_that_goes_ends_it(clip: Path, weights: Path) -> None:
    long = through_a_pipe(clip, "yuv4mpegpipe", "wrapped_avframe")
    head, frames = long.split(b"FRAME", 1)
    command = [sys.executable, "-m", "derain", "run", "-", "--model", str(weights)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(head + b"FRAME" + frames)
        process.stdin.flush()
        process.stdout.read(1000)
        process.stdout.close()
        try:
            for _ in range(1000):
                process.stdin.write(b"FRAME" + frames)
        except BrokenPipeError:
            pass
        told = process.stderr.read().decode()
        process.stdin = None
    assert process.returncode == 1
    assert "standard output: closed by its reader after" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("command", ["run", "live"])
def test_a_closed_standard_input_is_named(weights: Path, command: str) -> None:
    line = f"exec {sys.executable} -m derain {command} - -o - --model {weights} <&-"
    done = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr
    assert "Traceback" not in done.stderr


def until_read(pipe: IO[bytes]) -> None:
    """Waits until a process has taken everything from the pipe that is its standard input."""
    waiting = array.array("i", [1])
    while waiting[0]:
        fcntl.ioctl(pipe.fileno(), termios.FIONREAD, waiting)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arrived", ["nothing to know the format by", "all but the end"])
def test_a_signal_ends_a_run_that_waits_for_frames(
    clip: Path, weights: Path, arrived: str, number: signal.Signals
) -> None:
    y4m = through_a_pipe(clip, "yuv4mpegpipe", "wrapped_avframe")
    command = [sys.executable, "-m", "derain", "run", "-", "--frame-by-frame", "--model", str(weights)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), **pipes) as running:
        running.stdin.write(y4m[:3] if arrived.startswith("nothing") else y4m)
        running.stdin.flush()
        until_read(running.stdin)
        if not arrived.startswith("nothing"):
            assert running.stdout.read(10) == y4m[:10]  # it has begun
        running.send_signal(number)
        running.wait(60)
        told = running.stderr.read().decode()
    assert running.returncode == 128 + number
    assert told == "derain: stopped; no half-written results were left behind.\n"


def test_a_signal_ends_live_frames_that_stopped_coming(clip: Path, weights: Path) -> None:
    y4m = through_a_pipe(clip, "yuv4mpegpipe", "wrapped_avframe")
    command = [sys.executable, "-m", "derain", "live", "-", "-o", "-", "--model", str(weights)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), **pipes) as running:
        running.stdin.write(y4m)
        running.stdin.flush()
        assert len(running.stdout.read(10)) == 10  # it has begun
        running.send_signal(signal.SIGINT)
        running.wait(60)
        told = running.stderr.read().decode()
    assert running.returncode == 0, told
    assert "Fatal" not in told
    assert "Traceback" not in told


def test_a_signal_ends_a_run_whose_frames_nobody_takes(weights: Path) -> None:
    raw = np.zeros((400, 200, 300, 3), np.uint8).tobytes()  # more than pipes and threads hold
    command = [sys.executable, "-m", "derain", "run", "-", "--raw", "rgb24", "--size", "300x200"]
    command += ["--rate", "25", "--frame-by-frame", "--model", str(weights)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), **pipes) as running:
        sender = threading.Thread(target=send, args=(running.stdin, raw))
        sender.start()
        assert len(running.stdout.read(10)) == 10  # it has begun
        running.send_signal(signal.SIGINT)
        running.wait(60)
        sender.join()
        told = running.stderr.read().decode()
    assert running.returncode == 130
    assert told == "derain: stopped; no half-written results were left behind.\n"


def send(pipe: IO[bytes], content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(content)
