"""Tiles: they cover, their weights sum to one, and bounded networks see no difference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from derain.nn.padding import pad_to
from derain.restore.tiles import Axis, even_axis, published_axis, run_tiles


def total(axis: Axis, length: int) -> Tensor:
    weights = torch.zeros(length)
    for (first, last), weight in zip(axis.spans, axis.weights, strict=True):
        assert 0 <= first < last <= length
        weights[first:last] += weight
    return weights


@given(
    units=st.integers(1, 300),
    multiple=st.sampled_from([1, 8, 16, 64]),
    size=st.integers(1, 900),
    overlap=st.integers(0, 400),
    hard_cut=st.booleans(),
)
def test_even_tiles(units: int, multiple: int, size: int, overlap: int, hard_cut: bool) -> None:
    length = units * multiple
    axis = even_axis(length, size, overlap, multiple, hard_cut)
    torch.testing.assert_close(total(axis, length), torch.ones(length))
    assert len({last - first for first, last in axis.spans}) == 1
    assert all(first % multiple == 0 and last % multiple == 0 for first, last in axis.spans)
    assert axis.spans[0][1] - axis.spans[0][0] <= max(size, multiple)


@given(length=st.integers(1, 2000), size=st.integers(1, 600), overlap=st.integers(0, 599))
def test_published_tiles(length: int, size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    axis = published_axis(length, size, overlap)
    torch.testing.assert_close(total(axis, length), torch.ones(length))
    assert axis.spans[-1][1] == length
    starts = [first for first, _ in axis.spans]
    assert starts[:-1] == list(range(0, max(length - size, 0), size - overlap))


@settings(max_examples=30)
@given(
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    size=st.integers(16, 60),
    seed=st.integers(0, 2**31),
)
def test_tiled_equals_whole_for_a_bounded_network(height: int, width: int, size: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    kernel = torch.randint(-8, 8, (1, 3, 7, 7), generator=random).double()  # integers: sums are exact
    picture = torch.randint(0, 255, (1, 3, height, width), generator=random).double()

    def network(x: Tensor) -> dict[str, Tensor]:
        return {"image": F.conv2d(x, kernel, padding=3)}

    axes = [even_axis(length, size, 2 * (3 + 2), 1, hard_cut=True) for length in (height, width)]
    counted: list[tuple[int, int]] = []
    tiled = run_tiles(picture, network, *axes, lambda *count: counted.append(count))["image"]
    assert torch.equal(tiled, network(picture)["image"].float())
    assert counted[-1][0] == counted[-1][1] == len(axes[0].spans) * len(axes[1].spans)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 40), st.integers(0, 40))
def test_padding_reflects_without_repeating_the_edge(height: int, width: int, down: int, right: int) -> None:
    x = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    padded = pad_to(x, height + down, width + right)
    assert padded.shape == (1, 1, height + down, width + right)
    assert torch.equal(padded[..., :height, :width], x)
    if 0 < down < height and 0 < right < width:
        assert torch.equal(padded, F.pad(x, (0, right, 0, down), mode="reflect"))
