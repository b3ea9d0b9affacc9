"""The commands and programs of every page and of the README do what the pages say: they run.

```sh blocks are run by bash and ```python blocks by Python, in their order, in one folder per page that
holds what the pages name. A block below `<!-- not run: REASON -->` is left out; `NOT_RUN` counts them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import forks
from clips import moving_scene, write_clip
from command_line import environment, server
from derain.checkpoints import save_checkpoint
from derain.methods import all_architectures, create_network
from derain.pictures import Picture, write_picture
from hub_server import Hub, serving

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {
    "README.md": ["installs", "it includes the tests"],
    "cluster.md": ["installs", "needs a cluster"],
    "darktable.md": ["installs"],
    "evaluate.md": ["needs a public set; exits with 1 for the small one of the tests"],
    "export.md": ["installs"],
    "index.md": ["installs"],
    "integrations.md": [
        "installs",
        "needs podman or docker",
        "changes the system",
        "changes the system",
        "needs ffmpeg",
        "needs ffmpeg",
    ],
    "live.md": [
        "needs ffmpeg",
        "needs a camera",
        "goes on until it is stopped",
        "needs a mask",
    ],
    "method.md": ["the tests of a checkout"],
    "serve.md": [
        "installs",
        "serves until it is stopped",
        "serves until it is stopped",
        "needs a server",
        "needs a server",
        "serves until it is stopped",
    ],
    "train.md": [
        "trains for hours",
        "trains for days",
        "needs a folder of photographs",
        "trains many times",
        "needs several GPUs",
        "needs several machines",
        "needs Slurm",
    ],
    "weights.md": ["installs"],
}
NEEDS = {  # packages of extras
    "cluster.md": ["ray"],
    "darktable.md": ["onnxruntime"],
    "export.md": ["onnxruntime", "openvino"],
}
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<kind>sh|python)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A block of a page; `reason` says why it is not run, "" if it is."""

    kind: str
    code: str
    reason: str


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text("utf-8"))
    return [Block(match["kind"], match["code"], match["reason"] or "") for match in found]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Path:
    """A folder with all that the pages name, small."""
    folder = tmp_path_factory.mktemp("prepared")
    random = np.random.default_rng(0)

    def scene(height: int = 48, width: int = 64) -> np.ndarray:
        return cv2.resize(random.integers(0, 180, (6, 8, 3)).astype(np.uint8), (width, height))

    def rainy(clean: np.ndarray) -> np.ndarray:
        streaks = np.zeros(clean.shape[:2], np.uint8)
        for x, y in random.integers(0, clean.shape[1], (12, 2)).tolist():
            cv2.line(streaks, (x, y), (x + 2, y + 9), 90, 1)
        return cv2.add(clean, np.dstack([streaks] * 3))

    for name in ("photo.jpg", "rainy.jpg", "holiday/beach.jpg", "holiday/lake/boat.png", "archive/2019.jpg"):
        write_picture(folder / name, Picture(rainy(scene())))
    for number in range(4):
        write_picture(folder / f"photos/{number}.png", Picture(scene()))
        clean = scene()
        for place in ("rainy/{}.png", "dry/{}.png", "datasets/Rain200L/test/rain/X2/{}x2.png"):
            write_picture(folder / place.format(number), Picture(rainy(clean)))
        mask = np.zeros((48, 64, 1), np.uint8)
        mask[10:14, 20] = 255
        write_picture(folder / f"masks/{number}.png", Picture(mask))
        write_picture(folder / f"frames/000{number}.png", Picture(rainy(clean)))
        for place in ("clean/{}.png", "datasets/Rain200L/test/norain/{}.png"):
            write_picture(folder / place.format(number), Picture(clean))
    write_clip(folder / "clip.mp4", list(moving_scene(8, 32, 48)), audio="aac")

    torch.manual_seed(0)
    state = create_network("spanet", width=4).state_dict()
    torch.save({"net": state, "clock": 40000}, folder / "latest.pth")
    save_checkpoint(folder / "runs/first/best.safetensors", state, {})
    everyday = next(a for a in all_architectures() if a.name == "everyday")
    save_checkpoint(folder / "garden.safetensors", everyday.build(**everyday.tiny).state_dict(), {})
    drsformer = next(a for a in all_architectures() if a.name == "drsformer")
    torch.save({"params": drsformer.build(**drsformer.tiny).state_dict()}, folder / "drsformer_200L.pth")
    config = b'{"network": "spanet", "config": {"width": 4}}'
    weights = (folder / "runs/first/best.safetensors").read_bytes()
    hub.put("someone/streaks", {"config.json": config, "model.safetensors": weights})

    (folder / "bin").mkdir()
    for name, options in (("derain", f'-I "{forks.__file__}" "{server()}"'), ("python", "")):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        command.chmod(0o755)
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="the blocks are for bash")
@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_every_command_of_a_page_runs(page: Path, prepared: Path, hub: Hub, tmp_path: Path) -> None:
    for package in NEEDS.get(page.name, ()):
        pytest.importorskip(package, reason=f"the extra with {package} is not installed")
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    variables = {
        **environment(),
        **hub.environment(tmp_path / "hub"),
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    for block in blocks(page):
        if block.reason:
            continue
        command = ["bash", "-euc", block.code] if block.kind == "sh" else [sys.executable, "-c", block.code]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
        assert not [path for path in folder.rglob("*") if ".part" in path.name]


def test_what_is_not_run_is_known() -> None:
    left_out = {page.name: [block.reason for block in blocks(page) if block.reason] for page in PAGES}
    assert {name: reasons for name, reasons in left_out.items() if reasons} == NOT_RUN


def test_no_command_is_hidden_in_another_kind_of_block() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        assert text.count("```sh\n") == sum(block.kind == "sh" for block in blocks(page)), page
        assert not re.search(r"^ {4,}derain |^```(bash|shell|console)", text.replace("```sh", ""), re.M), page
