"""What SPANet's loss has beyond the paper; its published terms are compared with the oracles."""

from __future__ import annotations

import torch

from derain.methods.spanet.loss import SPANetLoss


def _log_mse(errors: tuple[float, ...]) -> float:
    """The term of weight 0.1 for pictures that are so much brighter than they should be."""
    clean = torch.full((len(errors), 3, 8, 8), 0.25)
    restored = clean + torch.tensor(errors).view(-1, 1, 1, 1)
    outputs = {"image": restored, "mask": torch.zeros(len(errors), 1, 8, 8)}
    terms = SPANetLoss(log_mse=0.1)(outputs, clean, clean)
    return float(terms["log_mse"])


def test_a_better_picture_counts_as_many_decibels_as_a_worse_one() -> None:
    good, bad = 0.02, 0.2
    before = _log_mse((good, bad))
    for after in (_log_mse((good / 2, bad)), _log_mse((good, bad / 2))):
        assert abs((before - after) - 0.1 * torch.log10(torch.tensor(4.0)).item() / 2) < 0.002


def test_a_perfect_picture_has_a_finite_loss() -> None:
    assert abs(_log_mse((0.0,)) - 0.1 * -5) < 1e-6


def test_the_published_loss_has_no_such_term() -> None:
    pictures = torch.rand(1, 3, 8, 8)
    outputs = {"image": pictures, "mask": torch.zeros(1, 1, 8, 8)}
    assert set(SPANetLoss()(outputs, pictures, pictures)) == {"l1", "dissimilarity", "mask"}
