"""Weights on a stand-in of the Hugging Face Hub: published, downloaded, refused; no network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import derain, environment
from derain.checkpoints import save_checkpoint
from derain.checkpoints.hub import repository
from derain.errors import UsageError
from derain.methods import create_network
from derain.pictures import Picture, read_picture, write_picture
from hub_server import TOKEN, Hub, serving


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(path, create_network("spanet", width=4).state_dict(), {"step": 12})
    return path


CONFIG = json.dumps({"network": "spanet", "config": {"width": 4}, "derain": "0.1.0"}).encode()


def test_what_is_published_restores_elsewhere_and_without_a_network(
    hub: Hub, weights: Path, tmp_path: Path
) -> None:
    variables = hub.environment(tmp_path / "hf")
    done = derain("publish", weights, "me/streaks", variables=variables)
    assert done.returncode == 0, done.stderr
    files = hub.repositories["me/streaks"]["main"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads(files["config.json"]) == json.loads(CONFIG)
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: derain\n")
    assert "--model hf:me/streaks" in card

    files["pytorch_model.bin"] = b"never asked for"
    rainy = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    write_picture(tmp_path / "rainy.png", Picture(rainy))
    for name, model in (("a.png", str(weights)), ("b.png", "hf:me/streaks")):
        done = derain("run", "rainy.png", "-o", name, "--weights", model, cwd=tmp_path, variables=variables)
        assert done.returncode == 0, done.stderr
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, read_picture(tmp_path / "b.png").pixels)
    asked = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert asked == {"config.json", "model.safetensors"}

    unreachable = {**variables, "HF_ENDPOINT": "http://127.0.0.1:9"}
    told = derain("info", "hf:me/streaks", "--json", variables=unreachable)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["step"] == 12


def test_nothing_is_replaced_unless_asked(hub: Hub, weights: Path, tmp_path: Path) -> None:
    hub.put("me/streaks", {"model.safetensors": b"precious", "config.json": CONFIG})
    variables = hub.environment(tmp_path / "hf")
    refused = derain("publish", weights, "me/streaks", variables=variables)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert hub.repositories["me/streaks"]["main"]["model.safetensors"] == b"precious"
    public = derain("publish", weights, "me/streaks", "--private", "--overwrite", variables=variables)
    assert public.returncode == 2
    assert "is already public" in public.stderr
    assert hub.repositories["me/streaks"]["main"]["model.safetensors"] == b"precious"
    private = derain("publish", weights, "me/diary", "--private", variables=variables)
    assert private.returncode == 0, private.stderr
    assert hub.private == {"me/diary"}
    (tmp_path / "card.md").write_text("Mine.")
    options = ("--overwrite", "--card", tmp_path / "card.md")
    done = derain("publish", weights, "me/streaks", *options, variables=variables)
    assert done.returncode == 0, done.stderr
    assert hub.repositories["me/streaks"]["main"]["README.md"] == b"Mine."
    unreachable = {**variables, "HF_ENDPOINT": "http://127.0.0.1:9"}
    offline = derain("publish", weights, "me/streaks", variables=unreachable)
    assert offline.returncode == 1
    assert "cannot be reached" in offline.stderr
    assert len(offline.stderr.strip().splitlines()) == 1


def test_what_cannot_be_opened_is_told_in_one_line(hub: Hub, weights: Path, tmp_path: Path) -> None:
    good = weights.read_bytes()
    torch.save(create_network("spanet", width=4).state_dict(), tmp_path / "x.pth")
    commit = hub.put("me/good", {"config.json": CONFIG, "model.safetensors": good}, tag="v1")
    hub.put("me/secret", {"config.json": CONFIG, "model.safetensors": good})
    hub.private.add("me/secret")
    hub.put("me/pickle", {"config.json": CONFIG, "model.safetensors": (tmp_path / "x.pth").read_bytes()})
    hub.put("me/torn", {"config.json": CONFIG, "model.safetensors": good[:-100]})
    hub.put("me/bare", {"model.safetensors": good})
    hub.put("me/empty", {"config.json": CONFIG})
    hub.put("me/other", {"config.json": CONFIG.replace(b"4", b"8"), "model.safetensors": good})
    hub.put("me/foreign", {"config.json": b'{"model_type": "bert"}', "model.safetensors": good})
    wanted = {
        "hf:me/good": "opened",
        "hf:me/good@v1": "opened",
        f"hf:me/good@{commit}": "opened",
        "hf:me/good@v2": "no revision v2",
        "hf:me/secret": "private; hf auth login",
        "hf:me/none": "no such repository",
        "hf:me/pickle": "not a safetensors file",
        "hf:me/torn": "damaged safetensors",
        "hf:me/bare": "holds no config.json",
        "hf:me/empty": "holds no model.safetensors",
        "hf:me/other": 'config.json says config {"width": 8}, but the weights are {"width": 4}',
        "hf:me/foreign": "does not name a network",
        "hf:streaks": "write hf:OWNER/NAME",
    }
    program = (
        "import json, sys, derain\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    try: derain.load(name); print('opened')\n"
        "    except derain.DerainError as error: print(error)"
    )
    variables = {**environment(), **hub.environment(tmp_path / "hf"), "HF_TOKEN": "hf_another"}
    command = [sys.executable, "-c", program, json.dumps(list(wanted))]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = dict(zip(wanted, done.stdout.splitlines(), strict=True))
    for name, words in wanted.items():
        assert words in told[name], (name, told[name])
    assert TOKEN not in done.stdout


def test_offline_with_an_empty_cache_and_without_the_extra(hub: Hub, tmp_path: Path) -> None:
    offline = {**hub.environment(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = derain("info", "hf:me/good", variables=offline)
    assert done.returncode == 1
    assert "it is not in the cache" in done.stderr
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "huggingface_hub.py").write_text("raise ImportError('not installed')")
    paths = f"{tmp_path / 'without'}:{environment()['PYTHONPATH']}"
    done = derain("info", "hf:me/good", variables={"PYTHONPATH": paths})
    assert done.returncode == 1
    assert 'pip install ".[hub]"' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert hub.requests == []


def test_names() -> None:
    assert repository("hf:me/a.b-c@v1/x").revision == "v1/x"
    assert str(repository("me/streaks")) == "hf:me/streaks"
    for wrong in (
        "hf:me",
        "hf:/x",
        "hf:me/a/b",
        "hf:me/..",
        "hf:me/x@",
        "hf:../../x",
        "hf:me/-x",
        "hf:me/x.git",
    ):
        with pytest.raises(UsageError, match="hf:OWNER/NAME"):
            repository(wrong)
