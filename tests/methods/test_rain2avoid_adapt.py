"""Learning from the rainy picture alone: what is learnt, when it ends, what stays as it was."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from derain.errors import DerainError
from derain.methods import create_network
from derain.methods.network import RainNetwork
from derain.methods.rain2avoid import fitting
from derain.methods.rain2avoid.backbones import UNet
from derain.methods.rain2avoid.batches import batches
from derain.methods.rain2avoid.ldgp import FIRST_PAPER, rain_prior
from derain.methods.rain2avoid.learning import Rain2Avoid
from derain.methods.rain2avoid.presets import PRESETS, Preset, Schedule
from derain.methods.rain2avoid.targets import agreed_change
from derain.methods.self_supervision import FitOptions, Target
from derain.restore import adapting
from derain.restore.adapting import Adapted, apply

QUICK = replace(PRESETS["quick"], alone=Schedule(40, 2, 64))
PUBLISHED = replace(PRESETS["published"], alone=Schedule(6), together=Schedule(2, 4, 64))


def rainy_and_clean(height: int = 96, width: int = 128, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A smooth picture with thin bright vertical streaks of one brightness, on 8-bit levels."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    clean = np.stack([0.4 + 0.15 * np.sin(x / 31 + c) + 0.1 * np.cos(y / 23 - c) for c in range(3)])
    light = np.zeros((height, width))
    for _ in range(height * width // 500):
        top, left = random.integers(-20, height), random.integers(0, width - 2)
        light[max(top, 0) : top + 30, left : left + 2] = 0.2
    levels = [np.rint(255 * np.clip(values, 0, 1)) / 255 for values in (clean + light, clean)]
    rainy, clean = (torch.from_numpy(values).float()[None] for values in levels)
    return rainy, clean


def fresh() -> UNet:
    torch.manual_seed(0)
    return UNet(width=8)


def adapt_one(rainy: Tensor, network: RainNetwork, preset: Preset, **options: Any) -> Adapted:
    return adapting.adapt_one(rainy, network, Rain2Avoid(preset), FitOptions(**options))


def target_of(rainy: Tensor, preset: Preset, trained: RainNetwork | None = None) -> Target:
    return Rain2Avoid(preset).target(rainy, None if trained is None else apply(trained, rainy))


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean())


def test_the_quick_preset_takes_most_of_the_rain_away() -> None:
    rainy, clean = rainy_and_clean()
    adapted = adapt_one(rainy, fresh(), QUICK)
    assert error(adapted.image, clean) < 0.2 * error(rainy, clean)
    assert adapted.fit is not None
    assert adapted.fit.losses[-1] < adapted.fit.losses[0]
    assert adapted.fit.ended == "steps"


def test_half_precision_learns_the_same() -> None:
    rainy, clean = rainy_and_clean()
    full = adapt_one(rainy, fresh(), QUICK)
    half = adapt_one(rainy, fresh(), QUICK, precision=torch.bfloat16)
    assert full.fit is not None
    assert half.fit is not None
    assert half.fit.losses != full.fit.losses
    assert {p.dtype for p in half.fit.network.parameters()} == {torch.float32}
    assert error(half.image, full.image) < 0.1 * error(full.image, rainy)
    assert error(half.image, clean) < 0.2 * error(rainy, clean)


def test_pixels_without_suspicion_stay_and_none_becomes_brighter() -> None:
    rainy, _ = rainy_and_clean()
    adapted = adapt_one(rainy, fresh(), QUICK)
    stay = ~adapted.target.suspected.expand_as(rainy)
    assert 0.3 < stay.float().mean() < 1
    assert torch.equal(adapted.image[stay], rainy[stay])
    assert (adapted.image <= rainy).all()


def test_the_same_picture_gives_the_same_result() -> None:
    rainy, _ = rainy_and_clean()
    short = replace(QUICK, alone=Schedule(5, 2, 64))
    torch.manual_seed(1)
    first = adapt_one(rainy, fresh(), short).image
    torch.rand(7)
    assert torch.equal(first, adapt_one(rainy, fresh(), short).image)


def test_the_published_schedule_goes_through_the_references_in_the_order_of_their_file_names() -> None:
    rainy, _ = rainy_and_clean()
    target = target_of(rainy, PUBLISHED)
    assert target.references is not None
    pairs = batches([target], fresh(), PUBLISHED.alone)
    for draw in (0, 1, 10, 11, 12):
        seen, clean = next(pairs)
        assert torch.equal(seen, rainy)
        assert torch.equal(
            (clean[0] * 255).round().byte().permute(1, 2, 0), torch.from_numpy(target.references[draw])
        )


def test_published_steps_are_plain_adam_on_the_whole_picture() -> None:
    rainy, _ = rainy_and_clean()
    target = target_of(rainy, PUBLISHED)
    fit = Rain2Avoid(PUBLISHED).fit([target], fresh(), FitOptions())
    network = fresh().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    losses = []
    for draw in (0, 1, 10, 11, 12, 13):
        assert target.references is not None
        clean = torch.from_numpy(target.references[draw]).permute(2, 0, 1)[None] / 255
        loss = nn.functional.mse_loss(network(rainy), clean)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(fit.losses, losses, rtol=1e-4)
    with torch.no_grad():
        expected = network.eval()(rainy).clamp(0, 1)
    torch.testing.assert_close(
        Rain2Avoid(PUBLISHED).finished(target, apply(fit.network, rainy)), expected, atol=1e-4, rtol=0
    )


def test_learning_ends_when_the_loss_no_longer_falls() -> None:
    assert not fitting.has_settled([1.0] * (2 * fitting.PATIENCE - 1))
    assert fitting.has_settled([1.0] * (2 * fitting.PATIENCE))
    assert not fitting.has_settled(np.linspace(1, 0.1, 2 * fitting.PATIENCE).tolist())


def test_learning_ends_with_the_time_and_has_a_result() -> None:
    rainy, clean = rainy_and_clean()
    endless = replace(QUICK, alone=Schedule(10**9, 2, 64))
    adapted = adapt_one(rainy, fresh(), endless, seconds=2)
    assert "time was up" in adapted.note
    assert error(adapted.image, clean) < 0.5 * error(rainy, clean)


def test_without_time_the_result_is_the_reference() -> None:
    rainy, _ = rainy_and_clean()
    adapted = adapt_one(rainy, fresh(), replace(QUICK, alone=Schedule(10**9, 2, 64)), seconds=0)
    assert torch.equal(adapted.image, adapted.target.mean)
    assert "too little time to train" in adapted.note


@pytest.mark.parametrize("preset", [QUICK, PUBLISHED])
def test_a_flat_picture_stays_as_it_is(preset: Preset) -> None:
    flat = torch.full((1, 3, 70, 90), 0.5)
    adapted = adapt_one(flat, fresh(), preset)
    assert torch.equal(adapted.image, flat)
    assert adapted.fit is None
    assert "no rain" in adapted.note


def test_a_smooth_picture_without_rain_is_warned_of_and_hardly_changed() -> None:
    _, clean = rainy_and_clean()
    adapted = adapt_one(clean, fresh(), replace(QUICK, alone=Schedule(5, 2, 64)))
    assert "rain" in adapted.note
    assert error(adapted.image, clean) < 1e-4


def test_a_picture_that_is_too_small_is_refused() -> None:
    with pytest.raises(DerainError, match="20x64"):
        adapt_one(torch.rand(1, 3, 64, 20), fresh(), QUICK)


@pytest.mark.parametrize("name", ["rain2avoid_unet", "rain2avoid_resnet", "rain2avoid_dncnn", "spanet"])
def test_any_network_of_the_registry_can_learn(name: str) -> None:
    rainy, _ = rainy_and_clean(45, 33)
    tiny = {"spanet": {"width": 8}, "rain2avoid_dncnn": {"depth": 4, "width": 8}}.get(name, {"width": 8})
    adapted = adapt_one(rainy, create_network(name, **tiny), replace(QUICK, alone=Schedule(2, 1, 64)))
    assert adapted.image.shape == rainy.shape
    assert torch.isfinite(adapted.image).all()


def test_large_pictures_go_through_in_tiles_without_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fresh().eval()
    picture = torch.rand(1, 3, 300, 420)
    whole = apply(network, picture)
    monkeypatch.setattr(adapting, "TILE", 256)
    tiled = apply(network, picture)
    torch.testing.assert_close(tiled, whole, atol=1e-2, rtol=0)  # the borders of tiles fade out


def test_statistics_become_those_of_the_picture() -> None:
    network = fresh()
    fitting.start_at_identity(network)
    rainy, _ = rainy_and_clean()
    with torch.no_grad():
        expected = network.train()(rainy)
    fitting.set_statistics(network, [rainy], "cpu")
    torch.testing.assert_close(apply(network, rainy), expected, atol=1e-2, rtol=0)


def test_a_network_that_derains_already_makes_a_better_reference() -> None:
    class Perfect(RainNetwork):
        def __init__(self, clean: Tensor) -> None:
            super().__init__()
            self.clean = nn.Parameter(clean)

        def plain(self, rainy: Tensor) -> dict[str, Tensor]:
            return {"image": self.clean + 0 * rainy}

    rainy, clean = rainy_and_clean(96, 96)
    network = Perfect(clean)
    target = target_of(rainy, QUICK, network)
    assert error(target.mean, clean) < 0.4 * error(target_of(rainy, QUICK).mean, clean)
    stay = ~target.suspected.expand_as(rainy)
    assert torch.equal(target.mean[stay], rainy[stay])


def test_a_trained_network_makes_no_pixel_brighter() -> None:
    class White(RainNetwork):
        def plain(self, rainy: Tensor) -> dict[str, Tensor]:
            return {"image": torch.ones_like(rainy)}

    rainy, _ = rainy_and_clean()
    target = target_of(rainy, QUICK, White())
    assert (target.mean <= rainy).all()


def test_a_quick_result_is_the_average_over_the_four_flips() -> None:
    class DarkOnTheLeft(RainNetwork):
        def plain(self, rainy: Tensor) -> dict[str, Tensor]:
            return {"image": rainy * torch.linspace(0, 1, rainy.shape[-1])}

    rainy = torch.full((1, 3, 64, 96), 0.5)
    everywhere = torch.ones(1, 1, 64, 96, dtype=torch.bool)
    target = Target(rainy, np.zeros((64, 96), np.uint8), None, rainy, everywhere, "")
    quick, published = (
        adapting.restore_target(target, DarkOnTheLeft(), Rain2Avoid(preset)) for preset in (QUICK, PUBLISHED)
    )
    torch.testing.assert_close(quick, torch.full_like(rainy, 0.375))  # half of it is the target's mean
    torch.testing.assert_close(published, rainy * torch.linspace(0, 1, 96))


def test_the_prior_counts_as_much_as_it_agrees_with_the_trained_network() -> None:
    random = np.random.default_rng(0)
    trained, found = -random.random((2, 40, 50, 3)).astype(np.float32)
    left, right = trained.copy(), trained.copy()
    left[:, 25:], right[:, :25] = 0, 0
    assert np.allclose(agreed_change(trained, trained), trained)
    assert np.allclose(agreed_change(2 * trained, trained), 1.5 * trained)
    assert np.array_equal(agreed_change(left, right), right)
    assert np.array_equal(agreed_change(-found, trained), trained)
    assert np.array_equal(agreed_change(0 * found, trained), trained)
    assert np.array_equal(agreed_change(found, 0 * trained), 0 * trained)


def test_lines_of_the_scene_stay_when_the_trained_network_knows_them() -> None:
    """A fence looks like rain to the prior, which takes it away; the network sees the rain only."""

    class Knowing(RainNetwork):
        def plain(self, rainy: Tensor) -> dict[str, Tensor]:
            return {"image": rainy.minimum(clean)}

    rainy, clean = rainy_and_clean(96, 128)
    fence = 0.35 * (torch.arange(128) % 8 < 2).float()
    rainy, clean = (rainy / 2 + fence).clamp(0, 1), (clean / 2 + fence).clamp(0, 1)
    alone, both = target_of(rainy, QUICK), target_of(rainy, QUICK, Knowing())
    assert error(alone.mean, clean) > 5 * error(rainy, clean)
    assert error(both.mean, clean) < 0.1 * error(rainy, clean)


def test_many_pictures_teach_one_network() -> None:
    pairs = [rainy_and_clean(80, 100, seed) for seed in (1, 2)]
    way = Rain2Avoid(replace(QUICK, together=Schedule(50, 4, 64)))
    fit = way.fit([way.target(rainy) for rainy, _ in pairs], fresh(), FitOptions(together=True))
    rainy, clean = rainy_and_clean(80, 100, 3)  # never seen
    assert error(apply(fit.network, rainy), clean) < 0.6 * error(rainy, clean)


def test_the_first_papers_form_draws_uniformly_and_takes_the_pictures_own_statistics() -> None:
    rainy, _ = rainy_and_clean()
    preset = replace(PRESETS["icassp2023"], alone=Schedule(2))
    levels = (rainy[0].permute(1, 2, 0) * 255).round().byte().numpy()
    target = target_of(rainy, preset)
    np.testing.assert_array_equal(target.rain_map, rain_prior(levels, FIRST_PAPER).map)
    assert target.references is not None
    changed = (target.references[0] != levels).any(-1)
    assert changed[target.rain_map > 0].mean() > 0.8
    assert not changed[target.rain_map == 0].any()
    network = Rain2Avoid(preset).fit([target], fresh(), FitOptions()).network
    with torch.no_grad():
        found, trained = network(rainy), copy.deepcopy(network).train()(rainy)
    assert error(found, trained) < 1e-3 * error(found, rainy)
