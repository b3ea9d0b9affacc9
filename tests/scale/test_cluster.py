"""The main job over a cluster: the same files as on one machine, each once, whatever happens to workers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from command_line import derain, environment
from derain.errors import DerainError
from derain.export.extras import extra
from derain.pictures import Picture, write_picture
from derain.restore import load
from derain.restore.derainer import Settings
from derain.restore.folder import Job, Outcome, plan, restore_all
from derain.scale.cluster import Work, Worker, _row
from derain.scale.manifest import NAME, Manifest

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra 'ray' is not installed"
)


def make_pictures(folder: Path, count: int, side: int = 16) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (side, side + number % 7, 3), np.uint8)
        write_picture(folder / f"{number % 3}" / f"{number:03}.png", Picture(pixels))


def results(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}


def test_a_worker_makes_the_files_of_the_local_run(tmp_path: Path) -> None:
    make_pictures(tmp_path / "rainy", 5)
    (tmp_path / "rainy" / "0" / "broken.png").write_text("no picture")
    settings = Settings(device="cpu")
    jobs = plan([tmp_path / "rainy"], tmp_path / "spread")
    rows = [_row(number, job) for number, job in enumerate(jobs)]
    batch = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    done = Worker(Work("spanet", settings, compare=True), threads=1)(batch)
    assert sorted(done["status"]) == ["failed", *["restored"] * 5]
    assert "broken.png" in next(note for note in done["note"] if note)
    local = plan([tmp_path / "rainy"], tmp_path / "local")
    list(restore_all(load("spanet", device="cpu"), local, compare=True))
    assert results(tmp_path / "spread") == results(tmp_path / "local")
    assert len(list((tmp_path / "spread" / "compare").rglob("*.jpg"))) == 5


def outcome(folder: Path, status: str = "restored") -> Outcome:
    return Outcome(Job(folder / "a.png", folder / "b.png", (folder, Path("b.png"))), status)  # type: ignore[arg-type]


def test_the_manifest_knows_results_of_sources_that_changed(tmp_path: Path) -> None:
    done = outcome(tmp_path)
    done.job.source.write_text("first")
    manifest = tmp_path / "out" / NAME
    assert not Manifest(manifest).is_outdated(done.job)
    Manifest(manifest).add([done])
    assert not Manifest(manifest).is_outdated(done.job)
    done.job.source.write_text("another")
    assert Manifest(manifest).is_outdated(done.job)
    Manifest(manifest).add([outcome(tmp_path, "failed")])
    assert not Manifest(manifest).is_outdated(done.job)


def test_a_line_that_a_crash_cut_off_harms_no_other(tmp_path: Path) -> None:
    done = outcome(tmp_path)
    done.job.source.write_text("first")
    manifest = tmp_path / NAME
    Manifest(manifest).add([done])
    whole = manifest.read_bytes()
    manifest.write_bytes(whole + whole[: len(whole) // 2])
    done.job.source.write_text("another")
    assert Manifest(manifest).is_outdated(done.job)
    Manifest(manifest).add([done])
    assert not Manifest(manifest).is_outdated(done.job)
    assert manifest.read_bytes().splitlines()[-1].startswith(b'{"source"')
    (tmp_path / "folder").mkdir()
    with pytest.raises(DerainError, match="cannot be"):
        Manifest(tmp_path / "folder")


def test_a_missing_extra_is_told_with_the_command_that_installs_it() -> None:
    with pytest.raises(DerainError, match=r"pip install 'derain\[ray\]'"):
        extra("no_such_module_as_this", "ray")


def test_a_cluster_needs_a_folder_for_the_results(tmp_path: Path) -> None:
    make_pictures(tmp_path, 1)
    done = derain("run", tmp_path, "--cluster", "local")
    assert done.returncode == 2
    assert "--output" in done.stderr


@with_ray
@pytest.mark.heavy
def test_a_killed_worker_loses_no_picture(tmp_path: Path) -> None:
    make_pictures(tmp_path / "rainy", 200)
    (tmp_path / "rainy" / "0" / "broken.png").write_text("no picture")
    command = ["run", "rainy", "-o", "spread", "--cluster", "local"]
    running = subprocess.Popen(
        [sys.executable, "-m", "derain", *command],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 600
    while len(results(tmp_path / "spread")) < 20:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        os.sched_yield()
    workers = [
        process
        for process in psutil.Process(running.pid).children(recursive=True)
        if any("MapWorker" in part for part in process.cmdline())
    ]
    assert workers
    workers[0].send_signal(signal.SIGKILL)
    said, errors = running.communicate(timeout=600)
    assert running.returncode == 1
    assert "200 restored, 0 skipped, 1 failed" in said
    assert "broken.png" in errors
    lines = [json.loads(line) for line in (tmp_path / "spread" / NAME).read_text().splitlines()]
    assert len(lines) == len({line["target"] for line in lines}) == 201

    assert derain("run", "rainy", "-o", "local", cwd=tmp_path).returncode == 1
    assert results(tmp_path / "spread") == results(tmp_path / "local")

    next((tmp_path / "spread" / "1").glob("*.png")).unlink()
    again = derain(*command, cwd=tmp_path)
    assert "1 restored, 199 skipped, 1 failed" in again.stdout
    assert results(tmp_path / "spread") == results(tmp_path / "local")


@with_ray
@pytest.mark.heavy
def test_a_cluster_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    make_pictures(tmp_path / "rainy", 1)
    done = derain("run", tmp_path / "rainy", "-o", tmp_path / "dry", "--cluster", "127.0.0.1:1")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
