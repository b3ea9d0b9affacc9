"""Rainy clips with a clean picture: a still picture with drops that fall through the camera's view.

Drops lie at random depths in front of a pinhole camera and fall at one speed, so that near ones are
long, wide and fast, and far ones short, thin and slow; from frame to frame each drop moves at its own
speed. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from derain.atomic import new_file
from derain.data.synthesis.mixing import mix
from derain.data.synthesis.pairs import PlannedPair
from derain.data.synthesis.pixels import FloatArray
from derain.data.synthesis.streaks import Range
from derain.data.synthesis.weather import ORDINARY, Weather
from derain.pictures import Picture, read_picture, to_rgb8, write_picture

RATE = 25  # frames per second
EXPOSURE = 1 / 60  # seconds
FALL = 7.0  # metres per second: speed of drops of DIAMETER
DIAMETER = 0.002  # metres
DEPTHS = (2.0, 20.0)  # metres
FOCAL = 1.2  # focal length, as a multiple of the picture's longer side
ANGLE: Range = (-15.0, 15.0)  # degrees from vertical
COVERAGE = 0.12  # sum of the streaks' areas, as a share of the picture's
SUBPIXEL = 4  # bits


def rain_clip(
    picture: FloatArray, frames: int, seed: int, weather: Weather = ORDINARY
) -> Iterator[FloatArray]:
    """A clip of a still scene in the rain.

    Args:
        picture: the clean scene, (H, W, 3) in [0, 1].
        frames: how many to make.
        seed: a different number gives different rain.
        weather: angle, density and brightness are drawn once for the clip.

    Yields:
        (H, W, 3) in [0, 1].
    """
    height, width = picture.shape[:2]
    rng = np.random.default_rng(seed)
    near, far = DEPTHS
    scale = FOCAL * max(height, width)  # pixels per metre at a distance of one metre
    wind = np.tan(np.deg2rad(rng.uniform(*(weather.angle or ANGLE))))
    changes = np.random.default_rng([seed, 1])  # separate, so that the same seed gives the same drops
    density, brightness = (changes.uniform(*ends) for ends in (weather.density, weather.brightness))
    areas = scale**2 * FALL * EXPOSURE * DIAMETER  # area of a streak times its depth squared
    mean_area = areas * 3 * (far - near) / (far**3 - near**3)
    count = max(1, round(density * COVERAGE * height * width / mean_area))
    # Uniform in the volume that the camera sees; far drops first, so that near ones cover them.
    depth = np.sort(rng.uniform(near**3, far**3, count) ** (1 / 3))[::-1]
    length, step = scale * FALL * EXPOSURE / depth, scale * FALL / RATE / depth
    thickness = scale * DIAMETER / depth
    light = np.minimum(thickness, 1) * np.minimum(brightness * np.exp(rng.normal(-0.9, 0.4, count)), 1)
    across, down = rng.random(count), rng.random(count)
    aside = abs(wind) * (height + length)
    for number in range(frames):
        # A drop that leaves at the bottom re-enters at the top in another place.
        turns, below = np.divmod(down * (height + length) + number * step, height + length)
        x = (across + 0.618034 * turns) % 1 * (width + 2 * aside) - aside
        tops = np.stack([x + wind * (below - length), below - length], 1)
        ends = np.stack([x + wind * below, below], 1)
        yield mix(picture, _drawn(height, width, tops, ends, thickness, light), "screen")


def _drawn(
    height: int,
    width: int,
    tops: NDArray[np.float64],
    ends: NDArray[np.float64],
    thickness: NDArray[np.float64],
    light: NDArray[np.float64],
) -> FloatArray:
    canvas = np.zeros((height, width), np.uint8)
    fixed = [(points * 2**SUBPIXEL).round().astype(int).tolist() for points in (tops, ends)]
    widths = np.maximum(1, thickness.round()).astype(int).tolist()
    for top, end, wide, level in zip(*fixed, widths, (255 * light).tolist(), strict=True):
        cv2.line(canvas, top, end, level, wide, cv2.LINE_AA, SUBPIXEL)
    return np.divide(cv2.GaussianBlur(canvas, (3, 3), 0.5), 255, dtype=np.float32)


def write_rain_clip(pair: PlannedPair, frames: int, seed: int, weather: Weather = ORDINARY) -> None:
    """Writes a clip (lossless Matroska) as the rainy part of a pair, and the clean picture.

    Raises:
        DerainError: the picture cannot be read or the files cannot be written.
    """
    clean = to_rgb8(read_picture(pair.source))
    write_picture(pair.clean, Picture(clean))
    with new_file(pair.rainy) as temporary, av.open(f"file:{temporary}", "w", format="matroska") as file:
        video = file.add_stream("ffv1", rate=RATE)
        video.height, video.width = clean.shape[:2]
        video.pix_fmt = "bgr0"
        scene = np.divide(clean, 255, dtype=np.float32)
        for number, rainy in enumerate(rain_clip(scene, frames, seed, weather)):
            frame = av.VideoFrame.from_ndarray((rainy * 255).round().astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
