"""Rain made from nothing on clean pictures: streaks, veil, drops on glass, the camera's own marks."""

from derain.data.synthesis.presets import PRESETS, Rain, make_pair, preset

__all__ = ["PRESETS", "Rain", "make_pair", "preset"]
