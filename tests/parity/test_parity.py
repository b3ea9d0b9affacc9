"""What this package computes equals what the published implementations computed, for everybody to see.

A selection of the full oracles, small enough to lie here; `rule.py` makes the weights and pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from derain import evaluation
from derain.background import clean_frame
from derain.methods import all_architectures
from derain.methods.contract import AbsoluteError
from derain.methods.nerd_rain.loss import NeRDRainLoss
from derain.methods.rain2avoid import sampling
from derain.methods.rain2avoid.ldgp import rain_prior
from derain.methods.spanet.loss import SPANetLoss
from derain.methods.udr_s2former.loss import negative_psnr, uncertainty_term
from parity.rule import filled, levels, picture, sampled, uniform

HERE = Path(__file__).parent
FACTS: dict[str, Any] = json.loads((HERE / "numbers.json").read_text())


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(HERE / "numbers.npz") as stored:
        return dict(stored)


def network_of(architecture: str, config: Mapping[str, Any], gain: Mapping[str, float] = {}) -> Any:
    (found,) = (a for a in all_architectures() if a.name == architecture)
    network = found.build(**config)
    network.load_state_dict(filled(network.state_dict(), gain))
    return network.eval()


def pictures_of(names: list[str], height: int, width: int) -> Tensor:
    return torch.cat([picture(name, height, width) for name in names]).double()


@pytest.mark.parametrize("case", FACTS["networks"])
@pytest.mark.parametrize("form", ["plain", "fast"])
def test_networks(case: str, form: str, arrays: dict[str, np.ndarray]) -> None:
    about = FACTS["networks"][case]
    network = network_of(about["architecture"], about["config"], about["gain"])
    rainy = picture(**about["input"])
    with torch.no_grad():
        image = getattr(network, form)(rainy.flip(1) if about["bgr"] else rainy)["image"]
    image = image.flip(1) if about["bgr"] else image
    difference = np.abs(sampled(image) - arrays[f"networks/{case}"])
    allowed = about["allowed"]
    assert difference.max() <= allowed.get("max", allowed.get("max_by_std", 0) * about["std"])
    assert difference.mean() <= allowed.get("mean", np.inf)


def test_loss_of_spanet(arrays: dict[str, np.ndarray]) -> None:
    about = FACTS["spanet_loss"]
    network = network_of("spanet", about["config"], {"_weight.weight": 0.5})
    rainy, clean = (
        torch.from_numpy(arrays[f"spanet_loss/{side}"]).permute(0, 3, 1, 2).flip(1).float() / 255
        for side in ("rainy", "clean")
    )
    terms = SPANetLoss()(network.outputs(rainy), clean, rainy)
    wanted = about["float64"]
    assert terms["l1"].item() == pytest.approx(wanted["l1"], abs=3e-5)
    assert terms["mask"].item() == pytest.approx(wanted["mask"], abs=3e-5)
    assert terms["dissimilarity"].item() == pytest.approx(1 - wanted["ssim"], abs=3e-5)


def test_loss_of_nerd_rain() -> None:
    about = FACTS["nerd_rain_loss"]
    names = ("image", "half", "quarter", "inr_half", "half_input", "inr_quarter")
    predictions = [picture(**each).double() for each in about["predictions"]]
    outputs = dict(zip(names, predictions[: len(names)], strict=True))
    clean = picture(**about["target"]).double()
    terms = NeRDRainLoss()(outputs, clean, clean)
    assert float(sum(terms.values())) == pytest.approx(about["float64"]["total"], rel=1e-6)


def test_loss_of_udr_s2former() -> None:
    about = FACTS["udr_s2former_loss"]
    network = network_of("udr_s2former", about["config"]).double()
    rainy, clean = (pictures_of(about[side], 64, 64) for side in ("inputs", "targets"))
    outputs, wanted = network.outputs(rainy), about["float64"]
    final = negative_psnr(outputs["image"], clean).item()
    assert final == pytest.approx(wanted["psnr_terms"]["out_final"], rel=1e-5)
    first = uncertainty_term(outputs["scale0"], clean, outputs["uncertainty0"]).item()
    assert first == pytest.approx(wanted["uncertainty_terms"]["out0"], rel=1e-5)


def test_training_of_drsformer() -> None:
    about = FACTS["drsformer_training"]
    network = network_of("drsformer", about["config"]).double().train()
    size = about["height"], about["width"]
    rainy, clean = (pictures_of(about[side], *size) for side in ("inputs", "targets"))
    settings = {name: value for name, value in about["optimizer"].items() if name != "type"}
    optimizer = torch.optim.AdamW(network.parameters(), **settings)
    for row in about["rows"]:
        optimizer.zero_grad()
        loss = sum(AbsoluteError()(network.outputs(rainy), clean, rainy).values())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 0.01)
        assert loss.item() == pytest.approx(row["loss"], rel=1e-6)
        assert norm.item() == pytest.approx(row["grad_norm_before_clipping"], rel=1e-4)
        optimizer.step()


@pytest.mark.parametrize("case", FACTS["protocols"], ids=lambda case: case["name"])
def test_protocols(case: dict[str, Any]) -> None:
    size = case["height"], case["width"]
    clean = levels(case["name"], *size)
    error = np.floor(case["amplitude"] * uniform(f"{case['name']}/error", (*size, 3)) + 0.5)
    restored = np.clip(clean + error, 0, 255).astype(np.uint8)
    for protocol, wanted in case["values"].items():
        score = getattr(evaluation, protocol)(restored, clean.astype(np.uint8))
        assert score.psnr == pytest.approx(wanted["psnr"], abs=1e-9)
        assert score.ssim == pytest.approx(wanted["ssim"], abs=1e-9)


def test_rain_prior() -> None:
    about = FACTS["prior"]
    found = rain_prior(levels(about["name"], about["height"], about["width"]).astype(np.uint8)).map
    assert found.any()
    assert hashlib.sha256(found.tobytes()).hexdigest() == about["sha256"]


@pytest.mark.parametrize("compared", ["rain", "nonrain"])
def test_sampling(compared: Any, arrays: dict[str, np.ndarray]) -> None:
    references = sampling.sample_references(
        arrays["sampling/rainy"], arrays["sampling/ldgp"], sampling.Similarity(compared)
    )
    np.testing.assert_array_equal(references.choices, arrays[f"sampling/{compared}_choice"])
    np.testing.assert_array_equal(references.fused(), arrays[f"sampling/{compared}_fuse"])


@pytest.mark.parametrize("variant", ["fixed", "official"])
def test_clean_frame(variant: Any, arrays: dict[str, np.ndarray]) -> None:
    found = clean_frame(np.ascontiguousarray(arrays["clean_frame/clip"]), variant)
    np.testing.assert_array_equal(found.votes, arrays[f"clean_frame/votes_{variant}"])
    np.testing.assert_array_equal(found.picture, arrays[f"clean_frame/final_{variant}"])
