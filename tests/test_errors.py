"""Errors that carry their remedy, and how the command line says them."""

from __future__ import annotations

import copy
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from command_line import environment
from derain.cli.messages import in_words, printable, terminal
from derain.errors import DerainError, Remedy, UsageError, errors_of


def test_a_remedy_is_spelled_by_whoever_talks_to_the_user() -> None:
    error = UsageError("a.png: exists already.", Remedy("replace it", {"overwrite": True}))
    assert str(error) == "a.png: exists already. To replace it, set overwrite=True."
    assert in_words(error.message, error.remedy) == "a.png: exists already. To replace it, give --overwrite."
    several = Remedy("run it", {"precision": "float32", "keep_fields": None})
    assert str(several) == "To run it, set precision='float32' and leave out keep_fields."
    assert in_words("no.", several) == "no. To run it, give --precision float32 and leave out --keep-fields."


def test_errors_travel_between_processes_with_their_remedy() -> None:
    error = UsageError("no.", Remedy("go on", {"resume": True}))
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), again.message, again.remedy) == (UsageError, "no.", error.remedy)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(28, "No space left on device"), "a.png: the disk is full."),
        (MemoryError(), "a.png: not enough memory."),
        (TypeError("bad\nlines"), "a.png: an unexpected error (TypeError: bad)."),
        (OverflowError(), "a.png: an unexpected error (OverflowError)."),
        (DerainError("it is damaged."), "a.png: it is damaged."),
        (UsageError("a.png: no."), "a.png: no."),
    ],
)
def test_every_error_of_a_file_names_it(raised: Exception, said: str) -> None:
    with pytest.raises(DerainError) as caught, errors_of(Path("a.png")):
        raise raised
    assert str(caught.value) == said
    assert isinstance(caught.value, UsageError) == isinstance(raised, UsageError)


def test_ctrl_c_is_no_error_of_a_file() -> None:
    with pytest.raises(KeyboardInterrupt), errors_of("a.png"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_command_has_begun_is_no_traceback(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end, terminal():
            signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == code
    assert capsys.readouterr().err == "derain: stopped; no half-written results were left behind.\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_until_pytorch_is_loaded(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, loaded = signal.signal(signal.SIGINT, signal.default_int_handler), threading.Event()

    def command() -> None:
        with terminal():
            monkeypatch.setattr(torch.__spec__, "_initializing", True, raising=False)
            signal.raise_signal(number)
            loaded.set()
            monkeypatch.undo()
            threading.Event().wait(60)

    try:
        with pytest.raises(SystemExit) as end:
            command()
    finally:
        signal.signal(signal.SIGINT, before)
    assert loaded.is_set()
    assert end.value.code == code


def test_a_signal_in_the_middle_of_an_exec_has_its_own_exit_code(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import signal\nfrom derain.cli.messages import terminal\n"
        "with terminal():\n    exec('signal.raise_signal(signal.SIGTERM)')\n"
    )
    command = [sys.executable, "-m", "interrupted"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment())
    assert (ended.returncode, ended.stderr) == (
        143,
        "derain: stopped; no half-written results were left behind.\n",
    )


def test_warnings_for_programmers_do_not_reach_users(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *given, **named: print("shown")
        with terminal():
            warnings.warn("this will change in version 3", FutureWarning, stacklevel=1)
        assert capsys.readouterr().out == ""
        warnings.warn("as before", FutureWarning, stacklevel=1)
        assert capsys.readouterr().out == "shown\n"


def test_nothing_reaches_the_terminal_that_it_would_obey() -> None:
    assert printable("ä 雨 👩\u200d🚀.png") == "ä 雨 👩\u200d🚀.png"
    assert printable("a\x1b[2Jb\nc\x9b\x7f") == r"a\x1b[2Jb\nc\x9b\x7f"
    assert printable("\u202egnp.exe\udcff") == r"\u202egnp.exe\udcff"
