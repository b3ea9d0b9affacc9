"""Rain2Avoid against numbers that the published implementation produced."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from derain.checkpoints import open_checkpoint, save_checkpoint
from derain.methods.rain2avoid import ldgp, sampling, turning
from derain.methods.rain2avoid.backbones import UNet
from derain.methods.rain2avoid.pseudo_truth import sample_pseudo_truths

BACKBONES = ["unet", "unet_tiny", "resnet", "dncnn", "dncnn_tiny"]
TOLERANCE = {"unet": 5e-6, "unet_tiny": 5e-6, "resnet": 4e-5, "dncnn": 1.5e-4, "dncnn_tiny": 2e-5}
TRAIN_TOLERANCE = {"unet": 8e-5, "unet_tiny": 8e-5, "resnet": 1.6e-4, "dncnn": 9.5e-4, "dncnn_tiny": 7e-5}


def _oracle(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    base = shared / "oracles" / "rain2avoid" / name
    with np.load(base.with_suffix(".npz")) as arrays:
        return json.loads(base.with_suffix(".json").read_text()), dict(arrays)


def _state(facts: dict[str, Any], fill: ModuleType) -> dict[str, Tensor]:
    like = {n: torch.zeros(shape, dtype=getattr(torch, dtype)) for n, shape, dtype in facts["state"]}
    state = fill.fill_state_dict(like)
    gain = facts["weight_gain_after_fill"]
    return {n: t * gain if t.dim() == 4 else t for n, t in state.items()}


def _network(name: str, facts: dict[str, Any], fill: ModuleType, folder: Path) -> nn.Module:
    """Through a file and its recognition; the U-Net's levels leave no trace in a file."""
    state = _state(facts, fill)
    save_checkpoint(folder / "x.safetensors", state, {})
    opened, checkpoint = open_checkpoint(folder / "x.safetensors")
    assert checkpoint.architecture.name == f"rain2avoid_{name.removesuffix('_tiny')}"
    assert list(opened.state_dict()) == [n for n, _, _ in facts["state"]]
    if name != "unet_tiny":
        return opened
    network = UNet(levels=facts["config"]["layer_size"])
    network.load_state_dict(state, strict=True)
    return network.eval()


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_gives_the_published_outputs(
    name: str, shared: Path, fill: ModuleType, tmp_path: Path
) -> None:
    facts, arrays = _oracle(shared, name)
    network = _network(name, facts, fill, tmp_path)
    parameters = {id(p): p.numel() for p in network.parameters()}
    assert sum(parameters.values()) == facts["params"]
    seen: dict[str, Tensor] = {}
    modules = dict(network.named_modules(remove_duplicate=False))
    places = {"relu_0": "dncnn.1", **{f"block_{i}": f"dncnn.{3 * i + 1}" for i in range(1, 16)}}
    for point in arrays:
        place = places.get(point, point)
        if place in modules:
            modules[place].register_forward_hook(lambda _m, _i, out, point=point: seen.update({point: out}))
    with torch.no_grad():
        output = network(fill.test_image(**facts["input"]))
    _close(output, arrays["output"], TOLERANCE[name])
    for point, value in list(seen.items()):
        _close(value, arrays[point], TOLERANCE[name])
    assert set(arrays) - set(seen) == {
        a for a in arrays if a.startswith(("output", "train", "first_gradient"))
    }
    with torch.no_grad():
        large = network(fill.test_image(**facts["other_inputs"]["output_large"]))
    _close(large, arrays["output_large"], TOLERANCE[name])


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_in_training_mode_uses_and_tracks_the_statistics_of_the_picture(
    name: str, shared: Path, fill: ModuleType, tmp_path: Path
) -> None:
    facts, arrays = _oracle(shared, name)
    network = _network(name, facts, fill, tmp_path).train()
    with torch.no_grad():
        output = network(fill.test_image(**facts["input"]))
    _close(output, arrays["train_mode_output"], TRAIN_TOLERANCE[name])
    for entry in facts["measured"]["bn_checked"]:
        value = network.state_dict()[entry]
        _close(value, arrays["train_mode_" + entry.replace(".", "_")], TRAIN_TOLERANCE[name])


