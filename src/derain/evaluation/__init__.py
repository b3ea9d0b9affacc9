"""The published protocols, reproduced exactly, as pure functions and as a class that accumulates scores."""

from derain.evaluation.no_reference import brisque_live, brisque_stable, niqe_live, niqe_stable
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
from derain.evaluation.real_rain import RealRain, real_rain
from derain.evaluation.registry import PROTOCOLS, Protocol, protocol
from derain.evaluation.scores import PictureScore, Scores, SetScore

__all__ = [
    "PROTOCOLS",
    "PictureScore",
    "Protocol",
    "RealRain",
    "Score",
    "Scores",
    "SetScore",
    "basicsr_rgb",
    "basicsr_y",
    "brisque_live",
    "brisque_stable",
    "matlab_y_double",
    "matlab_y_uint8",
    "niqe_live",
    "niqe_stable",
    "protocol",
    "raindrop_y",
    "real_rain",
    "rgb_psnr",
    "skimage_rgb",
    "skimage_rgb_range1",
    "toolbox_rgb",
    "toolbox_y",
    "udr_test_y",
    "zero_pad_rgb",
]
