"""Every optimizer by name: it learns, and a run in two parts equals one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from derain.errors import UsageError
from derain.training import train
from derain.training.optimizers import MuonWithAdamW, make_optimizer
from derain.training.recipe import Optimizer
from training.conftest import recipe
from training.test_loop import assert_equal, weights


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_a_run_in_two_parts_equals_one_run(photos: Path, tmp_path: Path, name: str) -> None:
    changes = {"optimizer": {"name": name, "rate": 1e-3, "weight_decay": 0.01}, "channels_last": True}
    train(recipe(photos, **changes), tmp_path / "whole")
    train(recipe(photos, **changes, steps=4), tmp_path / "parts")
    train(recipe(photos, **changes), tmp_path / "parts")
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_it_fits_a_small_network(name: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    optimizer = make_optimizer(Optimizer(name=name, rate=0.3 if name == "sgd" else 0.01), network)
    x = torch.rand(4, 3, 12, 12)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]


def test_muon_moves_kernels_by_orthogonal_steps_and_the_rest_as_adamw() -> None:
    torch.manual_seed(0)
    kernel, bias = nn.Parameter(torch.randn(6, 4, 3, 3)), nn.Parameter(torch.randn(6))
    before, other = kernel.detach().clone(), nn.Parameter(bias.detach().clone())
    optimizer = MuonWithAdamW([kernel, bias], rate=0.1)
    adamw = torch.optim.AdamW([other], 0.1, weight_decay=0)
    kernel.grad = torch.randn(6, 4, 3, 3)
    bias.grad = other.grad = torch.randn(6)
    optimizer.step()
    adamw.step()
    assert torch.equal(bias, other)
    step = (kernel.detach() - before).flatten(1)
    # Orthogonal up to what five Newton-Schulz steps leave (singular values of 0.7 to 1.2), scaled by
    # 0.2 * sqrt(larger side) times the rate.
    values = torch.linalg.svdvals(step) / (0.1 * 0.2 * 36**0.5)
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"name": "adam", "momentum": 0.5}, "'optimizer.momentum' is not used by adam"),
        ({"name": "sgd", "betas": [0.5, 0.5]}, "'optimizer.betas' is not used by sgd"),
        ({"name": "lion"}, "'optimizer.name': .*'adam', 'adamw', 'sgd' or 'muon', not 'lion'"),
    ],
)
def test_what_would_not_be_used_is_refused(photos: Path, optimizer: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe(photos, optimizer={"rate": 1e-3, **optimizer})
