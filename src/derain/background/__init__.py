"""From a rainy clip of a still camera to its clean background."""

from derain.background.clean_frame import CleanFrame, clean_frame

__all__ = ["CleanFrame", "clean_frame"]
