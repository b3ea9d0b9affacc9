"""darktable's model package: a network as a neural filter of the photo editor.

A zip of one folder with `config.json`, `model.onnx` and text files. darktable cuts a picture into overlapping
tiles, passes each to the graph in sRGB, and blends the results.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import derain
from derain.atomic import replace_file
from derain.checkpoints import Model
from derain.checkpoints.cards import Card, card_of
from derain.checkpoints.exported.running import onnx_model, onnx_session
from derain.errors import DerainError, UsageError, reason
from derain.export.files import compare, files_at
from derain.export.graph import AXES, record
from derain.nn.padding import round_up

TILE = 768  # pixels: darktable's own side of a tile
# Pixels, odd. Whether something wider is rain depends on what lies beyond the tile, so that brightness would
# jump between tiles.
WIDEST = 15
INPUT, OUTPUT = "input", "output"
REQUIRED = ("id", "name", "description", "task", "backend", "version")
NOT_STATED = "not stated"
# Limits for a package's unpacked contents; far above any network that runs in an editor.
MOST_BYTES, MOST_ENTRIES = 1 << 30, 100
# What Python raises for archives that are damaged, encrypted or compressed in an unusual way.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Package:
    """A package that was written.

    Attributes:
        path: the file.
        tile: side in pixels of the only tile that the graph takes; None for any size.
        difference: largest absolute difference from PyTorch over the test pictures.
        config: the content of config.json.
    """

    path: Path
    tile: int | None
    difference: float
    config: Mapping[str, Any]


class InEditor(nn.Module):
    """A network as an editor calls it: maps any finite numbers, (1, 3, H, W) of any size, to [0, 1].

    What the network would remove is kept where it is wider and higher than `WIDEST` pixels.
    """

    def __init__(self, network: nn.Module, multiple_of: int) -> None:
        super().__init__()
        self.network, self.multiple_of = network, multiple_of

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        right, bottom = (-length % self.multiple_of for length in (width, height))
        # Repeating the edge, unlike reflection, also works for a picture of one pixel.
        padded = F.pad(picture.clamp(0, 1), (0, right, 0, bottom), mode="replicate")
        image: Tensor = self.network(padded)
        change = padded - image
        image = image + _wide(change) - _wide(-change)
        return image[..., :height, :width].clamp(0, 1)


def _wide(change: Tensor) -> Tensor:
    """The positive part of a change, (1, 3, H, W), that is wider and higher than `WIDEST` pixels, smoothed.

    A morphological opening.
    """
    least = -_largest(-change)
    return F.avg_pool2d(_largest(least), WIDEST, 1, WIDEST // 2, count_include_pad=False).clamp(min=0)


def _largest(change: Tensor) -> Tensor:
    """The largest value in the square of `WIDEST` pixels around each pixel."""
    rows = F.max_pool2d(change, (WIDEST, 1), 1, (WIDEST // 2, 0))
    return F.max_pool2d(rows, (1, WIDEST), 1, (0, WIDEST // 2))


def export_package(model: Model, path: Path, tile: int | None = TILE) -> Package:
    """Writes a network as a package for darktable; its name without `.dtmodel` is the model's id.

    The file appears only if it passes `check_package` and ONNX Runtime's results agree with PyTorch's
    to within half a level of an 8-bit picture.

    Args:
        model: a network in PyTorch whose receptive field is bounded.
        path: ends in .dtmodel; an existing file is replaced.
        tile: side of the tiles in pixels, rounded up to a valid size; None for a graph of any size.

    Raises:
        UsageError: the network's result depends on the whole picture, or the name does not fit.
        DerainError: see `derain.export.files.export`.
    """
    files_at("dtmodel", path)
    if not _is_id(path.stem):
        raise UsageError(
            f"{path}: the name of a package is the model's id; use only letters, digits, '-', '_' and '.'."
        )
    network, spec = model.network, model.network.spec
    if spec.receptive_field is None:
        raise UsageError(
            f"{model.checkpoint.name}: cannot go into darktable, which cuts pictures into "
            "tiles. Each pixel of its result depends on the whole picture, so brightness would jump between "
            "tiles."
        )
    multiple = spec.multiple_of
    side = None if tile is None else round_up(tile, multiple)
    module = InEditor(network, multiple)
    example = torch.rand(1, 3, side or 2 * multiple + 1, side or 3 * multiple + 1)
    axes = {number: name for number, name in AXES.items() if number > 1} if side is None else {}
    graph = record(module, example, INPUT, OUTPUT, axes, spec.onnx_functions)
    content = graph.SerializeToString()
    session = onnx_session(graph, content, str(path))

    def run(picture: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: picture.numpy()})[0])

    sizes = (
        ((side, side),)
        if side
        else ((1, 1), (2 * multiple, 3 * multiple), (8 * multiple - 1, 5 * multiple + 3))
    )
    difference = compare(module, run, [(1, *size) for size in sizes], path)
    if not torch.isfinite(run(_far_outside(example.shape))).all():
        raise DerainError(
            f"{path}: not written, because numbers far outside [0, 1] give results that are not finite."
        )
    card = card_of(model.checkpoint.path)
    config = configuration(model, card, path.stem, side, content)
    packed = _packed(path.stem, config, content, card)
    check_package(io.BytesIO(packed), str(path))
    replace_file(path, packed)
    return Package(path, side, difference, config)


def _is_id(name: str) -> bool:
    """Whether a name is safe as part of a path on every system."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None and not name.endswith(".")