@pytest.mark.parametrize("name", BACKBONES)
def test_five_steps_of_adam_follow_the_published_losses(
    name: str, shared: Path, fill: ModuleType, tmp_path: Path
) -> None:
    facts, arrays = _oracle(shared, name)
    network = _network(name, facts, fill, tmp_path).train()
    rainy = fill.test_image(**facts["input"])
    target = fill.test_image(**facts["training"]["target"])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    losses = []
    for step in range(5):
        optimizer.zero_grad()
        loss = F.mse_loss(network(rainy), target)
        loss.backward()
        if step == 0:
            norms = [p.grad.norm().item() if p.grad is not None else 0 for p in network.parameters()]
            assert [n for n, _ in network.named_parameters()] == facts["gradient_norm_order"]
            np.testing.assert_allclose(norms, arrays["first_gradient_norms"], rtol=2e-3, atol=1e-6)
        optimizer.step()
        losses.append(loss.item())
    wanted, exact = arrays["training_losses"], arrays["training_losses_float64"]
    assert (np.abs(losses - wanted) <= 3 * np.abs(wanted - exact) + 1e-5).all(), (losses, wanted, exact)


def _close(value: Tensor, wanted: np.ndarray, tolerance: float) -> None:
    assert value.shape == wanted.shape
    assert np.abs(value.numpy() - wanted).max() <= tolerance


# ---------------------------------------------------------------- the prior


@pytest.fixture(scope="module")
def pictures(shared: Path) -> list[dict[str, Any]]:
    """Facts about the 50 pictures, with the picture itself and its published map."""
    folder = shared / "data" / "rain100l"
    facts = json.loads((shared / "oracles" / "rain2avoid" / "ldgp_maps.json").read_text())["pictures"]
    for each in facts:
        each["rainy"] = np.array(Image.open(folder / "rainy" / each["name"]).convert("RGB"))
        each["map"] = np.array(Image.open(folder / "ldgp" / each["name"]))
        assert _sha256(each["rainy"]) == each["rainy_sha256"]
        assert _sha256(each["map"]) == each["map_sha256"]
    assert len(facts) == 50
    return facts


def test_maps_equal_all_published_ones_byte_for_byte(pictures: list[dict[str, Any]]) -> None:
    for each in pictures:
        prior = ldgp.rain_prior(each["rainy"])
        np.testing.assert_array_equal(prior.map, each["map"], err_msg=each["name"])
        assert prior.theta == each["theta"]
        assert ldgp.patch_angles(turning.grey(each["rainy"])).tolist() == each["patch_angles"]


def test_maps_of_the_first_paper_equal_all_published_ones(pictures: list[dict[str, Any]]) -> None:
    for each in pictures:
        prior = ldgp.rain_prior(each["rainy"], ldgp.FIRST_PAPER)
        assert _sha256(prior.map) == each["gen1_map_sha256"], each["name"]
        assert prior.theta == each["gen1_theta"]


