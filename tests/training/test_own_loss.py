"""A loss of the user's own, named by a recipe, runs only where the user allows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from derain.errors import UsageError
from derain.training import train
from derain.training.log import read_log
from training.conftest import content, own_code, recipe
from training.test_loop import assert_equal, weights

CODE = """
from dataclasses import dataclass
from pathlib import Path

import torch
from derain.methods.contract import Loss

Path("it_ran").write_text("yes")

def charbonnier(outputs, clean, rainy, eps=0.001):
    return torch.sqrt((outputs["image"] - clean).square() + eps**2).mean()

def picture(outputs, clean, rainy):
    return outputs["image"]

@dataclass(frozen=True)
class Two(Loss):
    weight: float = 1.0

    def __call__(self, outputs, clean, rainy):
        difference = outputs["image"] - clean
        return {"l1": difference.abs().mean(), "l2": self.weight * difference.square().mean()}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_code(tmp_path, "my_losses", CODE, monkeypatch):
        yield tmp_path


def test_nothing_runs_without_leave(photos: Path, folder: Path) -> None:
    wanted = recipe(photos, loss="my_losses:charbonnier")
    with pytest.raises(UsageError, match=r"runs Python code, my_losses:charbonnier.*own_code=True"):
        train(wanted, folder / "run")
    assert not (folder / "it_ran").exists()


def test_a_function_or_a_class_is_the_loss(photos: Path, folder: Path) -> None:
    train(recipe(photos, steps=3, loss="my_losses:charbonnier"), folder / "a", own_code=True)
    assert {"loss"} < read_log(folder / "a")[0].keys()
    # It goes on, and its options count.
    train(recipe(photos, loss={"function": "my_losses:charbonnier"}), folder / "a", own_code=True)
    options = {"function": "my_losses:charbonnier", "eps": 0.001}
    train(recipe(photos, loss=options), folder / "b", own_code=True)
    assert_equal(weights(folder / "a"), weights(folder / "b"))
    train(
        recipe(photos, steps=1, loss={"function": "my_losses:Two", "weight": 0.0}),
        folder / "c",
        own_code=True,
    )
    (event,) = read_log(folder / "c")
    assert event["l2"] == 0 < event["l1"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("my_losses", "as package.module:function"),
        ("no_such_module:x", "cannot import no_such_module"),
        ("my_losses:missing", "my_losses has no function missing"),
        ("my_losses:picture", "must return a scalar tensor"),
    ],
)
def test_what_is_wrong_with_it_is_said(photos: Path, folder: Path, target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(recipe(photos, loss=target), folder / "run", own_code=True)


def test_on_the_command_line(photos: Path, folder: Path) -> None:
    from training.conftest import python

    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content(photos, steps=1, loss="my_losses:charbonnier")))
    arguments = ["-m", "derain", "train", str(file), "-o", str(folder / "run")]
    _, error = (process := python(arguments)).communicate(timeout=600)
    assert (process.returncode, error.count("\n")) == (2, 1)
    assert error.strip().endswith("To run it, give --own-code.")
    _, error = (process := python([*arguments, "--own-code"])).communicate(timeout=600)
    assert process.returncode == 0, error
