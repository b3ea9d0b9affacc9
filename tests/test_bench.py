"""`derain bench`: what is measured is plausible, and what cannot be measured is said first."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from command_line import derain, environment
from derain.bench import parse_sizes
from derain.checkpoints import save_checkpoint
from derain.errors import UsageError
from derain.methods import create_network


def test_the_command_measures_each_size_and_draws(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = create_network("spanet", width=8)
    save_checkpoint(tmp_path / "own.safetensors", network.state_dict(), {})
    options = ("--sizes", "32x24,320x256", "--passes", 1, "--threads", 1, "--plot", "speed.png", "--json")
    done = derain("bench", "own.safetensors", *map(str, options), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    small, large = json.loads(done.stdout)
    assert (small["width"], small["height"], small["network"], small["threads"]) == (32, 24, "spanet", 1)
    assert large["cpu_seconds"] > small["cpu_seconds"] > 0
    assert large["seconds"] * large["pictures_per_second"] == pytest.approx(1)
    assert large["megapixels_per_second"] == pytest.approx(0.08192 / large["seconds"])
    assert small["matrix_flops"] > 1e8
    assert large["multiply_adds"] == network.multiply_adds(256, 320)
    rate = 2 * large["multiply_adds"] / large["cpu_seconds"]
    assert large["share_of_matrix_rate"] == pytest.approx(rate / large["matrix_flops"])
    # The peak is that of the pictures alone, and near what the network itself says.
    expected = network.activation_bytes(256, 320)
    assert 0.5 * expected < large["peak_bytes"] < 2 * expected + (16 << 20)
    assert small["peak_bytes"] < large["peak_bytes"]
    for part in ("read_seconds", "pad_seconds", "write_seconds"):
        assert small[part] > 0
    with Image.open(tmp_path / "speed.png") as plot:
        assert plot.size == (960, 340)
        assert len(plot.convert("RGB").getcolors(1 << 16)) > 3


def test_precisions_and_runtimes_are_compared_and_one_is_recommended(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    save_checkpoint(tmp_path / "own.safetensors", create_network("everyday-small").state_dict(), {})
    options = ("--compare", "--sizes", "64x48", "--passes", 1, "--threads", 1)
    done = derain("bench", "own.safetensors", *map(str, options), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for way in ("PyTorch, float32", "PyTorch, bfloat16", "ONNX Runtime, float32"):
        assert done.stdout.count(way) >= 2  # its times, and its parts
    assert re.search(r"^own.safetensors at 64x48: (fastest is|nothing is at least)", done.stdout, re.M)
    assert [path.name for path in tmp_path.iterdir()] == ["own.safetensors"]


def test_wrong_usage_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    wrong = {
        ("bench", "spanett"): "Did you mean 'spanet'",
        ("bench", "drsformer", "--precision", "fp16"): "does not run in float16",
    }
    for arguments, said in wrong.items():
        done = derain(*arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_picture_that_no_memory_holds_is_one_line(tmp_path: Path) -> None:
    done = derain("bench", "everyday", "--sizes", "9999999x9999999", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "derain: everyday at 9999999x9999999: not enough memory.\n"


def test_sizes_are_width_by_height() -> None:
    assert parse_sizes("640x480, 32X24") == [(480, 640), (24, 32)]
    for wrong in ("640", "0x4", "4x", "-4x4", ""):
        with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
            parse_sizes(wrong)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads what Linux counts")
def test_memory_that_was_freed_counts_and_earlier_memory_does_not() -> None:
    program = (
        "import torch; from derain.peak_memory import most_memory, start_memory; cpu = torch.device('cpu');"
        "earlier = torch.ones(100 << 20, dtype=torch.uint8); del earlier; before = start_memory(cpu);"
        "freed = torch.ones(40 << 20, dtype=torch.uint8); del freed; print(most_memory(cpu) - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert 39 < int(done.stdout) / 2**20 < 60, done.stderr
