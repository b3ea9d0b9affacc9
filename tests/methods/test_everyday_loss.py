"""An error costs more in the everyday loss where faint rain is left than where too much was taken."""

from __future__ import annotations

import torch

from derain.methods.everyday.loss import EverydayLoss


def _l1(rain: float, error: float) -> float:
    clean = torch.full((1, 3, 16, 16), 0.25)
    terms = EverydayLoss(residual=0.5)({"image": clean + error}, clean, clean + rain)
    return float(terms["l1"])


def test_faint_rain_that_is_left_costs_more_than_what_was_taken_too_much() -> None:
    assert abs(_l1(rain=0.14, error=0.1) - 0.125) < 1e-6  # half-way between the faintest and bright rain
    assert abs(_l1(rain=0.14, error=-0.1) - 0.1) < 1e-6


def test_where_rain_is_bright_both_errors_cost_the_same() -> None:
    assert abs(_l1(rain=0.3, error=0.1) - 0.1) < 1e-6
    assert abs(_l1(rain=0.3, error=-0.1) - 0.1) < 1e-6


def test_where_it_does_not_rain_both_errors_cost_the_same() -> None:
    assert abs(_l1(rain=0.0, error=0.1) - 0.1) < 1e-6
    assert abs(_l1(rain=0.0, error=-0.1) - 0.1) < 1e-6


def test_lost_texture_costs_more_than_an_even_error_of_the_same_size() -> None:
    clean = 0.5 + 0.1 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    grey = clean.mean((2, 3), keepdim=True).expand_as(clean)
    even = clean + (clean - grey).abs().mean()
    loss = EverydayLoss(dissimilarity=0.5)
    flat_terms, even_terms = (loss({"image": image}, clean, clean) for image in (grey, even))
    assert abs(float(flat_terms["l1"] - even_terms["l1"])) < 1e-6
    assert float(flat_terms["dissimilarity"]) > 10 * float(even_terms["dissimilarity"]) > 0
    assert abs(float(loss({"image": clean}, clean, clean)["dissimilarity"])) < 1e-6
    assert "dissimilarity" not in EverydayLoss()({"image": clean}, clean, clean)
