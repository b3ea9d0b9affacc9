"""Hidden widths tell a factor that gives them back."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from derain.errors import DerainError
from derain.nn.expansion import expansion_factor


@example(dim=15, factor=4.109375)
@given(dim=st.integers(1, 64), factor=st.floats(0.6, 6))
def test_expansion_factor_gives_the_hidden_widths_back(dim: int, factor: float) -> None:
    widths = [dim, 2 * dim, 4 * dim]
    hidden = [int(width * factor) for width in widths]
    found = expansion_factor(widths, hidden)
    assert [int(width * found) for width in widths] == hidden


def test_expansion_factor_prefers_the_published_one() -> None:
    assert expansion_factor([4, 8, 16], [10, 21, 42]) == 2.66
    assert expansion_factor([8, 16, 32], [16, 32, 64]) == 2
    with pytest.raises(DerainError, match="ffn_expansion_factor"):
        expansion_factor([8, 16, 32], [16, 16, 16])
