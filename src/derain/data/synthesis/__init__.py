"""Synthetic rain on clean pictures: streaks, veil, drops on glass, traces of the camera."""

from derain.data.synthesis.presets import PRESETS, RainKind, make_pair, preset

__all__ = ["PRESETS", "RainKind", "make_pair", "preset"]
