"""Foreign and hostile checkpoint files."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from derain.checkpoints import open_checkpoint, read_tensors, save_checkpoint
from derain.errors import DerainError
from derain.methods import create_network


@pytest.fixture
def state() -> dict[str, Tensor]:
    return create_network("spanet", width=4).state_dict()


NESTS: list[tuple[str, Callable[[Any], Any]]] = [
    ("", lambda s: s),
    ("net", lambda s: {"net": s, "clock": 7, "opt": {"state": {0: {"exp_avg": torch.zeros(1)}}}}),
    ("state_dict", lambda s: {"epoch": 3, "state_dict": OrderedDict(s), "optimizer": {"lr": 1.0}}),
    ("params_ema", lambda s: {"params": {"x": torch.zeros(1)}, "params_ema": s}),
    ("model_state_dict", lambda s: {"model_state_dict": s}),
    ("model.state_dict", lambda s: {"model": {"state_dict": s}}),
    ("generator", lambda s: {"generator": s, "note": "hello"}),
    ("state_dict", lambda s: {"best_psnr": torch.tensor(31.2), "state_dict": s}),
]


@pytest.mark.parametrize(("nest", "wrap"), NESTS, ids=[f"{k}-{n}" for k, (n, _) in enumerate(NESTS)])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("legacy", [False, True])
def test_finds_the_state_dict(
    nest: str, wrap: Callable[[Any], Any], prefix: str, legacy: bool, state: dict[str, Tensor], tmp_path: Path
) -> None:
    content = wrap({prefix + name: tensor for name, tensor in state.items()})
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    found = read_tensors(tmp_path / "x.pth")
    assert found.nest == nest
    assert found.state.keys() == state.keys()
    assert open_checkpoint(tmp_path / "x.pth").config == {"width": 4}


def test_our_own_file_keeps_its_facts(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", state, {"step": 12, "note": "ü"})
    opened = open_checkpoint(tmp_path / "x.safetensors")
    assert opened.facts == {"step": 12, "note": "ü"}
    assert opened.variant is None
    assert not list(tmp_path.glob(".*"))


def test_facts_that_cannot_be_read_are_left_out(state: dict[str, Tensor], tmp_path: Path) -> None:
    for number, facts in enumerate(("[" * 100_000, "{", "[1]")):
        file = tmp_path / f"{number}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file, {"derain": facts})
        assert open_checkpoint(file).facts == {}


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("bomb-went-off"),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_runs_code_is_refused(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Bomb()}, "bomb.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DerainError, match=r"bomb\.pth: refused, the file asks for code"):
        open_checkpoint("bomb.pth")
    Path("plain.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DerainError, match=r"plain\.pkl: "):
        open_checkpoint("plain.pkl")
    assert not Path("bomb-went-off").exists()


def test_damaged_and_foreign_files_give_one_line(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "good.safetensors", state, {})
    torch.save(state, tmp_path / "good.pth")
    safe, zipped = (tmp_path / "good.safetensors").read_bytes(), (tmp_path / "good.pth").read_bytes()
    broken = {
        "empty.pth": b"",
        "text.pth": b"this is not a checkpoint\n" * 9,
        "cut.pth": zipped[: len(zipped) // 2],
        "cut.safetensors": safe[: len(safe) // 2],
        "huge-header.safetensors": (2**62).to_bytes(8, "little") + b"{" + b"0" * 99,
        "bad-header.safetensors": (20).to_bytes(8, "little") + b'{"a": nonsense     }',
        "picture.pth": b"\x89PNG\r\n\x1a\n" + bytes(99),
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DerainError) as caught:
            open_checkpoint(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    for missing in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(DerainError, match=str(missing)):
            open_checkpoint(missing)


def test_what_does_not_fit_is_explained(state: dict[str, Tensor], tmp_path: Path) -> None:
    def error(changed: dict[str, Any]) -> str:
        torch.save(changed, tmp_path / "x.pth")
        with pytest.raises(DerainError) as caught:
            open_checkpoint(tmp_path / "x.pth")
        return str(caught.value)

    without = {k: v for k, v in state.items() if k != "res_block3.group1.conv2.weight"}
    assert "res_block3.group1.conv2.weight is missing" in error(without)
    assert "extra.weight is not part of it" in error({**state, "extra.weight": torch.zeros(1)})
    assert "instead of (3, 4, 3, 3)" in error({**state, "conv_out.0.weight": torch.zeros(3, 4, 1, 1)})
    infinite = {**state, "conv_out.0.weight": torch.full((3, 4, 3, 3), torch.inf)}
    assert "conv_out.0.weight holds values that are not finite" in error(infinite)
    assert "spanet" in error({**state, "conv_in.0.weight": torch.tensor(1.0)})
    foreign = error({"layers.0.weight": torch.zeros(2), "res_block1.group1.conv1.weight": torch.zeros(1)})
    assert "layers.0.weight" in foreign
    assert "nearest known network is spanet" in foreign
    assert "no tensors found" in error({"epoch": 3, "name": "x"})
