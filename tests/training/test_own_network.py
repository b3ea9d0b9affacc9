"""A network of the user's own, named by a recipe: trained, opened and used only where its code may run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import derain
from command_line import derain as command
from derain.checkpoints import save_checkpoint
from derain.errors import UsageError
from derain.training import train
from derain.training.dry_run import dry_run
from training.conftest import content, own_code, recipe
from training.test_loop import assert_equal, weights

CODE = """
from pathlib import Path

import derain
from torch import nn

Path("it_ran").write_text("yes")

class Fine(derain.RainNetwork):
    spec = derain.Spec(multiple_of=2, receptive_field=2)

    def __init__(self, width=4):
        super().__init__()
        first, second = (nn.Conv2d(*ends, 3, padding=1) for ends in ((3, width), (width, 3)))
        self.net = nn.Sequential(first, nn.ReLU(), second)

    def plain(self, rainy):
        return {"image": rainy - self.net(rainy)}

def plain_module():
    return nn.Conv2d(3, 3, 3, padding=1)

def broken():
    raise KeyError("depth")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_code(tmp_path, "my_networks", CODE, monkeypatch):
        yield tmp_path


def test_it_is_trained_goes_on_and_opens_with_leave_alone(photos: Path, folder: Path) -> None:
    wanted = recipe(photos, network="my_networks:Fine", options={"width": 6})
    with pytest.raises(
        UsageError, match=r"'network': .*my_networks:Fine, with all your rights.*own_code=True"
    ):
        train(wanted, folder / "run")
    assert not (folder / "it_ran").exists()
    assert dry_run(wanted, own_code=True).parameters == 3 * 6 * 9 + 6 + 6 * 3 * 9 + 3
    train(wanted.model_copy(update={"steps": 3}), folder / "run", own_code=True)
    train(wanted, folder / "run", own_code=True)
    train(wanted, folder / "whole", own_code=True)
    assert_equal(weights(folder / "run"), weights(folder / "whole"))

    file = folder / "run" / "last.safetensors"
    with pytest.raises(UsageError, match=r"holds a custom network, my_networks:Fine.*own_code=True"):
        derain.load(file)
    _, checkpoint = derain.open_checkpoint(file, own_code=True)
    assert (checkpoint.architecture.name, checkpoint.config) == ("my_networks:Fine", {"width": 6})
    picture = torch.rand(3, 15, 21)
    restored = derain.load(file, own_code=True, device="cpu")(picture)
    assert 0 < (restored - picture).abs().max() < 1
    # From there, with another loss.
    changes = {"start": str(file), "loss": {"function": "my_networks:missing"}}
    with pytest.raises(UsageError, match="has no function missing"):
        train(recipe(photos, network="my_networks:Fine", **changes), folder / "again", own_code=True)
    again = recipe(photos, network="my_networks:Fine", options={"width": 5}, start=str(file))
    with pytest.raises(UsageError, match=r"'start': .* does not fit: size mismatch for net.0.weight"):
        train(again, folder / "again", own_code=True)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("my_networks:plain_module", {}, "returned Conv2d; a network must derive from derain.RainNetwork"),
        ("my_networks:Fine", {"depth": 2}, "unexpected keyword argument 'depth'"),
        ("my_networks:broken", {}, "KeyError: 'depth'"),
        ("no_such_module:x", {}, "cannot import no_such_module"),
    ],
)
def test_what_is_wrong_with_it_is_said(
    photos: Path, folder: Path, target: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(recipe(photos, network=target, options=options), folder / "run", own_code=True)


def test_the_code_that_a_file_to_start_from_names_does_not_run(photos: Path, folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit(3)")
    network = derain.create_model("spanet", width=4)
    save_checkpoint(folder / "evil.safetensors", network.state_dict(), {"network": "evil:make"})
    for name in ("my_networks:Fine", "spanet"):
        wanted = recipe(photos, network=name, options={"width": 4}, start=str(folder / "evil.safetensors"))
        with pytest.raises(UsageError, match=r"does not fit|holds a custom network"):
            train(wanted, folder / "run", own_code=True)


@pytest.mark.usefixtures("folder")
def test_on_the_command_line(photos: Path) -> None:
    Path("own.yaml").write_text(yaml.safe_dump(content(photos, steps=1, network="my_networks:Fine")))
    refused = command("train", "own.yaml", "-o", "run")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.strip().endswith("To run it, give --own-code.")
    trained = command("train", "own.yaml", "-o", "run", "--own-code")
    assert trained.returncode == 0
    assert "1 steps done, loss " in trained.stdout
    model = "run/last.safetensors"
    assert command("convert", model, "-o", "x.safetensors").stderr.strip().endswith("with all your rights.")
    told = command("info", model, "--own-code")
    assert "my_networks:Fine" in told.stdout
    assert "stated in the file:" in told.stdout
    assert re.search(r"training steps +1\n", told.stdout)
    photo = next(photos.iterdir())
    done = command("run", photo, "-o", "dry.png", "--model", model, "--own-code")
    assert done.returncode == 0, done.stderr
    assert Path("dry.png").is_file()
    done = command("evaluate", photos, photos, "-p", "rgb_psnr", "-m", model, "--own-code", "-o", "report")
    assert done.returncode == 0, done.stderr
