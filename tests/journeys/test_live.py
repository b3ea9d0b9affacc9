"""`derain live` through the real command line: a file, a sender that comes and goes, and the page."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from clips import content, moving_scene, write_clip
from command_line import derain, environment
from derain.checkpoints.rain_threshold import FACT
from derain.methods import all_architectures
from derain.tensors import save_checkpoint


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    architecture = next(a for a in all_architectures() if a.name == "everyday")
    file = tmp_path_factory.mktemp("weights") / "small.safetensors"
    state = architecture.build(**architecture.tiny).state_dict()
    save_checkpoint(file, state, {FACT: {"threshold": 0.01, "alarms": 1, "dry": 20}})
    return file


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.6 seconds, so that a report falls in its time."""
    frames = list(moving_scene(40, 48, 64))
    return write_clip(tmp_path_factory.mktemp("clip") / "rain.mkv", frames, rate=Fraction(25))


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "derain", "live", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(), **pipes)


def test_a_file_is_recorded_with_its_times_and_its_rain_told(
    clip: Path, weights: Path, tmp_path: Path
) -> None:
    target = tmp_path / "dry.mkv"
    done = derain("live", clip, "-o", target, "--json", "--model", weights)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows
    assert rows[0]["rain"].keys() == {"share", "contrast", "signal", "is_raining"}
    assert rows[0]["rain"]["is_raining"] in (True, False)
    assert all(row["latency_ms"] > 0 and row["frames_per_second"] > 0 for row in rows)
    summary = done.stderr.splitlines()[-1]
    restored, dropped = int(summary.split()[0]), int(summary.split()[4])
    assert restored + dropped == 40
    recorded = content(target)
    assert len(recorded.frames) == restored
    assert 1.0 < recorded.times[-1] <= 2.5
    again = derain("live", clip, "-o", target, "--model", weights)
    assert again.returncode == 2
    assert "exists already. To replace it, give --overwrite." in again.stderr


def test_a_source_shorter_than_a_second_is_told(weights: Path, tmp_path: Path) -> None:
    short = write_clip(tmp_path / "short.mkv", list(moving_scene(3, 48, 64)), rate=Fraction(25))
    done = derain("live", short, "--json", "--model", weights)
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row["frames_per_second"] > 0
    assert row["rain"]["is_raining"] in (True, False)
    assert done.stderr.startswith(f"{3 - row['dropped']} frames restored and {row['dropped']} dropped")


def test_a_sender_that_goes_is_waited_for(clip: Path, weights: Path, tmp_path: Path) -> None:
    content = clip.read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as sender:

        def send() -> None:
            for _ in range(2):
                connection, _ = sender.accept()
                with connection:
                    connection.sendall(content)

        threading.Thread(target=send, daemon=True).start()
        address = f"tcp://127.0.0.1:{sender.getsockname()[1]}"
        with start(address, "-o", tmp_path / "dry.mkv", "--model", weights) as live:
            assert live.stderr is not None
            told = [live.stderr.readline() for _ in range(2)]
            live.send_signal(signal.SIGINT)
            rest = live.stderr.read()
    assert told == [f"{address}: no more frames; trying again in 1 s.\n", f"{address}: back again.\n"]
    assert live.returncode == 0, rest
    assert "frames restored" in rest
    with av.open(str(tmp_path / "dry.mkv")) as recorded:  # ends as a file should
        assert sum(1 for _ in recorded.decode(video=0)) >= 1


def test_a_source_that_is_away_is_told_every_second(clip: Path, weights: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sender:

        def send() -> None:
            connection, _ = sender.accept()
            with connection:
                connection.sendall(clip.read_bytes())

        threading.Thread(target=send, daemon=True).start()
        address = f"tcp://127.0.0.1:{sender.getsockname()[1]}"
        with start(address, "--json", "--model", weights) as live:
            assert live.stdout is not None
            rows = map(json.loads, live.stdout)
            away = [row for row in itertools.islice(rows, 4) if row["frames_per_second"] == 0]
            live.send_signal(signal.SIGINT)
    assert len(away) >= 2
    assert all(row["rain"] is None for row in away)


def test_the_page_shows_the_newest_picture(weights: Path, tmp_path: Path) -> None:
    long = write_clip(tmp_path / "long.mkv", list(moving_scene(100, 48, 64)), rate=Fraction(1))
    with start(long, "--page", "0", "--model", weights) as live:
        assert live.stderr is not None
        address = live.stderr.readline().strip()
        host = address.removeprefix("http://")
        page = http.client.HTTPConnection(host, timeout=60)
        page.request("GET", "/")
        answer = page.getresponse()
        assert b'<img src="live.mjpg"' in answer.read()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        page.request("GET", "/live.mjpg")
        answer = page.getresponse()
        assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
        head = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"
        assert answer.read(len(head)) == head
        for _ in range(2):
            picture = b""
            while not picture.endswith(b"\r\n" + head):
                picture += answer.read1(1)
            assert picture.startswith(b"\xff\xd8")
            assert picture.removesuffix(b"\r\n" + head).endswith(b"\xff\xd9")
        other = http.client.HTTPConnection(host, timeout=60)
        other.request("GET", "/live.json", headers={"Host": "evil.example"})
        assert other.getresponse().status == 400
        live.send_signal(signal.SIGINT)
        rest = live.stderr.read()
    assert live.returncode == 0, rest


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["0"], 2, "nothing to do: give -o to record, --page to watch, or --json"),
        (["gopher://a/b", "--json"], 2, "unknown protocol 'gopher'"),
        (["/dev/video99", "--json"], 1, "/dev/video99: no such camera."),
        (["absent.mp4"], 2, "absent.mp4: no such file; give a camera, an address,"),
        (["absent.mp4", "--json", "--raw", "rgb24"], 2, "give - as the source"),
    ],
)
def test_one_line_for_what_cannot_be(arguments: list[str], code: int, message: str) -> None:
    done = derain("live", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr.splitlines()[0]
