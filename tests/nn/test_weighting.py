"""Weighted maps side by side against products and a concatenation."""

from __future__ import annotations

import torch
from torch import Tensor

from derain.nn.weighting import weighted_cat


def plainly(maps: list[Tensor], weights: Tensor) -> Tensor:
    return torch.cat([weights[:, n, None, None, None] * each for n, each in enumerate(maps)], 1)


def test_values_and_gradients_are_those_of_the_plain_form() -> None:
    given = [torch.randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_() for _ in range(4)]
    logits = torch.randn(2, 4, dtype=torch.float64).requires_grad_()
    target = torch.randn(2, 12, 4, 5, dtype=torch.float64)
    found = []
    for form in (weighted_cat, plainly):
        y = form(given, logits.softmax(-1))
        found.append([y, *torch.autograd.grad((y - target).square().sum(), [logits, *given])])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(weighted_cat(given, logits.softmax(-1)), found[1][0])


def test_a_weight_of_zero_passes_no_gradient() -> None:
    given = [torch.ones(1, 2, 3, 3, requires_grad=True) for _ in range(2)]
    logits = torch.tensor([[0.0, -1000.0]], requires_grad=True)
    weighted_cat(given, logits.softmax(-1)).sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(1, 2))
    assert given[1].grad is not None
    assert torch.equal(given[1].grad, torch.zeros(1, 2, 3, 3))


def test_maps_are_not_kept() -> None:
    maps = [torch.randn(1, 2, 8, 8).requires_grad_() for _ in range(3)]
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = weighted_cat(maps, torch.randn(1, 3).softmax(-1))
    assert {tensor.data_ptr() for tensor in kept if tensor.dim() == 4} == {y.data_ptr()}
