"""Scores of a set: accumulated, averaged, counted, printed as JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from derain import DerainError, UsageError
from derain.evaluation import Scores, matlab_y_uint8


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


@given(st.permutations(range(5)))
@settings(max_examples=10)
def test_mean_is_of_decibels_and_order_does_not_matter(order: list[int]) -> None:
    scores = Scores("matlab_y_uint8")
    for i in order:
        scores.update(picture(i), picture(i + 10), names=[str(i)])
    found = scores.compute()
    values = [matlab_y_uint8(picture(i), picture(i + 10)) for i in range(5)]
    assert found.mean["psnr"] == math.fsum(v.psnr for v in values) / 5
    assert found.mean["ssim"] == math.fsum(v.ssim for v in values) / 5
    assert {p.name: p.values["psnr"] for p in found.pictures} == {
        str(i): v.psnr for i, v in enumerate(values)
    }


def test_batches_of_tensors_as_in_a_validation_loop() -> None:
    restored, clean = torch.rand(3, 3, 20, 24), torch.rand(3, 3, 20, 24)
    scores = Scores("matlab_y_double", quantise="floor")
    scores.update(restored[:2], clean[:2])
    scores.update(restored[2], clean[2])
    single = Scores("matlab_y_double", quantise="floor")
    for a, b in zip(restored, clean, strict=True):
        single.update(a, b)
    assert scores.compute() == single.compute()
    assert [p.name for p in scores.compute().pictures] == ["1", "2", "3"]


def test_a_bad_batch_adds_nothing() -> None:
    scores = Scores("rgb_psnr")
    scores.update(picture(0), picture(1))
    batch = torch.rand(2, 3, 16, 16)
    broken = batch.clone()
    broken[1, 0, 0, 0] = float("inf")
    with pytest.raises(DerainError, match="not finite"):
        scores.update(broken, batch)
    with pytest.raises(UsageError, match="2 restored, 1 clean, 2 names"):
        scores.update(batch, batch[:1])
    assert scores.compute().count == 1


def test_infinite_values_are_counted_and_left_out_beside_the_mean() -> None:
    scores = Scores("matlab_y_uint8")
    scores.update(picture(0), picture(0))
    scores.update(picture(1), picture(2))
    found = scores.compute()
    assert (found.count, found.infinite, found.mean["psnr"]) == (2, 1, math.inf)
    expected = matlab_y_uint8(picture(1), picture(2))
    assert found.mean_finite == {"psnr": expected.psnr, "ssim": expected.ssim}
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["mean"]["psnr"] is None
    assert content["pictures"][0] == {"name": "1", "psnr": None, "ssim": 1.0}
    assert content["mean_finite"]["psnr"] == expected.psnr


def test_json_has_the_documented_shape() -> None:
    scores = Scores("matlab_y_uint8")
    scores.update(picture(0), picture(1), names=["a.png"])
    value = matlab_y_uint8(picture(0), picture(1))
    expected = {"psnr": value.psnr, "ssim": value.ssim}
    assert scores.compute().to_json() == {
        "pictures": [{"name": "a.png", **expected}],
        "mean": expected,
        "count": 1,
        "infinite": 0,
    }


def test_without_truth() -> None:
    scores = Scores("brisque_stable")
    scores.update(torch.rand(2, 3, 32, 32))
    assert list(scores.compute().mean) == ["brisque"]
