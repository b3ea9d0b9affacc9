"""Files that appear whole, what killed processes leave, and locks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import environment
from derain.atomic import new_file, refuse_unwritable, remove_leftovers
from derain.errors import DerainError
from derain.locks import exclusive_lock

WRITE = "from derain.atomic import new_file; w = new_file('x/a.png'); w.__enter__().write_bytes(b'half')"
HOLD = "import pathlib, derain.locks as l; h = l.exclusive_lock(pathlib.Path('a.mp4')); h.__enter__()"


def process(code: str, folder: Path) -> subprocess.Popen[str]:
    """Another process that has done `code` and waits."""
    code += "; print('ready', flush=True); input()"
    pipe = subprocess.PIPE
    running = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment(), stdin=pipe, stdout=pipe, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    return running


def kill(running: subprocess.Popen[str]) -> None:
    running.send_signal(signal.SIGKILL)
    running.communicate()


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("photo.part", ".own.part.png", ".x.host-1-2.0000000g.part"):
        (tmp_path / name).touch()
    others = {path.name for path in tmp_path.iterdir()}
    (tmp_path / "x").mkdir()
    running = process(WRITE, tmp_path)
    with new_file(tmp_path / "x" / "b.png") as own:
        own.touch()
        remove_leftovers(tmp_path / "x")
        assert len(list((tmp_path / "x").iterdir())) == 2  # both are being written
        kill(running)
        remove_leftovers(tmp_path / "x")
        assert list((tmp_path / "x").iterdir()) == [own]
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others, "x"}


def test_writing_removes_what_killed_processes_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    kill(process(WRITE, tmp_path))
    assert len(list((tmp_path / "x").iterdir())) == 1
    with new_file(tmp_path / "x" / "b.png") as own:
        own.touch()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["b.png"]


def test_the_check_of_a_folder_that_does_not_exist_yet_removes_what_killed_checks_left(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys; from pathlib import Path; from derain import atomic; "
        "atomic.os.fsync = lambda _: (print('ready', flush=True), sys.stdin.read()); "
        "atomic.refuse_unwritable(Path('new/sub'))"
    )
    kill(process(code, tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    refuse_unwritable(tmp_path / "new" / "sub")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_workers_do_not_hold_on_to_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    worker = "os.write(there, b'.'), os.close(1), os.read(0, 1), os._exit(0)"
    begun = "os.read(here, 1)"  # before that, the lock is still the worker's, too
    code = f"{HOLD}; import os; here, there = os.pipe(); os.fork() or ({worker}); {begun}"
    running = process(code, tmp_path)
    running.send_signal(signal.SIGKILL)
    running.wait()
    with exclusive_lock(tmp_path / "a.mp4"):
        running.communicate()  # ends the worker, too


def test_a_second_process_is_told_who_is_at_work(tmp_path: Path) -> None:
    running = process(HOLD, tmp_path)
    with pytest.raises(DerainError, match=rf"a\.mp4: is being written by process {running.pid} on "):
        exclusive_lock(tmp_path / "a.mp4").__enter__()
    with exclusive_lock(tmp_path / "b.mp4"):
        kill(running)
        with exclusive_lock(tmp_path / "a.mp4"), pytest.raises(DerainError, match=f"process {os.getpid()}"):
            exclusive_lock(tmp_path / "a.mp4").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_found_before_the_work(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "new" / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(DerainError, match="a part of its path is a file"):
        refuse_unwritable(tmp_path / "file" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_of_any_length_have_a_temporary_file(tmp_path: Path) -> None:
    for name in ("ü" * 120 + ".png", "a" * 251 + ".png"):
        with new_file(tmp_path / name) as temporary:
            temporary.write_bytes(b"whole")
        assert (tmp_path / name).read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 2