def _far_outside(shape: torch.Size) -> Tensor:
    """A picture of the largest finite numbers and other values that no photograph has."""
    numbers = torch.tensor([torch.finfo(torch.float32).max, -1e4, 0.5, torch.finfo(torch.float32).min, 2.0])
    return numbers[torch.arange(shape.numel()) % len(numbers)].view(shape)


def configuration(
    model: Model, card: Card, identifier: str, tile: int | None, graph: bytes
) -> dict[str, Any]:
    """The content of config.json.

    Args:
        card: the card of the weights; what it lacks becomes "not stated".
        identifier: the model's id.
        tile: side of the tiles in pixels; None for any size.
        graph: the content of model.onnx, from which the version is derived.
    """
    network, checkpoint = model
    name = checkpoint.name
    digest = hashlib.sha256(graph + card.text.encode()).hexdigest()
    return {
        "id": identifier,
        "name": f"Rain removal ({name})",
        "description": "Removes rain from photographs.",
        "task": "denoise",  # darktable's task that maps a picture to a picture
        "backend": "onnx",
        "version": f"{derain.__version__}+{digest[:12]}",
        "arch": checkpoint.architecture.name,
        "tiling": True,
        "spatial_dims": ["height", "width"],
        "attributes": {"size_multiple": network.spec.multiple_of}
        if tile is None
        else {"input_sizes": [tile]},
        "model_card": {
            "long_description": card.title or f"The network {name} of derain.",
            "scope": "Photographs and frames of video with rain in the air, developed and in sRGB.",
            "author": card.rows.get("author", NOT_STATED),
            "source": f"derain {derain.__version__}, weights {checkpoint.path.name}",
            "paper": checkpoint.method.paper,
            "license": card.rows.get("licence", NOT_STATED),
            "training_data": card.rows.get("trained on", NOT_STATED),
            "training_data_license": card.rows.get("licence of the training data", NOT_STATED),
            "notes": card.limits or NOT_STATED,
        },
    }


