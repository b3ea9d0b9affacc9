"""The rain threshold: a fact that a file of weights states, measured on photographs without rain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from derain.errors import DerainError

FACT = "rain"  # its name in the file; its value is a `calibration`


def threshold_of(facts: Mapping[str, Any]) -> float | None:
    """The signal above which a picture counts as rainy, see `derain.restore.rain`; None if not stated."""
    fact = facts.get(FACT)
    threshold = fact.get("threshold") if isinstance(fact, Mapping) else None
    if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0 <= threshold <= 1:
        return None
    return float(threshold)


def calibration(dry: Sequence[float], false_alarms: float = 0.05) -> dict[str, float | int]:
    """The fact for weights: the lowest threshold with no more than this share of false alarms.

    Args:
        dry: signals for photographs without rain on which the weights were not trained.
        false_alarms: the greatest share of them above the threshold.

    Examples:
        >>> calibration([0.1, 0.4, 0.2, 0.3], false_alarms=0.25)
        {'threshold': 0.3, 'alarms': 1, 'dry': 4}

    Raises:
        DerainError: there are too few signals to decide.
    """
    allowed = int(false_alarms * len(dry))
    if allowed < 1:
        raise DerainError(f"{len(dry)} dry pictures are too few for a false-alarm rate of {false_alarms:g}.")
    threshold = sorted(dry, reverse=True)[allowed]
    return {"threshold": threshold, "alarms": sum(signal > threshold for signal in dry), "dry": len(dry)}
