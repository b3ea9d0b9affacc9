"""Foreign and hostile checkpoint files."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

from derain import tensors
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
    ("nets.rain", lambda s: {"adam": {"state": {0: {"exp_avg": torch.zeros(1)}}}, "nets": {"rain": s}}),
    ("state_dict_ema", lambda s: {"state_dict": {"x.y": torch.zeros(1)}, "state_dict_ema": s}),
    ("G_ema", lambda s: {"G": {"x.y": torch.zeros(1)}, "G_ema": s}),
]


@pytest.mark.parametrize(("nest", "wrap"), NESTS, ids=[f"{k}-{n}" for k, (n, _) in enumerate(NESTS)])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "module.module.", "_orig_mod.module.", "net.", "ema_model."]
)
@pytest.mark.parametrize("legacy", [False, True])
def test_finds_the_state_dict(
    nest: str, wrap: Callable[[Any], Any], prefix: str, legacy: bool, state: dict[str, Tensor], tmp_path: Path
) -> None:
    content = wrap({prefix + name: tensor for name, tensor in state.items()})
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    found = read_tensors(tmp_path / "x.pth")
    assert found.nest == nest
    assert found.state.keys() == state.keys()
    assert open_checkpoint(tmp_path / "x.pth").checkpoint.config == {"width": 4}


def test_our_own_file_keeps_its_facts(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", state, {"step": 12, "note": "ü"})
    _, checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    assert checkpoint.facts == {"step": 12, "note": "ü"}
    assert checkpoint.variant is None
    assert not list(tmp_path.glob(".*"))


def test_facts_that_cannot_be_read_are_left_out(state: dict[str, Tensor], tmp_path: Path) -> None:
    for number, facts in enumerate(("[" * 100_000, "{", "[1]")):
        file = tmp_path / f"{number}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file, {"derain": facts})
        assert open_checkpoint(file).checkpoint.facts == {}


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("bomb-went-off"),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_runs_code_is_refused(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Bomb()}, "bomb.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DerainError, match=r"bomb\.pth: refused, .*getattr.* could run code"):
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
    assert "no named tensors found" in error({"epoch": 3, "name": "x"})


def _saved(content: Any, path: Path, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def test_what_averaging_and_profilers_leave_is_passed_over(state: dict[str, Tensor], tmp_path: Path) -> None:
    left = {"n_averaged": torch.tensor(5)} | {f"module.{name}": value for name, value in state.items()}
    left |= {"module.conv_in.0.total_ops": torch.zeros(1), "module.total_params": torch.zeros(1)}
    found = read_tensors(_saved({"model": left}, tmp_path / "x.pth")).state
    assert found.keys() == state.keys()


@pytest.mark.parametrize(
    "prefixes",
    [("ema_model.", "model."), ("generator.", "discriminator."), ("net_g.",), ("backbone.", "loss.")],
)
@pytest.mark.parametrize("wrapper", ["", "_orig_mod.", "_fsdp_wrapped_module."])
def test_networks_side_by_side_and_wrapped(
    state: dict[str, Tensor], tmp_path: Path, prefixes: tuple[str, ...], wrapper: str
) -> None:
    wanted, *others = prefixes
    content = {f"{wanted}{name.replace('.', f'.{wrapper}', 1)}": value for name, value in state.items()}
    for other in others:
        content |= {f"{other}{name}": value + 1 for name, value in list(state.items())[:5]}
    network, _ = open_checkpoint(_saved({**content, "step": torch.tensor(1)}, tmp_path / "x.pth"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])


def test_names_are_told_without_what_terminals_obey(tmp_path: Path) -> None:
    with pytest.raises(DerainError) as caught:
        open_checkpoint(_saved({"\x1b[31mred\n": torch.zeros(2), "b.c": torch.zeros(2)}, tmp_path / "x.pth"))
    assert r"keys: \x1b[31mred\n, b.c" in str(caught.value)


def test_a_program_is_no_checkpoint(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "x.pth"))
    with pytest.raises(DerainError, match=r"x\.pth: a TorchScript file, which is a program"):
        open_checkpoint(tmp_path / "x.pth")


def test_options_and_numbers_beside_the_weights_are_harmless(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    content = {
        "model": state,
        "epoch": np.int64(5),
        "best": np.float32(31.5),
        "args": argparse.Namespace(lr=1e-3, out=Path("runs")),
    }
    assert read_tensors(_saved(content, tmp_path / "x.pth")).state.keys() == state.keys()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3),
        np.array([1, "a", None], dtype=object),
        np.random.RandomState(0).get_state(),
        collections.defaultdict(list, losses=[1.0]),
        collections.deque([1.0, 2.0], maxlen=5),
        datetime.datetime(2026, 11, 26, tzinfo=datetime.UTC),
        datetime.timedelta(hours=3),
        frozenset({1, 2}),
        decimal.Decimal("0.1"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_tools_store_beside_the_weights_is_skipped(
    value: object, state: dict[str, Tensor], tmp_path: Path, legacy: bool
) -> None:
    read = read_tensors(_saved({"state_dict": state, "epoch": 3, "more": value}, tmp_path / "x.pth", legacy))
    assert read.state.keys() == state.keys()
    assert read.facts == {"epoch": 3}


def test_weights_in_a_dictionary_with_defaults_open(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = _saved(collections.defaultdict(dict, model=state), tmp_path / "x.pth")
    assert read_tensors(path).state.keys() == state.keys()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x02\x85R", "builtins.bytearray"),  # of 8 GB
        (
            30 * b"c_codecs\nencode\n"
            + (b"X\x02\0\0\0abX\x06\0\0\0latin1" + 29 * b"\x86RX\x03\0\0\0HEX" + b"\x86R"),
            "_codecs.encode with hex",
        ),
        (b"ctorch\nTensor\n" + 2 * b"\x8a\x03\0\0\x01" + b"\x86R", "fill far more memory"),  # 65,536 squared
    ],
    ids=["bytearray", "hex", "tensor"],
)
def test_files_that_make_more_of_little_are_refused(
    content: bytes, told: str, state: dict[str, Tensor], tmp_path: Path, legacy: bool
) -> None:
    path = _saved(state, tmp_path / "x.pth", legacy)
    pickled = b"\x80\x02}X\x05\0\0\0a.b.c" + content + b"s."
    if legacy:
        head = b"".join(pickle.dumps(part, 2) for part in (MAGIC_NUMBER, PROTOCOL_VERSION, {}))
        path.write_bytes(head + pickled + pickle.dumps([], 2))
    else:
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(f"{next(iter(parts)).partition('/')[0]}/a.pkl", b"broken")  # nobody reads it
            for name, part in parts.items():
                file.writestr(name, pickled if name.endswith("data.pkl") else part)
    with pytest.raises(DerainError, match=told):
        read_tensors(path)


def test_a_zip_that_only_some_programs_can_read_is_damaged(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = _saved(state, tmp_path / "x.pth")
    content = bytearray(path.read_bytes())
    content[content.index(b"/data.pkl")] ^= 1  # the name before the part; it stays as it is in the list
    path.write_bytes(content)
    with pytest.raises(DerainError, match=r"x\.pth: not a checkpoint, or damaged"):
        read_tensors(path)


class Strange:
    """A type that no checkpoint should need."""


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_needs_another_type_is_refused_by_the_name_of_it(
    state: dict[str, Tensor], tmp_path: Path, legacy: bool
) -> None:
    path = _saved({"model": state, "config": Strange()}, tmp_path / "x.pth", legacy)
    with pytest.raises(DerainError, match="Strange") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle_is_refused_by_the_name_of_what_it_asks_for(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"w": Strange}, protocol))
    with pytest.raises(DerainError, match=r"besides tensors it asks for .*\.Strange, which could run code"):
        read_tensors(tmp_path / "x.pth")


def test_a_newer_pickle_protocol_is_the_reason_why_a_file_is_not_opened(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "x.pth", pickle_protocol=4)
    with pytest.raises(DerainError, match="written with pickle protocol 4"):
        read_tensors(tmp_path / "x.pth")


def test_networks_in_a_list_are_found(state: dict[str, Tensor], tmp_path: Path) -> None:
    found = read_tensors(_saved([3, {"model": state}, {"lr": 0.1}], tmp_path / "x.pth"))
    assert (found.nest, found.state.keys()) == ("1.model", state.keys())


def test_a_zip_of_something_else_is_named_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", weight=np.zeros(3))
    with pytest.raises(DerainError, match="a zip file without a checkpoint in it"):
        read_tensors(tmp_path / "w.npz")


def test_an_endless_pickle_is_refused_before_it_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "MOST_INSTRUCTIONS", 1000)
    (tmp_path / "x.pth").write_bytes(b"\x80\x02" + b"]" * 2000)
    with pytest.raises(DerainError, match="over 1,000 instructions"):
        read_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.to(torch.complex64), "complex64"),
        (lambda t: t.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to("meta"), "holds no values"),
        (lambda t: torch.zeros(1).expand(t.shape), "repeats its values"),
        (lambda t: t.to(torch.int32), "int32"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "quantized"),
    ],
    ids=["complex", "float8", "sparse", "meta", "repeating", "whole", "quantized"],
)
def test_what_is_no_plain_array_of_numbers_is_refused(
    change: Callable[[Tensor], Tensor], told: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    name = "conv_in.0.weight"
    path = _saved({**state, name: change(state[name])}, tmp_path / "x.pth")
    with pytest.raises(DerainError, match=told) as caught:
        open_checkpoint(path)
    assert "conv_in.0.weight" in str(caught.value) or "quantized" in str(caught.value)


def test_many_names_for_a_few_numbers_are_refused(tmp_path: Path) -> None:
    one = torch.zeros(1000)
    path = _saved({f"layer{number}.weight": one for number in range(500)}, tmp_path / "x.pth")
    with pytest.raises(DerainError, match="share so few numbers"):
        read_tensors(path)


def test_compressed_files_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = _saved({"w": torch.zeros(1_000_000)}, tmp_path / "x.pth")
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    with pytest.raises(DerainError, match="is compressed"):
        read_tensors(path)


def test_dictionaries_that_share_dictionaries_are_looked_into_once(tmp_path: Path) -> None:
    """Sixty levels of two references each would be 2^60 ways."""
    inner: dict[str, Any] = {"note": 1}
    for _ in range(60):
        inner = {"a": inner, "b": inner}
    with pytest.raises(DerainError, match="no named tensors found"):
        read_tensors(_saved(inner, tmp_path / "x.pth"))


@pytest.mark.parametrize(
    "name",
    ["compiled.pth", "lightning_net.ckpt", "swa.pth", "thop_all.pth", "namespace.pth", "np_scalar.pth"],
)
def test_files_of_well_known_tools_open(name: str, shared: Path) -> None:
    assert open_checkpoint(shared / "cases" / "formats" / name).checkpoint.architecture.name == "spanet"


@given(
    content=st.recursive(
        st.sampled_from([torch.zeros(2), torch.tensor(3), 1, "text", None, torch.zeros(0)]),
        lambda inner: st.dictionaries(
            st.sampled_from(["model", "opt", "a", "module.x", "state_dict"]), inner
        ),
        max_leaves=12,
    )
)
@settings(max_examples=60)
def test_any_nest_of_dictionaries_opens_or_is_refused(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = _saved(content, Path(folder) / "x.pth")
        try:
            assert read_tensors(path).state
        except DerainError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_the_default_opens_without_the_compiler() -> None:
    code = "import sys, derain; derain.load(device='cpu'); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
