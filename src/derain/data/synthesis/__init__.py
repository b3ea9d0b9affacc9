"""Synthetic rain on clean pictures: streaks, veils, drops on glass, and what the camera adds."""

from derain.data.synthesis.presets import PRESETS, RainKind, make_pair, preset

__all__ = ["PRESETS", "RainKind", "make_pair", "preset"]