def _packed(identifier: str, config: Mapping[str, Any], graph: bytes, card: Card) -> bytes:
    """The zip, byte for byte the same for the same content."""
    ours = importlib.metadata.distribution("derain").read_text("licenses/LICENSE")
    licence = f"The weights: {config['model_card']['license']}\n\nThe network's code, derain:\n\n{ours}"
    contents = {
        "config.json": json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n",
        "model.onnx": graph,
        "LICENSE": licence.encode(),
        "README.md": (card.text or f"# {identifier}\n\n{config['description']}\n").encode(),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(f"{identifier}/{name}")
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return file.getvalue()


def check_package(file: Path | io.BytesIO, source: str | None = None) -> dict[str, Any]:
    """Checks what darktable's tools check in a package of any origin; returns its config.json.

    The archive must hold one folder, named after the model's id, with a `config.json` that has the required
    keys; every graph must open in ONNX Runtime on the CPU; and `model.onnx` must map a picture to a picture.

    Args:
        file: the package.
        source: what messages call it; by default the path.

    Raises:
        DerainError: the first thing that is wrong.
    """
    source = source or str(file)
    try:
        with zipfile.ZipFile(file) as archive:
            folder, entries = _entries(archive, source)
            if f"{folder}/config.json" not in entries:
                raise DerainError(f"{source}: holds no {folder}/config.json.")
            config = _config(archive.read(f"{folder}/config.json"), folder, source)
            for name in entries:
                if name.endswith(".onnx"):
                    _check_graph(
                        archive.read(name), config, f"{source}: {name}", name == f"{folder}/model.onnx"
                    )
    except _UNREADABLE as error:
        raise DerainError(f"{source}: not a zip file, or damaged ({error}).") from None
    except OSError as error:
        raise DerainError(f"{source}: cannot be read ({reason(error)}).") from None
    if f"{folder}/model.onnx" not in entries:
        raise DerainError(f"{source}: holds no {folder}/model.onnx.")
    return config


def _entries(archive: zipfile.ZipFile, source: str) -> tuple[str, list[str]]:
    """The one folder of an archive, and the names of its files. Raises `DerainError` for another layout."""
    infos = archive.infolist()
    if not infos:
        raise DerainError(f"{source}: is empty.")
    if len(infos) > MOST_ENTRIES or sum(info.file_size for info in infos) > MOST_BYTES:
        raise DerainError(
            f"{source}: refused, because it holds more than {MOST_ENTRIES} files or {MOST_BYTES >> 30} GiB "
            "unpacked."
        )
    folder = infos[0].filename.split("/")[0]
    if not _is_id(folder) or "/" not in infos[0].filename:
        raise DerainError(
            f"{source}: its first entry, {infos[0].filename!r}, is not in a folder named after a model."
        )
    names = [info.filename for info in infos]
    for info in infos:
        parts = info.filename.rstrip("/").split("/")
        if parts[0] != folder or len(parts) == 1 != info.is_dir():
            raise DerainError(f"{source}: {info.filename!r} lies outside the folder {folder}/.")
        if (
            {"", ".", ".."} & set(parts)
            or "\\" in info.orig_filename
            or stat.S_ISLNK(info.external_attr >> 16)
        ):
            raise DerainError(f"{source}: {info.filename!r} is not a plain file path.")
    if len(set(names)) < len(names):
        raise DerainError(f"{source}: holds two files of the same name.")
    return folder, [info.filename for info in infos if not info.is_dir()]


def _config(content: bytes, folder: str, source: str) -> dict[str, Any]:
    """The checked content of config.json. Raises `DerainError` for the first thing that is wrong."""
    try:
        config = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise DerainError(f"{source}: config.json is not JSON in UTF-8.") from None
    if not isinstance(config, dict):
        raise DerainError(f"{source}: config.json is not an object.")
    for key in REQUIRED:
        if not isinstance(config.get(key), str) or not config[key]:
            raise DerainError(f"{source}: config.json needs {key!r}, a string.")
    if config["id"] != folder:
        raise DerainError(f"{source}: config.json says id {config['id']!r}, but the folder is {folder!r}.")
    if config["backend"] != "onnx":
        raise DerainError(f"{source}: config.json says backend {config['backend']!r}; only 'onnx' is known.")
    return config


def _check_graph(content: bytes, config: Mapping[str, Any], source: str, is_main: bool) -> None:
    """Opens a graph, and checks inputs and outputs of the main one. Raises `DerainError` on problems."""
    session = onnx_session(onnx_model(content, source), content, source)
    if not is_main:
        return
    for kind, found, name in (
        ("input", session.get_inputs(), INPUT),
        ("output", session.get_outputs(), OUTPUT),
    ):
        if [(end.name, end.type) for end in found] != [(name, "tensor(float)")]:
            raise DerainError(f"{source}: needs one {kind}, {name!r}, of float32.")
        if len(found[0].shape) != 4 or found[0].shape[:2] != [1, 3]:
            raise DerainError(f"{source}: its {kind} is {found[0].shape} instead of (1, 3, height, width).")
    height, width = session.get_inputs()[0].shape[2:]
    attributes = config.get("attributes", {})
    sizes = attributes.get("input_sizes") if isinstance(attributes, dict) else None
    if isinstance(height, int) and not (isinstance(sizes, list) and [height, width] == sizes[:1] * 2):
        raise DerainError(
            f"{source}: takes {width}x{height} pixels, but config.json says input_sizes {sizes}."
        )
