import numpy as np
import pytest

from background import plain
from derain.background import votes
from derain.errors import UsageError


def test_luma_of_every_colour_is_the_integer_formula() -> None:
    blue = np.arange(256)
    for red in range(0, 256, 3):
        colours = np.stack(np.broadcast_arrays(red, np.arange(256)[:, None], blue), -1).reshape(1, -1, 3)
        expected = (299 * colours[0, :, 0] + 587 * colours[0, :, 1] + 114 * colours[0, :, 2]) // 1000
        (found,) = votes.luma(colours.astype(np.uint8), np.zeros(65536, np.int64), "fixed")
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("height", "width"), [(13, 18), (96, 128), (1, 9), (7, 3), (2, 4), (31, 27)])
def test_who_votes_in_the_official_variant(height: int, width: int) -> None:
    expected = plain.may_vote(height, width, "official")
    np.testing.assert_array_equal(votes.voters(height, width, "official"), expected)
    assert votes.voters(height, width, "fixed").all()


def test_13_by_18_loses_42_votes() -> None:
    assert votes.voters(13, 18, "official").sum() == 192


def test_float_ranks_lose_votes_that_fall_on_an_integer() -> None:
    fixed, official = votes.ballot(100, "fixed"), votes.ballot(100, "official")
    assert [r for r in range(100) if fixed.start[r] != official.start[r]] == [7, 14, 28, 55, 56]
    assert [r for r in range(100) if fixed.stop[r] != official.stop[r]] == [29, 57, 58]


def test_a_misspelt_variant_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="official"):
        votes.check_variant("offical")
