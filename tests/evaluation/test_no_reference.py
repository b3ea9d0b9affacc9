"""NIQE and BRISQUE: refusals, and stability where the published form has none."""

from __future__ import annotations

import numpy as np
import pytest

from derain import DerainError
from derain.evaluation import brisque_live, brisque_stable, niqe_live, niqe_stable
from derain.evaluation import no_reference as nr


def textured(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(5)
    rough = random.normal(128, 40, (height, width, 1)) + random.normal(0, 10, (height, width, 3))
    return np.clip(rough, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("function", [niqe_live, niqe_stable])
def test_niqe_refuses_what_it_cannot_score(function) -> None:
    assert function(textured(96, 192)) > 0
    for bad, reason in (
        (textured(95, 300), "needs 96 pixels"),
        (textured(96, 191), "one block"),
        (np.full((200, 200, 3), 7, np.uint8), "too little texture"),
    ):
        with pytest.raises(DerainError, match=reason):
            function(bad)


@pytest.mark.parametrize("function", [brisque_live, brisque_stable])
def test_brisque_refuses_what_it_cannot_score(function) -> None:
    assert np.isfinite(function(textured(11, 12)))
    with pytest.raises(DerainError, match="needs 11 pixels"):
        function(textured(10, 30))
    with pytest.raises(DerainError, match="too little texture"):
        brisque_stable(np.full((30, 30, 3), 7, np.uint8))


def test_stable_scores_do_not_see_rounding_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flat sky with noise of 1e-9 grey levels: the published form moves, the stable one does not."""
    half_flat = textured(288, 288)
    half_flat[:100] = 200
    quiet = [f(half_flat) for f in (niqe_stable, brisque_stable, niqe_live, brisque_live)]
    grey = nr.matlab_grey
    noise = np.random.default_rng(0).normal(0, 1e-9, (288, 288))
    monkeypatch.setattr(nr, "matlab_grey", lambda rgb: grey(rgb) + noise)
    moved = [f(half_flat) for f in (niqe_stable, brisque_stable, niqe_live, brisque_live)]
    assert moved[:2] == pytest.approx(quiet[:2], abs=1e-8)
    assert abs(moved[2] - quiet[2]) + abs(moved[3] - quiet[3]) > 1e-4


def test_nearest_shape_is_the_first_minimum_over_the_grid() -> None:
    shapes, table = nr._shapes()
    assert (np.diff(table) > 0).all()
    values = np.concatenate([np.random.default_rng(0).uniform(0, 1, 200), table[[0, 5000, -1]], [np.nan]])
    for values_, table_ in ((values, table), (1 / values, 1 / table)):
        with np.errstate(invalid="ignore"):
            expected = [shapes[np.argmin(np.abs(table_ - v))] if v == v else shapes[0] for v in values_]
        np.testing.assert_array_equal(nr._nearest_shape(table_, values_), expected)
