"""Every network as a file for other runtimes, and such files on the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import derain, environment
from derain.checkpoints import Model, open_checkpoint, save_checkpoint
from derain.checkpoints.bundled import find_model
from derain.checkpoints.exported import EXTENSIONS
from derain.errors import DerainError, UsageError
from derain.export.files import TOLERANCE, compare, export
from derain.export.integers import LEAST_DB
from derain.methods import all_architectures, create_network
from derain.methods.contract import Architecture
from derain.pictures import Picture, read_picture, write_picture
from derain.restore import load

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")

ARCHITECTURES = [pytest.param(a, id=a.name) for a in all_architectures()]
SLOW_TO_TRACE = ("drsformer", "nerd_rain", "udr_s2former")


def tiny(architecture: Architecture, folder: Path) -> Model:
    path = folder / "tiny.safetensors"
    save_checkpoint(path, architecture.build(**architecture.tiny).state_dict(), {})
    return open_checkpoint(path)


def assert_restores_the_same(weights: Path, exported: Path) -> None:
    """On a picture that must be padded, whole and in tiles."""
    picture = torch.rand(3, 37, 91)
    for settings in ({}, {"tile": 64, "overlap": 16}):
        wanted = load(weights, device="cpu", **settings)
        found = load(exported, **settings)
        assert found.name == wanted.name
        assert (found(picture) - wanted(picture)).abs().max() <= TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_onnx(architecture: Architecture, tmp_path: Path) -> None:
    model = tiny(architecture, tmp_path)
    done = export(model, "onnx", tmp_path / "x.onnx")
    assert done.difference <= TOLERANCE
    assert len({height for _, height, _ in done.shapes}) > 2
    assert {batch for batch, _, _ in done.shapes} == {1, 2, 3}
    assert_restores_the_same(model.checkpoint.path, done.path)
    network = load(done.path).network
    for rule in ("multiple_of", "receptive_field", "working_side", "tile"):
        assert getattr(network.spec, rule) == getattr(model.network.spec, rule)
    assert 0.2 < network.activation_bytes(512, 512) / model.network.activation_bytes(512, 512) < 5
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.safetensors", "x.onnx"}


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(a, id=a.name, marks=pytest.mark.heavy if a.name in SLOW_TO_TRACE else ())
        for a in all_architectures()
    ],
)
def test_openvino(architecture: Architecture, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    model = tiny(architecture, tmp_path)
    done = export(model, "openvino", tmp_path / "x.xml")
    assert done.difference <= TOLERANCE
    assert_restores_the_same(model.checkpoint.path, done.path)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.safetensors", "x.xml", "x.bin"}


@pytest.fixture(scope="module")
def spanet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "spanet.onnx"
    return export(open_checkpoint(find_model("spanet")), "onnx", path).path


def test_the_command_line_exports_and_runs(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (21, 34, 3), np.uint16)
    write_picture(tmp_path / "rainy" / "deep.png", Picture(pixels))
    (tmp_path / "rainy" / "broken.png").write_text("no picture")
    file = tmp_path / "spanet.onnx"
    made = derain("export", "spanet", "--to", "onnx", "-o", file)
    assert made.returncode == 0, made.stderr
    assert "differs from PyTorch by at most" in made.stdout
    assert derain("export", "spanet", "-o", file).returncode == 2
    assert derain("export", "spanet", "-o", tmp_path / "x.txt").returncode == 2
    assert derain("export", "spanet", "--to", "openvino", "-o", ".").returncode == 2
    (tmp_path / "x.bin").write_bytes(b"somebody's")
    refused = derain("export", "spanet", "--to", "openvino", "-o", tmp_path / "x.xml")
    assert refused.returncode == 2
    assert "x.bin: exists already" in refused.stderr
    run = ("run", tmp_path / "rainy", "--json")
    found = derain(*run, "-o", tmp_path / "found", "--weights", file)
    wanted = derain(*run, "-o", tmp_path / "wanted", "--model", "spanet", "--device", "cpu")
    assert (found.returncode, wanted.returncode) == (1, 1)
    assert [json.loads(done.stdout)["restored"] for done in (found, wanted)] == [1, 1]
    results = [read_picture(tmp_path / name / "deep.png").pixels.astype(int) for name in ("found", "wanted")]
    assert abs(results[0] - results[1]).max() <= 1
    assert "exported files return only the picture" in derain(*run, "--weights", file, "--maps").stderr


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight soft pictures."""
    folder = tmp_path_factory.mktemp("scenes")
    generator = torch.Generator().manual_seed(0)
    for number in range(8):
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        soft = torch.nn.functional.interpolate(coarse, (70, 90), mode="bilinear")[0].permute(1, 2, 0)
        write_picture(folder / f"{number}.png", Picture((255 * soft).round().byte().numpy()))
    return folder


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_integers_agree_with_floats(target: str, scenes: Path, tmp_path: Path) -> None:
    if target == "openvino":
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    model = open_checkpoint(find_model("everyday"))
    done = export(model, target, tmp_path / f"x{EXTENSIONS[target]}", scenes)
    assert done.agreement is not None
    assert done.agreement >= LEAST_DB
    exact, integers = load("everyday", device="cpu"), load(done.path)
    picture = read_picture(scenes / "3.png").pixels.astype(np.float32) / 255
    error = np.square(integers(picture) - exact(picture)).mean()
    assert 0 < error < 10 ** (-LEAST_DB / 10)
    assert (integers.precision_for(8), integers.precision_for(16)) == ("int8", "int8")
    assert b"QuantizeLinear" in done.path.read_bytes() or target == "openvino"


