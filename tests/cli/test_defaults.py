"""Defaults in derain.toml and DERAIN_* variables: what is in force, where it comes from, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from PIL import Image

from command_line import derain, derain_here
from derain.cli import app
from derain.cli.defaults import Default, defaults, options_of, unused_variables
from derain.errors import UsageError

OPTIONS = options_of(typer.main.get_command(app))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and the user's file beside it."""
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    home.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("derain.cli.defaults.typer.get_app_dir", lambda name: str(home))
    return home


def in_force(command: str, option: str, environment: dict[str, str] | None = None) -> Default | None:
    found = [d for d in defaults(OPTIONS, environment or {}) if (d.command, d.option) == ((command,), option)]
    assert len(found) <= 1
    return found[0] if found else None


def test_the_nearest_place_counts_and_in_it_the_command_before_all(home: Path) -> None:
    (home / "derain.toml").write_text('precision = "float32"\n[run]\ntile = 1\n[evaluate]\ntile = 5\n')
    Path("derain.toml").write_text("tile = 2\n[run]\ntile = 3\njpeg_quality = 80\n")
    variables = {"DERAIN_TILE": "4", "DERAIN_EVALUATE_TILE": "6"}
    assert in_force("run", "precision") == Default(
        ("run",), "precision", "float32", f"{home}/derain.toml: precision"
    )
    assert in_force("run", "tile") == Default(("run",), "tile", "3", "derain.toml: run.tile")
    assert in_force("run", "jpeg-quality").value == "80"
    assert in_force("evaluate", "tile").value == "2"
    assert in_force("run", "tile", variables) == Default(("run",), "tile", "4", "DERAIN_TILE")
    assert in_force("evaluate", "tile", variables).origin == "DERAIN_EVALUATE_TILE"
    assert in_force("models", "tile") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("tile = ", "not TOML"),
        ("tyle = 3", "Did you mean 'tile'"),
        ("[rum]\ntile = 3", "Did you mean 'run'"),
        ("[run]\npreset = 'light'", "unknown option 'run.preset'"),
        ("overwrite = true", "--overwrite cannot be set as a default"),
        ("[train]\nset = ['a=b']", "--set cannot be set as a default"),
    ],
)
def test_mistakes_in_a_file_name_the_place(home: Path, content: str, said: str) -> None:
    (home / "derain.toml").write_text(content)
    with pytest.raises(UsageError, match=said) as caught:
        defaults(OPTIONS, {})
    assert str(home / "derain.toml") in str(caught.value)


@pytest.mark.usefixtures("home")
def test_variables_that_set_nothing() -> None:
    variables = {"DERAIN_TILE": "4", "DERAIN_TYLE": "4", "DERAIN_TOKEN": "secret", "OTHER": "x"}
    assert unused_variables(OPTIONS, variables) == ["DERAIN_TYLE"]
    with pytest.raises(UsageError, match="DERAIN_OVERWRITE"):
        defaults(OPTIONS, {"DERAIN_OVERWRITE": "1"})


def test_a_command_takes_its_defaults_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "derain.toml").write_text('[score]\nprotocol = ["matlab_y_uint8", "nonsense"]\n')
    variables = {"DERAIN_RUN_TILE": "x", "XDG_CONFIG_HOME": str(tmp_path / "none")}
    (tmp_path / "a.png").touch()
    done = derain("score", "a.png", "b.png", "-v", cwd=tmp_path, variables=variables)
    assert done.returncode == 2
    assert "unknown protocol 'nonsense'" in done.stderr
    assert "--protocol ['matlab_y_uint8', 'nonsense'], from derain.toml: score.protocol" in done.stderr
    done = derain("run", "a.png", cwd=tmp_path, variables=variables)
    assert done.returncode == 2
    assert "it is set by DERAIN_RUN_TILE" in done.stderr
    content = json.loads(derain("config", "--json", cwd=tmp_path, variables=variables).stdout)
    assert content["files"][0] == {"path": "derain.toml", "exists": True}
    tile = next(found for found in content["defaults"] if found["option"] == "tile")
    assert (tile["command"], tile["value"], tile["origin"]) == ("run", "x", "DERAIN_RUN_TILE")
    assert tile["problem"] == "x: give a whole number"
    shown = derain("config", cwd=tmp_path, variables=variables).stdout
    assert f"--tile x, from DERAIN_RUN_TILE (not valid: {tile['problem']}): for run" in shown


@pytest.mark.usefixtures("home")
def test_defaults_count_only_where_they_apply() -> None:
    """Given with the command, an option for pictures is refused where there are only clips."""
    Path("a.mp4").touch()
    Path("a.png").touch()
    for clip, options, said in (
        ("a.mp4", ("--format", "png", "--compare"), "compare and format are for pictures"),
        ("a.mp4", ("--jpeg-quality", "80"), "jpeg_quality is for pictures"),
        ("a.png", ("--jpeg-quality", "80"), "no result is a JPEG"),
        ("a.png", ("--codec", "h264"), "codec is for videos"),
    ):
        done = derain_here("run", clip, *options, "--dry-run")
        assert done.returncode == 2
        told = done.stderr
        assert (said in told, "leave out --" in told) == (True, True)
    Path("derain.toml").write_text('format = "png"\ncompare = true\njpeg-quality = 80\ncodec = "h264"')
    for name in ("a.mp4", "a.png"):
        assert derain_here("run", name, "--dry-run").returncode == 0


def test_quiet_and_verbose(tmp_path: Path) -> None:
    convert = ("convert", "spanet", "-o", "a.safetensors")
    assert "a.safetensors: spanet" in derain(*convert, cwd=tmp_path).stdout
    done = derain(*convert, "--overwrite", "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = derain(*convert, "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "derain: a.safetensors: exists already. To replace it, give --overwrite."
    ]
    assert "Traceback" in derain("info", "none.pth", "-v", cwd=tmp_path).stderr
    assert "spanet" in derain("info", "spanet", "-q").stdout  # what was asked for
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    told = derain(
        *("run", "a.png", "-v", "--model", "everyday-small", "--device", "cpu", "--precision", "float32"),
        cwd=tmp_path,
    ).stderr
    assert "everyday-small on cpu, CPU threads: " in told
    assert "a.png -> a-derained.png: restored float32" in told
