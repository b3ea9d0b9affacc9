"""The published protocols, exact, as pure functions and as a class that accumulates a set's scores."""

from derain.evaluation.protocols import (
    Score,
    basicsr_rgb,
    basicsr_y,
    matlab_y_double,
    matlab_y_uint8,
    raindrop_y,
    rgb_psnr,
    skimage_rgb,
    skimage_rgb_range1,
    toolbox_rgb,
    toolbox_y,
    udr_test_y,
    zero_pad_rgb,
)

__all__ = [
    "Score",
    "basicsr_rgb",
    "basicsr_y",
    "matlab_y_double",
    "matlab_y_uint8",
    "raindrop_y",
    "rgb_psnr",
    "skimage_rgb",
    "skimage_rgb_range1",
    "toolbox_rgb",
    "toolbox_y",
    "udr_test_y",
    "zero_pad_rgb",
]
