"""Flips, turns and phases: what goes in comes out, and each equals its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import derain
from derain.evaluation.candidates import from_network, with_option
from derain.restore import Settings
from derain.restore.test_time import (
    TURNS,
    join_phases,
    positions,
    split_phases,
    turned,
    turned_back,
    with_test_time,
)


@given(batch=st.integers(1, 3), height=st.integers(1, 9), width=st.integers(1, 9))
@settings(max_examples=20)
def test_phases_come_back(batch: int, height: int, width: int) -> None:
    pictures = torch.rand(batch, 3, height, width)
    phases = split_phases(pictures)
    assert phases.shape == (4 * batch, 3, -(-height // 2), -(-width // 2))
    assert torch.equal(join_phases(phases, height, width), pictures)
    assert torch.equal(phases[2], split_phases(pictures[:1])[2])


def test_a_phase_is_every_other_pixel() -> None:
    picture = torch.arange(24.0).reshape(1, 1, 4, 6)
    assert split_phases(picture)[1, 0].tolist() == [[1, 3, 5], [13, 15, 17]]
    assert split_phases(picture)[2, 0].tolist() == [[6, 8, 10], [18, 20, 22]]


def test_positions_come_back_and_are_all_different() -> None:
    picture = torch.rand(1, 3, 4, 4)
    assert len({tuple(turned(picture, p).flatten().tolist()) for p in TURNS}) == 8
    for position in TURNS:
        assert torch.equal(turned_back(turned(picture[..., :3], position), position), picture[..., :3])
    assert [len(positions(x)) for x in (False, "flips", "turns", True)] == [1, 4, 8, 4]
    assert positions(True, "turns") == TURNS
    assert all(turned(picture[..., :3], p).shape == (1, 3, 4, 3) for p in positions("flips"))


def darker_to_the_right(rainy: torch.Tensor) -> torch.Tensor:
    return rainy * torch.linspace(1, 0, rainy.shape[-1])


def test_an_average_over_positions_has_no_side() -> None:
    white = torch.ones(1, 3, 6, 6)
    for name in ("flips", "turns"):
        restored = with_test_time(darker_to_the_right, name)(white)
        torch.testing.assert_close(restored, torch.full_like(white, 0.5))
    found = with_test_time(darker_to_the_right, "phases")(white)
    torch.testing.assert_close(found[0, 0, 3], torch.tensor([1, 1, 0.5, 0.5, 0, 0]))


class Shade(derain.RainNetwork):
    """`darker_to_the_right`, with a map; its results stay in the range."""

    spec = derain.Spec(maps=("mask",))

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.9))

    def plain(self, rainy: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image": self.scale * darker_to_the_right(rainy), "mask": rainy[:, :1]}

    def activation_bytes(self, height: int, width: int) -> int:
        return 28 * height * width


def test_a_derainer_does_the_same() -> None:
    restore = derain.load(Shade(), device="cpu")
    rainy = torch.rand(2, 3, 21, 18)
    plain = lambda x: restore.restore(x).image  # noqa: E731
    for changes in ({"phases": True}, {"ensemble": "flips"}, {"ensemble": "turns"}):
        name = "phases" if "phases" in changes else changes["ensemble"]
        found = restore.with_settings(**changes).restore(rainy).image
        torch.testing.assert_close(found, with_test_time(plain, name)(rainy), atol=2e-5, rtol=0)
    maps = restore.with_settings(phases=True).restore(rainy, with_maps=True).maps
    assert torch.equal(maps["mask"], rainy[:, :1])
    with pytest.raises(derain.UsageError, match="choose flips or turns"):
        Settings(ensemble="sides")


def test_a_candidate_with_an_option_is_another_one() -> None:
    network = from_network(torch.nn.Conv2d(3, 3, 1), "theirs")
    found = with_option(network, "flips")
    assert (found.name, found.identity) == ("theirs+flips", f"{network.identity} flips")
    assert found.multiply_adds(8, 8) == 4 * network.multiply_adds(8, 8)
    with pytest.raises(derain.UsageError, match="Did you mean 'flips'"):
        with_option(network, "flip")