def test_integers_that_do_not_agree_are_not_written(scenes: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_network("everyday", widths=(8, 12), encoder=(1, 1), decoder=(1,))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    save_checkpoint(tmp_path / "x.safetensors", network.state_dict(), {})
    with pytest.raises(DerainError, match=r"agrees with PyTorch to only .* dB"):
        export(open_checkpoint(tmp_path / "x.safetensors"), "onnx", tmp_path / "x.onnx", scenes)
    assert not (tmp_path / "x.onnx").exists()


def test_integers_need_pictures(tmp_path: Path) -> None:
    told = derain("export", "spanet", "-o", tmp_path / "x.onnx", "--precision", "int8")
    assert (told.returncode, "--calibrate" in told.stderr) == (2, True)
    write_picture(tmp_path / "a.png", Picture(np.zeros((9, 9, 3), np.uint8)))
    with pytest.raises(UsageError, match="at least 4"):
        export(open_checkpoint(find_model("spanet")), "onnx", tmp_path / "x.onnx", tmp_path)


def test_settings_that_exported_files_do_not_have(spanet: Path) -> None:
    with pytest.raises(UsageError, match="run on the CPU"):
        load(spanet, device="cuda")
    with pytest.raises(UsageError, match="computes in float32"):
        load(spanet, precision="bf16")


def test_files_are_told_apart(spanet: Path, tmp_path: Path) -> None:
    """So that a video is never finished with another network than it was begun with."""
    other = onnx.load(spanet)
    other.doc_string = "another"
    onnx.save(other, tmp_path / "other.onnx")
    assert load(spanet).identity == load(spanet).identity
    assert load(spanet).identity != load(tmp_path / "other.onnx").identity


def test_files_with_facts_of_the_first_format_still_open(spanet: Path, tmp_path: Path) -> None:
    model = onnx.load(spanet)
    entry = model.metadata_props[0]
    facts = json.loads(entry.value)
    for now, before in (("multiple_of", "size_multiple"), ("receptive_field", "reach")):
        facts[before] = facts.pop(now)
    entry.value = json.dumps({**facts, "format": 1})
    onnx.save(model, tmp_path / "old.onnx")
    assert load(tmp_path / "old.onnx").network.spec == load(spanet).network.spec


def refused(path: Path) -> str:
    with pytest.raises(DerainError) as caught:
        load(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_broken_and_foreign_files_are_refused_in_one_line(spanet: Path, tmp_path: Path) -> None:
    content = spanet.read_bytes()
    cases = {"half": content[: len(content) // 2], "empty": b"", "text": b"no model at all"}
    for name, data in cases.items():
        (tmp_path / f"{name}.onnx").write_bytes(data)
        refused(tmp_path / f"{name}.onnx")
    assert "cannot be read" in refused(tmp_path / "none.onnx")

    def variant(name: str, change: Any) -> str:
        model = onnx.load(spanet)
        change(model)
        (tmp_path / name).write_bytes(model.SerializeToString())
        return refused(tmp_path / name)

    def set_fact(**facts: Any) -> Any:
        def change(model: Any) -> None:
            entry = model.metadata_props[0]
            entry.value = json.dumps({**json.loads(entry.value), **facts})

        return change

    assert "derain export" in variant("foreign.onnx", lambda m: m.metadata_props.pop())
    assert "multiple_of" in variant("zero.onnx", set_fact(multiple_of=0))
    assert "resnet50" in variant("other.onnx", set_fact(network="resnet50"))

    def elsewhere(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")

    assert "other files" in variant("external.onnx", elsewhere)

    def unknown_operator(model: Any) -> None:
        next(node for node in model.graph.node if node.op_type == "Conv").domain = "evil"

    assert "ONNX Runtime refuses it" in variant("operator.onnx", unknown_operator)


def test_a_file_that_changes_the_size_is_told(spanet: Path, tmp_path: Path) -> None:
    model = onnx.load(spanet)
    helper = onnx.helper
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Concat", ["before", "before"], ["image"], axis=3))
    (tmp_path / "wide.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DerainError, match=r"made \(1, 3, 8, 16\)"):
        load(tmp_path / "wide.onnx")(torch.rand(3, 8, 8))


def test_results_that_differ_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose graph is wrong: one that looks at values while it is traced."""
    model = open_checkpoint(find_model("spanet"))
    forward = type(model.network).forward

    def brightens_dark_pictures(network: Any, rainy: torch.Tensor) -> torch.Tensor:
        image = forward(network, rainy)
        return image + 0.1 if len(rainy) == 3 else image

    monkeypatch.setattr(type(model.network), "forward", brightens_dark_pictures)
    with pytest.raises(DerainError, match="differs from PyTorch"):
        export(model, "onnx", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


class Jumpy(torch.nn.Module):
    """Every third result is far from the others, as where rounding decides."""

    calls = 0

    def forward(self, rainy: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return rainy + 0.1 * (self.calls % 3 == 1)


class Shifted(torch.nn.Module):
    def forward(self, rainy: torch.Tensor) -> torch.Tensor:
        return rainy + 0.05


def test_pictures_on_which_pytorch_itself_jumps_are_left_out(tmp_path: Path) -> None:
    sizes = ((1, 8, 16), (2, 16, 8), (1, 24, 24), (3, 8, 8))
    assert compare(Jumpy(), torch.nn.Identity(), sizes, tmp_path / "x.onnx") <= TOLERANCE
    with pytest.raises(DerainError, match="changes with rounding"):
        compare(Jumpy(), Shifted(), sizes, tmp_path / "x.onnx")
    with pytest.raises(DerainError, match="differs from PyTorch"):
        compare(torch.nn.Identity(), Shifted(), sizes, tmp_path / "x.onnx")


SIGNALLED = """
import gc, os, signal, sys
from derain.restore import load
heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
first, second = load(sys.argv[1]), load(sys.argv[1])
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
assert heard == [signal.SIGTERM]
"""


def test_signals_are_heard_after_two_networks_of_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    spanet = next(a for a in all_architectures() if a.name == "spanet")
    export(tiny(spanet, tmp_path), "openvino", tmp_path / "x.xml")
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path / "x.xml")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def looping(rounds: Any, folder: Path) -> Path:
    """A graph that says of itself what ours say, and loops as often as `rounds` makes it."""
    helper, kinds = onnx.helper, onnx.TensorProto
    shape = ["b", 3, "h", "w"]
    rainy, image = (helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name in ("rainy", "image"))
    values = [
        helper.make_tensor_value_info("i", kinds.INT64, []),
        helper.make_tensor_value_info("c", kinds.BOOL, []),
        helper.make_tensor_value_info("v", kinds.FLOAT, None),
    ]
    ends = [
        helper.make_tensor_value_info("d", kinds.BOOL, []),
        helper.make_tensor_value_info("w", kinds.FLOAT, None),
    ]
    same = [helper.make_node("Identity", [a], [b]) for a, b in (("c", "d"), ("v", "w"))]
    body = helper.make_graph(same, "body", values, ends)
    always = helper.make_node(
        "Constant", [], ["always"], value=helper.make_tensor("t", kinds.BOOL, [], [True])
    )
    loop = helper.make_node("Loop", ["rounds", "always", "rainy"], ["image"], body=body)
    graph = helper.make_graph([always, *rounds, loop], "g", [rainy], [image])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = {"format": 1, "network": "spanet", "variant": None, "config": {"width": 8}, "multiple_of": 1}
    facts |= {"receptive_field": None, "tile": None, "bytes_per_pixel": 1.0, "multiply_adds_per_pixel": 1.0}
    entry = model.metadata_props.add()
    entry.key, entry.value = "derain", json.dumps(facts)
    path = folder / "loop.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_loop_that_need_not_end_is_refused_and_a_sweep_is_not(tmp_path: Path) -> None:
    helper, kinds = onnx.helper, onnx.TensorProto
    endless = helper.make_tensor("n", kinds.INT64, [], [2**62])
    path = looping([helper.make_node("Constant", [], ["rounds"], value=endless)], tmp_path)
    with pytest.raises(DerainError, match="a loop that may never end"):
        load(path)
    first = helper.make_tensor("z", kinds.INT64, [], [2])
    rows = [
        helper.make_node("Shape", ["rainy"], ["sizes"]),
        helper.make_node("Constant", [], ["two"], value=first),
        helper.make_node("Gather", ["sizes", "two"], ["rounds"]),
    ]
    picture = torch.rand(3, 8, 9)
    assert torch.equal(load(looping(rows, tmp_path))(picture), picture)


@pytest.mark.skipif(os.name != "posix", reason="limits the file size the POSIX way")
def test_a_disk_that_becomes_full_gives_one_line(tmp_path: Path) -> None:
    import resource

    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")

    def fill_the_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))

    command = [sys.executable, "-m", "derain", "export", "everyday-small", "--to", "openvino", "-o", "x.xml"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, preexec_fn=fill_the_disk
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert re.search("the disk (may be|of .* is) full", done.stderr)
    assert not list(tmp_path.iterdir())
