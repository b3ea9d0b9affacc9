"""Packages for darktable: what is in them, that tiles fit together, and that wrong ones are told."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from command_line import derain
from derain.checkpoints import Model, open_checkpoint, save_checkpoint
from derain.checkpoints.bundled import bundled, bundled_names
from derain.checkpoints.cards import card_of
from derain.errors import DerainError, UsageError
from derain.export.darktable import WIDEST, InEditor, check_package, export_package
from derain.methods import all_architectures

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")

TILE, OVERLAP = 128, 64
CARD = """# `tiny`: a network of the tests

| | |
| --- | --- |
| trained on | twelve *photographs* of a garden |
| licence | Apache-2.0 |
| licence of the training data | CC0-1.0 |

## Limits

Takes out
nothing.
"""
Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small network that changes pictures visibly, with a card."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    architecture = next(a for a in all_architectures() if a.name == "everyday")
    network = architecture.build(**architecture.tiny)
    torch.nn.init.normal_(network.head.weight, std=0.02)
    save_checkpoint(path, network.state_dict(), {})
    path.with_suffix(".md").write_text(CARD)
    return open_checkpoint(path)


@pytest.fixture(scope="module")
def package(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_package(model, tmp_path_factory.mktemp("static") / "tiny-rain.dtmodel", TILE).path


def graph_of(package: Path) -> Callable[[Array], Array]:
    """The model of a package in ONNX Runtime, (1, 3, H, W) -> (1, 3, H, W)."""
    with zipfile.ZipFile(package) as archive:
        content = archive.read(f"{package.stem}/model.onnx")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda picture: session.run(["output"], {"input": picture})[0]


def test_what_is_in_a_package(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        assert [Path(name).name for name in archive.namelist()] == [
            "config.json",
            "model.onnx",
            "LICENSE",
            "README.md",
        ]
        assert {Path(name).parent.as_posix() for name in archive.namelist()} == {"tiny-rain"}
        assert archive.read("tiny-rain/README.md").decode() == CARD
        licence = archive.read("tiny-rain/LICENSE").decode()
        config = json.loads(archive.read("tiny-rain/config.json"))
    assert "weights: Apache-2.0" in licence
    assert "TERMS AND CONDITIONS" in licence
    assert (config["id"], config["task"], config["attributes"]) == (
        "tiny-rain",
        "denoise",
        {"input_sizes": [TILE]},
    )
    card = config["model_card"]
    assert card["training_data"] == "twelve photographs of a garden"
    assert (card["license"], card["training_data_license"]) == ("Apache-2.0", "CC0-1.0")
    assert (card["long_description"], card["notes"]) == ("tiny: a network of the tests", "Takes out nothing.")
    assert check_package(package) == config


def test_the_same_weights_make_the_same_file_and_others_another_version(
    model: Model, package: Path, tmp_path: Path
) -> None:
    again = export_package(model, tmp_path / "tiny-rain.dtmodel", TILE)
    assert again.path.read_bytes() == package.read_bytes()
    other = export_package(model, tmp_path / "tiny-rain.dtmodel", 2 * TILE)
    assert other.config["version"] != again.config["version"]


def test_pictures_of_any_size(model: Model, package: Path, tmp_path: Path) -> None:
    done = export_package(model, tmp_path / "free.dtmodel", None)
    assert done.config["attributes"] == {"size_multiple": model.network.spec.multiple_of}
    free, static = graph_of(done.path), graph_of(package)
    random = np.random.default_rng(0)
    for height, width in ((1, 1), (37, 50), (TILE, TILE)):
        picture = random.random((1, 3, height, width), np.float32)
        assert free(picture).shape == picture.shape
    assert abs(free(picture) - static(picture)).max() < 1e-4


@pytest.mark.parametrize("number", [3.4e38, -3.4e38, 1e4, -1.0, 1.5])
def test_any_finite_number_gives_a_finite_one(package: Path, number: float) -> None:
    picture = np.random.default_rng(0).random((1, 3, TILE, TILE), np.float32)
    picture[..., 40:60, ::3] = number
    result = graph_of(package)(picture)
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


def to_srgb(linear: Array) -> Array:
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    )


def to_linear(encoded: Array) -> Array:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4)


def photograph(height: int, width: int) -> Array:
    """A linear picture (1, 3, H, W): dark and bright regions, grain, and streaks of rain."""
    random = np.random.default_rng(1)
    coarse = torch.from_numpy(random.random((1, 3, 4, 5), np.float32))
    scene = (
        torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1).numpy() ** 2.2
    )
    for x, y in random.integers(0, (width, height - 20), (300, 2)):
        scene[..., y : y + 20, x] += 0.2
    return scene + 0.01 * random.standard_normal(scene.shape, np.float32)


def in_tiles(linear: Array, run: Callable[[Array], Array]) -> tuple[Array, list[float]]:
    """A linear picture restored as editors do it: tiles that overlap and fade into each other, in sRGB.

    Returns the linear result, and for every two neighbours how much brighter one is where they overlap.
    """
    height, width = linear.shape[2:]
    ramp = (np.minimum(np.arange(TILE), np.arange(TILE)[::-1]) + 1).clip(max=OVERLAP).astype(np.float32)
    weight = ramp[:, None] * ramp
    total, weights = np.zeros_like(linear), np.zeros((height, width), np.float32)
    done: dict[tuple[int, int], Array] = {}
    for y in range(0, height - OVERLAP, TILE - OVERLAP):
        for x in range(0, width - OVERLAP, TILE - OVERLAP):
            place = (..., slice(y, y + TILE), slice(x, x + TILE))
            tile = done[y, x] = run(to_srgb(linear[place]).astype(np.float32))
            total[place] += weight * to_linear(tile)
            weights[place] += weight
    jumps = []
    edge = 8  # what lies next to the cut is nearly faded out
    for (y, x), tile in done.items():
        if (y, x + TILE - OVERLAP) in done:
            right = done[y, x + TILE - OVERLAP][..., edge : OVERLAP - edge]
            jumps.append(float(tile[..., edge - OVERLAP : -edge].mean() - right.mean()))
        if (y + TILE - OVERLAP, x) in done:
            below = done[y + TILE - OVERLAP, x][..., edge : OVERLAP - edge, :]
            jumps.append(float(tile[..., edge - OVERLAP : -edge, :].mean() - below.mean()))
    return total / weights, jumps


def test_tiles_of_a_linear_picture_are_equally_bright(model: Model, package: Path) -> None:
    linear = photograph(3 * TILE - 2 * OVERLAP, 4 * TILE - 3 * OVERLAP)
    found, jumps = in_tiles(linear, graph_of(package))
    assert max(map(abs, jumps)) < 0.5 / 255
    with torch.no_grad():
        encoded = torch.from_numpy(to_srgb(linear).astype(np.float32)).clamp(0, 1)
        whole = InEditor(model.network, model.network.spec.multiple_of)(encoded).numpy()
    assert abs(whole - encoded.numpy()).mean() > 2 / 255  # the network does something
    side = 32
    blocks = torch.nn.functional.avg_pool2d(torch.from_numpy(to_srgb(found) - whole), side)
    assert blocks.abs().max() < 0.5 / 255


def test_what_is_wide_and_high_stays_and_what_is_narrow_goes() -> None:
    scene = torch.full((1, 3, 160, 160), 0.4)
    rainy = scene.clone()
    rainy[..., 20:150, 20:26] += 0.2
    narrow = rainy.clone()
    rainy[..., 30:120, 60:120] += 0.2
    rainy[..., 30:120, 130:140] -= 0.2  # what a network fills in is narrow, too
    result = InEditor(SceneBehind(scene), 1)(rainy)
    assert abs(result[..., :45] - scene[..., :45]).max() < 1e-6
    assert abs(result[..., 30 + WIDEST : 120 - WIDEST, 60 + WIDEST : 120 - WIDEST] - 0.6).max() < 1e-6
    assert abs(result[..., 130:] - scene[..., 130:]).max() < 1e-6
    assert abs(InEditor(SceneBehind(scene), 1)(narrow) - scene).max() < 1e-6


class SceneBehind(torch.nn.Module):
    """A network that knows the truth."""

    def __init__(self, scene: torch.Tensor) -> None:
        super().__init__()
        self.scene = scene

    def forward(self, rainy: torch.Tensor) -> torch.Tensor:
        return self.scene


def test_networks_that_look_at_the_whole_picture_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="depends on the whole picture, so brightness would jump"):
        export_package(open_checkpoint("spanet"), tmp_path / "x.dtmodel")
    assert not list(tmp_path.iterdir())


def test_names_that_are_no_id_are_refused(model: Model, tmp_path: Path) -> None:
    for name in ("..dtmodel", "a b.dtmodel", "...dtmodel", "x.zip", "régn.dtmodel"):
        with pytest.raises(UsageError):
            export_package(model, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_command_line(model: Model, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(model.checkpoint.path.read_bytes())
    file = tmp_path / "mine.dtmodel"
    made = derain("export", weights, "--to", "dtmodel", "-o", file)
    assert made.returncode == 0, made.stderr
    assert "Rain removal (everyday), version" in made.stdout
    config = check_package(file)
    assert config["attributes"] == {"input_sizes": [768]}
    assert config["model_card"]["training_data"] == "not stated"  # there is no card beside it


def test_bundled_weights_that_can_be_exported_state_what_darktable_asks_for() -> None:
    for name in bundled_names():
        if open_checkpoint(name).network.spec.receptive_field is not None:
            assert {"trained on", "licence"} <= set(card_of(bundled(name)).rows), name


def repacked(package: Path, path: Path, change: Callable[[dict[str, bytes]], Any]) -> Path:
    """A copy of a package whose {name: content} was changed."""
    with zipfile.ZipFile(package) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents = change(contents) or contents
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def with_config(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(contents: dict[str, bytes]) -> None:
        config = {**json.loads(contents["tiny-rain/config.json"]), **changes}
        contents["tiny-rain/config.json"] = json.dumps(config).encode()

    return change


def with_graph(change: Callable[[Any], Any]) -> Callable[[dict[str, bytes]], None]:
    def changed(contents: dict[str, bytes]) -> None:
        model = onnx.load_model_from_string(contents["tiny-rain/model.onnx"])
        change(model)
        contents["tiny-rain/model.onnx"] = model.SerializeToString()

    return changed


def elsewhere(model: Any) -> None:
    tensor = next(t for t in model.graph.initializer if t.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")


def renamed(model: Any) -> None:
    for node in model.graph.node:
        node.input[:] = ["rainy" if name == "input" else name for name in node.input]
    model.graph.input[0].name = "rainy"


WRONG: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "empty": (lambda c: c.clear(), "is empty"),
    "two folders": (lambda c: c.update({"other/x": b""}), "outside the folder"),
    "a file beside the folder": (lambda c: c.update({"x": b""}), "outside the folder"),
    "a way out": (lambda c: c.update({"tiny-rain/../../x": b""}), "not a plain file path"),
    "backslashes": (lambda c: c.update({"tiny-rain/a\\..\\x": b""}), "not a plain file path"),
    "first entry outside": (lambda c: {"config.json": b"{}", **c}, "is not in a folder"),
    "many files": (lambda c: c.update({f"tiny-rain/{n}": b"" for n in range(100)}), "more than 100 files"),
    "no config": (lambda c: c.pop("tiny-rain/config.json") and None, "holds no tiny-rain/config.json"),
    "no graph": (lambda c: c.pop("tiny-rain/model.onnx") and None, "holds no tiny-rain/model.onnx"),
    "no JSON": (lambda c: c.update({"tiny-rain/config.json": b"\xff{"}), "not JSON"),
    "deep JSON": (lambda c: c.update({"tiny-rain/config.json": b"[" * 99999}), "not JSON"),
    "a list": (lambda c: c.update({"tiny-rain/config.json": b"[]"}), "is not an object"),
    "no version": (with_config(version=None), "needs 'version'"),
    "another id": (with_config(id="other"), "says id 'other'"),
    "another backend": (with_config(backend="ncnn"), "says backend 'ncnn'"),
    "another size": (with_config(attributes={"input_sizes": [256]}), "config.json says input_sizes [256]"),
    "odd attributes": (with_config(attributes=[1]), "config.json says input_sizes None"),
    "damaged graph": (lambda c: c.update({"tiny-rain/model.onnx": b"junk"}), "not an ONNX file"),
    "damaged second graph": (lambda c: c.update({"tiny-rain/b.onnx": b"junk"}), "not an ONNX file"),
    "numbers elsewhere": (with_graph(elsewhere), "reads its tensors from other files"),
    "another input": (with_graph(renamed), "needs one input, 'input'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_packages_are_told_in_one_line(case: str, package: Path, tmp_path: Path) -> None:
    change, message = WRONG[case]
    with pytest.raises(DerainError) as caught:
        check_package(repacked(package, tmp_path / "wrong.dtmodel", change))
    assert message in str(caught.value)
    assert "wrong.dtmodel" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_archives_are_told(package: Path, tmp_path: Path) -> None:
    content = package.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 255
    for name, data in {"half": content[: len(content) // 2], "none": b"", "flipped": bytes(flipped)}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DerainError, match="not a zip file, or damaged"):
            check_package(tmp_path / name)
    with pytest.raises(DerainError, match="cannot be read"):
        check_package(tmp_path / "missing")
