"""UDR-S2Former against numbers that the published network gave with deterministic weights.

Tolerances are the oracles' own: rankings may flip where rounding differs, which is why some bound a
percentile.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from derain import open_checkpoint
from derain.checkpoints import Model, save_checkpoint
from derain.errors import DerainError
from derain.methods.udr_s2former.loss import (
    PERCEPTUAL_WEIGHT,
    UDRS2FormerLoss,
    negative_psnr,
    read_vgg,
    uncertainty_term,
)
from derain.methods.udr_s2former.ranking import constraint, modulation
from derain.methods.udr_s2former.window_attention import SamplingAttention, relative_position_index
from oracles.stored import Opened, Oracle, Read, read_oracle

NAMES = {
    "image": "out_final",
    "uncertainty": "var_final",
    **{f"scale{k}": f"out{k}" for k in range(4)},
    **{f"uncertainty{k}": f"var{k}" for k in range(4)},
}


Picture = Callable[[Oracle], Tensor]


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "oracles" / "udr_s2former"


@pytest.fixture(scope="module")
def read(folder: Path) -> Read:
    return functools.cache(lambda name: read_oracle(folder, name))


@pytest.fixture(scope="module")
def opened(read: Read, fill: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """The network of an oracle, opened from a file of its state list's names, shapes and filled values."""

    @functools.cache
    def opened(name: str) -> Model:
        facts = read(name).facts
        state = {}
        for entry, shape, kind in facts["state"]:
            like = relative_position_index(8) if kind == "int64" else torch.empty(shape)
            assert list(like.shape) == shape
            state[entry] = fill.fill_tensor(entry, like)
            if entry in facts.get("negate", ()):
                state[entry] = -state[entry]
        path = tmp_path_factory.mktemp(name) / "weights.safetensors"
        save_checkpoint(path, state, {})
        return open_checkpoint(path)

    return opened


@pytest.fixture
def picture(fill: ModuleType) -> Picture:
    def picture(oracle: Oracle) -> Tensor:
        of = oracle.facts["input"]
        return fill.test_image(of["name"], of["height"], of["width"])

    return picture


def assert_within(ours: Tensor, theirs: Tensor, bounds: dict[str, float]) -> None:
    error = (ours - theirs).abs()
    found = {
        "mean_abs": error.mean(),
        "max_abs": error.max(),
        "p999_abs": error.flatten().kthvalue(int(0.999 * error.numel())).values,
    }
    assert all(found[name] <= bound for name, bound in bounds.items()), (found, bounds)


