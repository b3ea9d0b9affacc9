"""Models by name, scoring, evaluating and training from Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import derain
from derain.evaluation import matlab_y_uint8
from derain.pictures import Picture, write_picture

GREY = np.full((16, 16, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of pictures in rainy/ and clean/."""
    folder = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(0)
    for number in range(2):
        clean = random.integers(0, 200, (24, 32, 3)).astype(np.uint8)
        write_picture(folder / f"clean/{number}.png", Picture(clean))
        rain = random.integers(0, 40, (24, 32, 1)).astype(np.uint8)
        write_picture(folder / f"rainy/{number}.png", Picture(clean + rain))
    return folder


def test_models_by_name() -> None:
    assert derain.list_models("spanet") == ["spanet"]
    assert {"drsformer", "drsformer-light"} <= set(derain.list_models("drs*"))
    assert "spanet" in derain.list_models(pretrained=True)
    assert "drsformer" not in derain.list_models(pretrained=True)
    assert derain.list_models("rainless") == []
    fresh, trained = derain.create_model("spanet"), derain.create_model("spanet", pretrained=True)
    bundled = derain.load("spanet").network.state_dict()
    assert all(torch.equal(bundled[name], tensor) for name, tensor in trained.state_dict().items())
    assert not torch.equal(fresh.conv_out[0].weight, trained.conv_out[0].weight)
    assert trained.training
    with pytest.raises(derain.UsageError, match="width"):
        derain.create_model("spanet", pretrained=True, width=8)
    with pytest.raises(derain.UsageError, match="Did you mean 'spanet'"):
        derain.create_model("spanett")


def test_scores_of_pictures_and_of_files(folder: Path) -> None:
    files = folder / "rainy/0.png", folder / "clean/0.png"
    rainy, clean = (np.array(Image.open(file)) for file in files)
    wanted = matlab_y_uint8(rainy, clean).psnr
    tensors = (torch.from_numpy(picture).movedim(2, 0)[None] for picture in (rainy, clean))
    for pair in (files, (rainy, clean), map(Image.open, files), tensors):
        assert derain.score(*pair).mean["psnr"] == pytest.approx(wanted)
    assert derain.score(folder / "rainy", str(folder / "clean")).count == 2
    with pytest.raises(derain.UsageError, match="either paths or pictures"):
        derain.score(files[0], clean)
    with pytest.raises(derain.UsageError, match="clean picture"):
        derain.score(rainy)


def test_scores_of_pil_pictures_are_those_of_what_they_show() -> None:
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))
    turned, exif = shown.rotate(90, expand=True), Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    turned.info["exif"] = exif.tobytes()
    assert derain.score(turned, shown).mean["psnr"] == np.inf
    colours = shown.convert("P", palette=Image.Palette.ADAPTIVE)
    assert derain.score(colours, shown).mean == derain.score(colours.convert("RGB"), shown).mean
    for wrong in (None, [[0, 1]]):
        with pytest.raises(derain.DerainError, match="give a path, a PIL picture"):
            derain.score(wrong, shown)
    with pytest.raises(derain.UsageError, match="a path is empty"):
        derain.score("", "")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: derain.load(3), "a model of type int: give its name, a file"),
        (lambda: derain.load(device=np.zeros(3)), "a device of type ndarray: give one of auto, cpu"),
        (lambda: derain.create_model(None), "a network of type NoneType: give one of "),
        (lambda: derain.create_model("spanet", widht=8), "spanet with {'widht': 8}: .* 'widht'"),
        (lambda: derain.list_models(3), "a pattern of type int: give text"),
        (lambda: derain.score(GREY, GREY, 3), "a protocol of type int: give one of "),
        (lambda: derain.evaluate(3, "clean"), "the rainy folder of type int: give a path"),
        (lambda: derain.evaluate("rainy", "clean", test_time="flips"), "test_time of type str: give a list"),
        (lambda: derain.train(3, "run"), "a recipe of type int: give the name"),
        (lambda: derain.train("spanet/synthetic", None), "the folder of the run of type NoneType"),
        (lambda: derain.load()(GREY.tolist()), "a picture of type list: give a path, a PIL picture"),
        (lambda: derain.load()("rainy.jpg", output=3), "the output of type int: give a path"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(call: Callable[[], object], told: str) -> None:
    with pytest.raises(derain.UsageError, match=told):
        call()


def test_evaluating_several_models(folder: Path, tmp_path: Path) -> None:
    network, steps = derain.create_model("spanet", width=4), []
    models = ["spanet", derain.load(network, device="cpu")]
    report = derain.evaluate(
        folder / "rainy", folder / "clean", models, protocols="matlab_y_uint8", output=tmp_path,
        on_picture=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert [r.candidate.name for r in report.networks] == ["spanet", "spanet-2"]
    assert [r.candidate.method for r in report.networks] == ["spanet", ""]
    assert steps == [(n, 6) for n in range(1, 7)]
    assert (tmp_path / "index.html").is_file()
    restored = tmp_path / "restored/spanet"
    mean = report.networks[0].scores("matlab_y_uint8").mean
    assert derain.score(restored, folder / "clean").mean == pytest.approx(mean)
    with pytest.raises(derain.UsageError, match="matlab_y_uint8"):
        derain.evaluate(folder / "rainy", folder / "clean", output=tmp_path)


def test_training_and_going_on(folder: Path, tmp_path: Path) -> None:
    small = {"stages": [{"patch": 16, "batch": 1}], "options": {"width": 4}, "validation": None, "workers": 0}
    data = {"clean": str(folder / "clean"), "rainy": str(folder / "rainy"), "rain": None}
    schedule = {"name": "constant"}
    for steps in (2, 3):
        weights = derain.train(
            "spanet/synthetic", tmp_path / "run", steps=steps, data=data, schedule=schedule, **small
        )
        assert derain.open_checkpoint(weights).checkpoint.facts["step"] == steps
    with pytest.raises(derain.UsageError, match="did you mean 'steps'"):
        derain.train("spanet/synthetic", tmp_path / "other", stepz=1)