@pytest.mark.parametrize("name", ["ldgp_crop_a", "ldgp_crop_b"])
def test_every_step_of_the_prior(name: str, shared: Path) -> None:
    _, a = _oracle(shared, name)
    rainy, theta = a["rainy"], int(a["theta"])
    height, width = rainy.shape[:2]
    np.testing.assert_array_equal(turning.grey(rainy), a["gray"])

    magnitude, angle = ldgp.gradients(a["gray"][None, :80, :80])
    np.testing.assert_allclose(magnitude[0], a["patch0_magnitude"], rtol=2e-7)
    np.testing.assert_allclose(angle[0], a["patch0_angle"], atol=1e-6)
    sums = np.concatenate([ldgp.orientation_sums(p) for p in ldgp._patches(a["gray"])])
    np.testing.assert_allclose(sums, a["patch_sums"], rtol=5e-5)
    angles = ldgp.patch_angles(a["gray"])
    np.testing.assert_array_equal(angles, a["patch_angles"])
    assert ldgp.vote(angles)[0] == a["voted_angle"]

    turned = turning.turn(rainy, theta)
    np.testing.assert_array_equal(turned, a["rotated"])
    np.testing.assert_array_equal(turning.grey(turned), a["rotated_gray"])
    bright = ldgp.brighter_than_surroundings(a["rotated_gray"])
    np.testing.assert_array_equal(bright, a["threshold"])
    np.testing.assert_array_equal(ldgp.opening(bright, 10), a["opened"])
    np.testing.assert_array_equal(ldgp.opening(bright, int(a["gen1_kernel"])), a["gen1_opened"])
    np.testing.assert_array_equal(turning.turn(a["opened"], -theta), a["returned"])
    np.testing.assert_array_equal(turning.turn_back(bright, theta, height, width), a["before"])
    prior = ldgp.rain_prior(rainy)
    np.testing.assert_array_equal(prior.map, a["map"])
    assert prior.theta == theta
    np.testing.assert_array_equal(ldgp.rain_prior(rainy, ldgp.FIRST_PAPER).map, a["gen1_map"])


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("compared", ["rain", "nonrain"])
@pytest.mark.parametrize("name", ["nss_crop", "nss_edges"])
def test_every_step_of_the_sampling(name: str, compared: Any, shared: Path) -> None:
    _, a = _oracle(shared, name)
    rainy, rain_map = a["rainy"], a["ldgp"]
    rule = sampling.Similarity(compared)
    (band,) = sampling.candidate_bands(rainy, rain_map, rule)
    np.testing.assert_array_equal(band.rows, a["target_y"])
    np.testing.assert_array_equal(band.columns, a["target_x"])
    np.testing.assert_array_equal(band.differences, a[f"{compared}_l1"])
    np.testing.assert_array_equal((band.differences >= 0).sum(1), a["candidates"])
    probability = sampling.probabilities(band.differences, rule.eta)
    np.testing.assert_allclose(probability, a[f"{compared}_probability"], atol=1e-6)
    references = sampling.sample_references(rainy, rain_map, rule)
    np.testing.assert_array_equal(references.choices, a[f"{compared}_choice"])
    assert len(references) == 50
    for draw, wanted in enumerate(a[f"{compared}_sdr"]):
        np.testing.assert_array_equal(references[draw], wanted)
    np.testing.assert_array_equal(references.fused(), a[f"{compared}_fuse"])
    np.testing.assert_allclose(
        sampling.mean_reference(rainy, rain_map, rule), a[f"{compared}_mean"], atol=2e-4
    )


def test_fused_references_equal_all_published_ones_byte_for_byte(pictures: list[dict[str, Any]]) -> None:
    for each in pictures:
        fused = sampling.sample_references(each["rainy"], each["map"]).fused()
        assert _sha256(fused) == each["fuse_sha256"], each["name"]


@pytest.mark.parametrize("name", ["nss_crop", "nss_edges"])
def test_pseudo_truths_are_drawn_from_the_published_distribution(name: str, shared: Path) -> None:
    _, a = _oracle(shared, name)
    references = sample_pseudo_truths(a["rainy"], a["ldgp"])
    truths = np.stack([references[draw] for draw in range(len(references))]).astype(np.float64)
    skipped = a["gen1_skipped"]
    assert (truths[:, skipped] == a["rainy"][skipped]).all()
    mean, variance = a["gen1_mean"].astype(np.float64), a["gen1_variance"].astype(np.float64)
    steady = variance < 1e-3
    np.testing.assert_allclose(truths[:, steady], np.broadcast_to(mean[steady], (50, steady.sum())), atol=0.1)
    z = (truths.mean(0) - mean)[~steady] / np.sqrt(variance[~steady] / 50)
    published = (a["gen1_pseudo_truth_seed0"].mean(0) - mean)[~steady] / np.sqrt(variance[~steady] / 50)
    assert abs(z.std() - 1) < 0.1
    assert abs(published.std() - 1) < 0.1
    assert abs(truths.var(0).sum() / (variance.sum() * 49 / 50) - 1) < 0.05


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
