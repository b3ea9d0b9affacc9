"""The main job over a cluster: the same files as on one machine, each once, whatever happens to workers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from command_line import derain, environment
from derain.errors import DerainError, Remedy
from derain.pictures import Picture, write_picture
from derain.restore import Settings, load
from derain.restore.jobs import Job, Outcome, plan
from derain.restore.run import PictureOptions, restore_all
from derain.scale.cluster import Assignment, Worker, _outcome, _row, _text, restore_on_cluster
from derain.scale.manifest import NAME, Manifest

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra 'ray' is not installed"
)


WORK = Assignment("spanet", Settings(), PictureOptions())
# Ray gives way to all other processes; then a busy machine makes the tests last for ever.
EAGER = {"RAY_worker_niceness": "0"}


def make_pictures(folder: Path, count: int, side: int = 16) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (side, side + number % 7, 3), np.uint8)
        write_picture(folder / f"{number % 3}" / f"{number:03}.png", Picture(pixels))


def results(folder: Path) -> dict[Path, bytes]:
    """What is finished: no files that are being written."""
    finished = (path for path in folder.rglob("*.png") if not path.name.startswith("."))
    return {path.relative_to(folder): path.read_bytes() for path in finished}


def test_a_worker_makes_the_files_of_the_local_run(tmp_path: Path) -> None:
    make_pictures(tmp_path / "rainy", 5)
    (tmp_path / "rainy" / "0" / "broken.png").write_text("no picture")
    settings = Settings(device="cpu")
    jobs = plan([tmp_path / "rainy"], tmp_path / "spread").jobs
    rows = [_row(number, job) for number, job in enumerate(jobs)]
    batch = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    done = Worker(Assignment("spanet", settings, PictureOptions(compare=True)), threads=1)(batch)
    outcomes = [_outcome(job, text) for job, text in zip(jobs, done["outcome"], strict=True)]
    assert sorted(outcome.status for outcome in outcomes) == ["failed", *["restored"] * 5]
    assert "broken.png" in next(outcome.note for outcome in outcomes if outcome.status == "failed")
    local = plan([tmp_path / "rainy"], tmp_path / "local").jobs
    here = restore_all(load("spanet", device="cpu"), local, pictures=PictureOptions(compare=True))
    rains = {outcome.job.source: outcome.rain for outcome in here}
    assert {outcome.job.source: outcome.rain for outcome in outcomes} == rains
    assert results(tmp_path / "spread") == results(tmp_path / "local")
    assert len(list((tmp_path / "spread" / "compare").rglob("*.jpg"))) == 5


def test_advice_of_a_worker_arrives_as_settings(tmp_path: Path) -> None:
    (job,) = plan([_picture(tmp_path / "a.png")], tmp_path / "out").jobs
    failed = Outcome(
        job, "failed", f"{job.source.absolute()}: no.", Remedy("avoid it", {"tile": 256, "x": None})
    )
    assert _outcome(job, _text(failed)) == replace(failed, note=f"{job.source}: no.")


def _picture(path: Path) -> Path:
    write_picture(path, Picture(np.zeros((16, 16, 3), np.uint8)))
    return path


def outcome(folder: Path, status: str = "restored") -> Outcome:
    return Outcome(Job(folder / "a.png", folder / "b.png", folder, Path("b.png")), status)  # type: ignore[arg-type]


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


def test_results_that_exist_are_skipped_without_a_cluster(tmp_path: Path) -> None:
    make_pictures(tmp_path / "rainy", 2)
    jobs = plan([tmp_path / "rainy"], tmp_path / "dry").jobs
    Manifest(tmp_path / "dry" / NAME).add(restore_all(load("spanet", device="cpu"), jobs))
    before = results(tmp_path / "dry")
    write_picture(jobs[0].source, Picture(np.zeros((9, 9, 3), np.uint8)))
    done = list(restore_on_cluster(jobs, WORK, "no cluster", tmp_path / "dry"))
    assert [outcome.status for outcome in done] == ["skipped", "skipped"]
    assert ["changed" in outcome.note for outcome in done] == [True, False]
    assert results(tmp_path / "dry") == before


def test_a_missing_extra_is_told_with_the_command_that_installs_it(tmp_path: Path) -> None:
    make_pictures(tmp_path / "rainy", 1)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "ray.py").write_text("raise ImportError")
    path = f"{tmp_path / 'hidden'}{os.pathsep}{environment()['PYTHONPATH']}"
    command = ("run", tmp_path / "rainy", "-o", tmp_path / "dry", "--cluster", "local")
    done = derain(*command, variables={"PYTHONPATH": path})
    assert done.returncode == 1
    assert 'pip install ".[ray]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "dry").exists()


def test_a_cluster_needs_a_folder_for_the_results(tmp_path: Path) -> None:
    make_pictures(tmp_path, 1)
    for output in ((), ("-o", tmp_path / "dry.png")):
        done = derain("run", tmp_path / "0" / "000.png", "--cluster", "local", *output)
        assert done.returncode == 2
        assert "--output" in done.stderr


@contextmanager
def started(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """`derain ARGUMENTS...`, running; ended when the block is left."""
    command = [sys.executable, "-m", "derain", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=cwd, env={**environment(), **EAGER}, stdout=pipe, stderr=pipe, text=True
    ) as running:
        try:
            yield running
        finally:
            running.send_signal(signal.SIGINT)


def wait_for_results(running: subprocess.Popen[str], folder: Path, count: int) -> None:
    while len(results(folder)) < count:
        with suppress(subprocess.TimeoutExpired):
            pytest.fail(f"ended early: {running.communicate(timeout=0.2)}")


def workers_of(process: int) -> list[psutil.Process]:
    """The processes that hold a model, among the descendants of `process`."""
    found = []
    for child in psutil.Process(process).children(recursive=True):
        with suppress(psutil.Error):
            if "MapWorker" in " ".join(child.cmdline()):
                found.append(child)
    return found


@with_ray
@pytest.mark.heavy
def test_a_killed_worker_loses_no_picture(tmp_path: Path) -> None:
    make_pictures(tmp_path / "rainy", 200)
    (tmp_path / "rainy" / "0" / "broken.png").write_text("no picture")
    spread, local = tmp_path / "spread", tmp_path / "local"
    command = ["run", "rainy", "-o", "spread", "--cluster", "local"]
    with started(*command, cwd=tmp_path) as running:
        wait_for_results(running, spread, 20)
        workers = workers_of(running.pid)
        assert len(workers) == (os.cpu_count() or 1)
        workers[0].kill()
        said, errors = running.communicate(timeout=600)
    assert running.returncode == 1
    assert "200 restored, 0 skipped, 1 failed" in said
    lines = [json.loads(line) for line in (spread / NAME).read_text().splitlines()]
    assert len(lines) == len({line["target"] for line in lines}) == 201

    plain = derain("run", "rainy", "-o", "local", cwd=tmp_path)
    assert plain.returncode == 1
    assert errors == plain.stderr.replace("local", "spread")
    assert results(spread) == results(local)

    gone = next((spread / "1").glob("*.png"))
    gone.unlink()
    again = derain(*command, cwd=tmp_path, variables=EAGER)
    assert "1 restored, 199 skipped, 1 failed" in again.stdout
    assert results(spread) == results(local)


@with_ray
def test_addresses_that_lead_nowhere_are_told_in_one_line(tmp_path: Path) -> None:
    make_pictures(tmp_path / "rainy", 1)
    jobs = plan([tmp_path / "rainy"], tmp_path / "dry").jobs
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, but nobody listens
        port = unused.getsockname()[1]
        for address, reason in ((f"127.0.0.1:{port}", "cannot be reached"), ("there", "HOST:PORT")):
            with pytest.raises(DerainError, match=reason) as caught:
                list(restore_on_cluster(jobs, WORK, address, tmp_path / "dry"))
            assert "\n" not in str(caught.value)
    assert not (tmp_path / "dry").exists()
