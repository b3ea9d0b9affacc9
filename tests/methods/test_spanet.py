"""SPANet's fast form, whole and in strips of rows, equals the plain one."""

from __future__ import annotations

import itertools

import pytest
import torch

from derain.methods.spanet.fast import RowRange, strips_of
from derain.methods.spanet.network import SPANet


@pytest.mark.parametrize("edges", [(0, 97), (0, 16, 97), (0, 33, 65, 97), (0, 16, 32, 48, 64, 80, 97)])
def test_equals_the_plain_form(edges: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    network = SPANet(width=8).eval().double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "irnn" in name and name.endswith("_weight.weight"):
                parameter.uniform_(0.7, 0.99)  # sweeps that remember the whole picture
    rainy = torch.rand(2, 3, 97, 41, dtype=torch.float64)
    cut = [RowRange(*pair) for pair in itertools.pairwise(edges)]
    monkeypatch.setattr("derain.methods.spanet.network.strips_of", lambda _height, _width: cut)
    with torch.no_grad():
        torch.testing.assert_close(network.fast(rainy), network.plain(rainy), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(1, 1 << 20), (700, 800), (3024, 4032), (8000, 50)])
def test_strips_cover_the_picture(height: int, width: int) -> None:
    cut = strips_of(height, width)
    assert [first for first, _ in cut] == [0, *(last for _, last in cut[:-1])]
    assert cut[-1].last == height
    assert len(cut) == 1 or min(last - first for first, last in cut) >= 16
