"""Folders with names and files that nobody expects: each command does what can be done, and says the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import derain_here
from derain.checkpoints import save_checkpoint
from derain.methods import create_network
from derain.pictures import Picture, encode_picture

NAMES = (
    *("a.png", "a[/b].png", "[red]x.png", ":smile:.png", "\x1b[31mred.png", "line\nbreak.png"),
    *(
        "b\u202e.png",
        "\udcff.png",
        "-o.png",
        "c'\".png",
        "%s.png",
        "1\u00b23.png",
        f"{'x' * 230}.png",
        " .png",
    ),
)
BROKEN = ("loop.png", "dead.png", "pipe.png", "empty.png", "junk.png")
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in, with rainy/ and clean/ of odd names and broken files, and a model."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in NAMES:
        pixels = generator.integers(0, 256, (24, 30, 3), np.uint8)
        for side, shown in (("rainy", pixels // 2), ("clean", pixels)):
            path = Path(side) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_picture(Picture(shown), ".png"))
    torch.manual_seed(1)
    state = create_network("spanet", width=4).state_dict()
    save_checkpoint("m.safetensors", state, {"note": "\x1b[31mred\nline"})


def add_broken() -> None:
    for side in ("rainy", "clean"):
        folder = Path(side)
        (folder / "loop.png").symlink_to("loop.png")
        (folder / "dead.png").symlink_to("/nowhere")
        os.mkfifo(folder / "pipe.png")
        (folder / "empty.png").touch()
        (folder / "junk.png").write_bytes(b"junk" * 50)
        (folder / "itself").symlink_to(folder.absolute())


def called(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """Exit code, output, and lines of errors, none of which a terminal takes for a command."""
    done = derain_here(*arguments)
    code, told, error = done.returncode, done.stdout, done.stderr + capfd.readouterr().err
    assert all(sign.isprintable() for sign in (told + error).replace("\n", "")), ascii(told + error)
    assert "unexpected error" not in error
    return code, told, error.splitlines()


@pytest.mark.usefixtures("_here")
def test_every_name_goes_through_every_command(capfd: pytest.CaptureFixture[str]) -> None:
    pairs = len(NAMES)
    code, told, errors = called(capfd, "score", "rainy", "clean", "-p", "rgb_psnr")
    assert (code, errors) == (0, [])
    assert f" {pairs} " in told
    code, told, errors = called(
        capfd, "evaluate", "rainy", "clean", "-m", "m.safetensors", "-p", "rgb_psnr", "-o", "report"
    )
    assert (code, errors) == (0, [])
    assert len(list(Path("report/restored/m").rglob("*.png"))) == pairs
    assert Path("report/index.html").is_file()
    assert called(capfd, "data", "check", ".")[0] == 0
    assert called(capfd, "compare", "a=rainy", "b=clean", "-o", "page.html", "--crop", "16")[0] == 0
    code, told, _ = called(capfd, "info", "m.safetensors")
    assert (code, r"\x1b[31mred\nline" in told) == (0, True)


@pytest.mark.usefixtures("_here")
def test_what_is_broken_stops_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    add_broken()
    code, told, errors = called(capfd, "run", "rainy", "-o", "dry", "--model", "m.safetensors", "--json")
    report = json.loads(told)
    assert (code, report["restored"], report["failed"]) == (1, len(NAMES), len(BROKEN))
    for command in (
        ("score", "rainy", "clean", "-p", "rgb_psnr"),
        ("evaluate", "rainy", "clean", "--results", "theirs=rainy", "-p", "rgb_psnr", "-o", "report"),
        ("synth", "clean", "-o", "made", "--preset", "light"),
    ):
        code, told, errors = called(capfd, *command)
        assert code == 1
        assert all(any(name in line for line in errors) for name in BROKEN), command
    assert called(capfd, "data", "check", ".")[0] == 1


@pytest.mark.parametrize(
    "command",
    [
        ("run", ""),
        ("run", "a", "--output="),
        ("score", "", "b"),
        ("data", "check", ""),
        ("train", "a", "-o", ""),
        ("run", "a.png", "-o", " "),
        ("run", "a.png", "--model= "),
    ],
)
def test_an_empty_argument_is_not_the_folder_here(
    command: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = called(capfd, *command)
    assert code == 2
    assert "is empty; give a value" in errors[-1]


@pytest.mark.parametrize(
    "command",
    [
        ("run", "LONG"),
        ("run", "a.png", "-o", "LONG/b.png"),
        ("score", "LONG", "a", "-p", "rgb_psnr"),
        ("evaluate", "LONG", "a", "-p", "rgb_psnr"),
        ("synth", "LONG", "-o", "b"),
        ("train", "LONG.yaml", "-o", "b"),
        ("info", "LONG"),
        ("convert", "LONG", "-o", "b.safetensors"),
        ("convert", "m.safetensors", "-o", "LONG"),
        ("export", "m.safetensors", "-o", "LONG.onnx"),
        ("data", "check", "LONG"),
        ("compare", "a=LONG", "b=LONG"),
        ("background", "LONG", "-o", "b.png"),
        ("background", "rainy", "-o", "LONG.png"),
        ("adapt", "LONG", "-o", "b"),
        ("preview", "LONG"),
        ("preview", "a.png", "-o", "LONG.jpg"),
        ("bench", "LONG"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("_here")
def test_names_that_are_too_long(command: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    Path("a.png").write_bytes((Path("rainy") / "a.png").read_bytes())
    code, _, errors = called(capfd, *(part.replace("LONG", "x" * 300) for part in command))
    assert code in (1, 2)
    assert len(errors) == 1
    assert not list(Path().glob(".*"))
