"""The factor by which a Transformer block's feed-forward part is wider than the block."""

from __future__ import annotations

from collections.abc import Sequence

from derain.errors import DerainError

PUBLISHED = 2.66  # the factor of Restormer, DRSformer and NeRD-Rain


def expansion_factor(widths: Sequence[int], hidden: Sequence[int]) -> float:
    """A factor f for which int(width * f) equals the hidden width, for all pairs: the published one if it
    fits, otherwise a short decimal number.

    Raises:
        DerainError: no factor does that.
    """
    pairs = list(zip(widths, hidden, strict=True))
    middle = (
        max(wide / width for width, wide in pairs) + min((wide + 1) / width for width, wide in pairs)
    ) / 2
    for factor in (PUBLISHED, *(round(middle, digits) for digits in range(16))):
        if all(int(width * factor) == wide for width, wide in pairs):
            return float(factor)
    raise DerainError(
        f"no expansion factor (ffn_expansion_factor) turns the widths {list(widths)} into the hidden "
        f"widths {list(hidden)}."
    )