def assert_near(name: str, ours: Tensor, oracle: Oracle) -> None:
    """Within the share of the largest magnitude that the first oracle grants to all arrays but the image."""
    theirs = oracle.arrays[name]
    bound = 3e-4 * theirs.abs().max().item()
    assert ours.shape == theirs.shape, name
    torch.testing.assert_close(ours, theirs, rtol=0, atol=bound, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize(
    "case", ["tiny_64x64", "full_64x64", "full_64x64_negated", "full_64x128", "full_128x128", "full_320x320"]
)
def test_every_published_output(case: str, read: Read, opened: Opened, picture: Picture) -> None:
    oracle, (network, checkpoint) = read(case), opened(case)
    published = oracle.facts["config"]
    assert checkpoint.architecture.name == "udr_s2former"
    assert checkpoint.variant == (None if case.startswith("tiny") else "published")
    assert checkpoint.config == {
        "dims": tuple(published["dim"]),
        "heads": tuple(published["head"][:4]),
        "encoder_blocks": tuple(published["conv_num"]),
        "decoder_blocks": tuple(published["reconstruction_num"]),
        "bottleneck_blocks": published["transformer_blocks"],
        "windows": tuple(published["window_size"]),
        "expand_ratios": tuple(published["expand_ratio"]),
    }
    listed = [[name, list(tensor.shape)] for name, tensor in network.state_dict().items()]
    assert listed == [entry[:2] for entry in oracle.facts["state"]]
    assert sum(p.numel() for p in network.parameters()) == oracle.facts["params"]

    with torch.inference_mode():
        restored = network(picture(oracle))
        assert_within(restored, oracle.arrays["out_final"], oracle.facts["tolerance"]["out_final"])
        if "out0" not in oracle.arrays:
            return
        everything = network.plain(picture(oracle))
    assert everything.keys() == NAMES.keys()
    assert_within(everything["image"], oracle.arrays["out_final"], oracle.facts["tolerance"]["out_final"])
    for ours, theirs in NAMES.items():
        if theirs != "out_final":
            assert_near(theirs, everything[ours], oracle)


@pytest.mark.parametrize("case", ["tiny_64x64", "full_64x64"])
def test_every_stage(case: str, read: Read, opened: Opened, picture: Picture) -> None:
    oracle, network = read(case), opened(case).network
    seen: dict[str, Tensor] = {}
    stages = {f"encoder_level{k}": f"encoder_level{k}" for k in range(4)}
    stages |= {f"var_conv{k}.1": f"uncertainty_feature_level{k}" for k in range(4)}
    stages |= {f"decoder_level{k}.model.{i}": f"level{k}_block{i}_out_nhwc" for k in range(4) for i in (0, 1)}
    stages |= {f"decoder_level{k}.model.0.attn": f"level{k}_block0_attention_out" for k in range(4)}
    stages |= {"embed": "embed", "latent.0": "latent_block0", "latent": "latent"}
    stages |= {"refinement.refine3": "refine3"}
    for k in range(4):
        last = len(network.get_submodule(f"decoder_level{k}.model")) - 1
        stages[f"decoder_level{k}.model.{last}"] = f"decoder_level{k}_nhwc"

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    wanted = {module: name for module, name in stages.items() if name in oracle.arrays}
    hooks = [network.get_submodule(m).register_forward_hook(keep(name)) for m, name in wanted.items()]
    with torch.inference_mode():
        network.plain(picture(oracle))
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(wanted) >= 12
    for name, ours in seen.items():
        assert_near(name, ours.permute(0, 3, 1, 2) if name.endswith("attention_out") else ours, oracle)


@pytest.mark.parametrize("case", ["tiny_64x64", "full_64x64"])
def test_rankings(case: str, read: Read) -> None:
    arrays = read(case).arrays
    u = arrays["uncertainty_feature_level3"]
    for ours, name in ((constraint(u), "constraint"), (modulation(u, 8), "modulation")):
        theirs = np.unpackbits(arrays[f"level3_{name}_is_one_packed"].numpy())
        np.testing.assert_array_equal((ours == 1).flatten().numpy(), theirs.astype(bool))
    assert constraint(u).unique().tolist() == pytest.approx([0.6, 1])
    assert modulation(u, 8).unique().tolist() == pytest.approx([1, 1.2])


@pytest.mark.parametrize("case", ["tiny_64x64", "full_64x64"])
def test_where_each_head_looks(case: str, read: Read, opened: Opened, picture: Picture) -> None:
    oracle, network = read(case), opened(case).network
    seen: dict[str, Tensor] = {}
    for k in range(4):
        attention = network.get_submodule(f"decoder_level{k}.model.0.attn")
        assert isinstance(attention, SamplingAttention)

        def look(module: SamplingAttention, inputs: tuple[Tensor, Tensor], k: int = k) -> None:
            t, uncertainty = inputs
            seen[f"level{k}_block0_grid"] = module.grid(t.permute(0, 3, 1, 2), uncertainty)

        handle = attention.register_forward_pre_hook(look)
        with torch.inference_mode():
            network.plain(picture(oracle))
        handle.remove()
    for name, ours in seen.items():
        assert_near(name, ours, oracle)


def published_tiles(size: int, tile: int, overlap: int) -> list[int]:
    """Where the test script's tiles start along one axis."""
    tile = min(tile, size)
    return [*range(0, size - tile, tile - overlap), size - tile]


def test_published_tiles_are_averaged(read: Read, opened: Opened, picture: Picture) -> None:
    oracle, network = read("tiny_tiled_100x150"), opened("tiny_tiled_100x150").network
    tile, overlap = oracle.facts["tile"], oracle.facts["tile_overlap"]
    rainy = picture(oracle)
    rows, columns = (published_tiles(size, tile, overlap) for size in rainy.shape[2:])
    assert (rows, columns) == (oracle.facts["row_starts"], oracle.facts["column_starts"])
    total, count = torch.zeros_like(rainy), torch.zeros_like(rainy)
    for y in rows:
        for x in columns:
            area = (..., slice(y, y + tile), slice(x, x + tile))
            with torch.inference_mode():
                part = network(rainy[area])
            total[area] += part
            count[area] += 1
            if (y, x) == (rows[-1], columns[0]):
                last = oracle.arrays["tile_last_row_first_column"]
                assert_within(part, last, oracle.facts["tolerance"]["out_tiled"])
    assert_within(total / count, oracle.arrays["out_tiled"], oracle.facts["tolerance"]["out_tiled"])


def test_losses(folder: Path, fill: ModuleType, opened: Opened, tmp_path: Path) -> None:
    facts = json.loads((folder / "losses.json").read_text())
    network = opened("tiny_64x64").network.double()
    rainy, clean = (
        torch.cat([fill.test_image(name, 64, 64) for name in facts[which]]).double()
        for which in ("inputs", "targets")
    )
    vgg_file = tmp_path / "vgg19.safetensors"
    shapes = {
        "features.0.weight": (64, 3, 3, 3),
        "features.0.bias": (64,),
        "features.2.weight": (64, 64, 3, 3),
        "features.2.bias": (64,),
    }
    state = {name: torch.empty(shape, dtype=torch.double) for name, shape in shapes.items()}
    save_checkpoint(vgg_file, fill.fill_state_dict(state), {})

    try:
        outputs = network.outputs(rainy)
        terms = UDRS2FormerLoss(str(vgg_file))(outputs, clean, rainy)
        total = sum(terms.values())
        total.backward()
        norms = {name: p.grad.norm().item() for name, p in network.named_parameters() if p.grad is not None}
    finally:
        network.zero_grad()
        network.float()

    expected, bound = facts["float64"], facts["tolerance"]["loss_relative"]
    assert total.item() == pytest.approx(expected["total"], rel=bound)
    assert terms["uncertainty"].item() == pytest.approx(expected["uncertainty"], rel=bound)
    assert terms["perceptual"].item() == pytest.approx(PERCEPTUAL_WEIGHT * expected["perceptual"], rel=bound)
    final = negative_psnr(outputs["image"], clean).item()
    assert final == pytest.approx(expected["psnr_terms"]["out_final"], rel=bound)
    first = uncertainty_term(outputs["scale0"], clean, outputs["uncertainty0"]).item()
    assert first == pytest.approx(expected["uncertainty_terms"]["out0"], rel=bound)

    wanted = facts["gradient_norm"]
    assert wanted.keys() == norms.keys() | {name for name, norm in wanted.items() if norm == 0}
    for name, norm in wanted.items():
        assert norms.get(name, 0.0) == pytest.approx(
            norm, rel=facts["tolerance"]["gradient_norm_relative"], abs=1e-9
        ), name


def test_files_of_the_training_framework_open(read: Read, opened: Opened, tmp_path: Path) -> None:
    network = opened("tiny_64x64").network
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    state["loss_per.vgg.features.0.weight"] = torch.zeros(64, 3, 3, 3)
    path = tmp_path / "epoch.ckpt"
    torch.save({"state_dict": state, "epoch": 7}, path)
    again, checkpoint = open_checkpoint(path)
    assert checkpoint.facts["epoch"] == 7
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, network.state_dict()[name], rtol=0, atol=0)
    assert read("tiny_64x64").facts["params"] == sum(p.numel() for p in again.parameters())


def test_no_random_filters_for_the_perceptual_term(tmp_path: Path) -> None:
    path = tmp_path / "vgg19.pth"
    with pytest.raises(DerainError, match="cannot be read"):
        read_vgg(path)
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(DerainError, match=r"features\.0\.bias is missing"):
        read_vgg(path)
