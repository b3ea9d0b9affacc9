"""Frames of a local camera, through OpenCV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from cv2.utils import logging
from numpy.typing import NDArray

from derain.errors import DerainError
from derain.pictures.video import Frame
from derain.pictures.video_facts import MATRIX_UNKNOWN, RANGE_UNKNOWN, Colour, VideoFacts

BgrPixels = NDArray[np.uint8]  # (H, W, 3), in OpenCV's order


class CameraStream:
    """The frames of an open camera, like those that `FrameStream` yields from other sources.

    Attributes:
        facts: its frame size, and the frame rate that it states.
        damaged: False; a camera delivers whole frames.
    """

    def __init__(self, capture: cv2.VideoCapture, name: str) -> None:
        """
        Raises:
            DerainError: it delivers no frames.
        """
        self._capture, self.damaged = capture, False
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not a buffered one
        works, first = capture.read()
        if not works:
            raise DerainError(f"{name}: the camera delivers no pictures; another program may be using it.")
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.facts = VideoFacts(
            path=Path(name),
            width=first.shape[1],
            height=first.shape[0],
            turns=0,
            display_matrix=None,
            aspect=None,
            pixel_format="yuv420p",
            bits=8,
            colour=Colour(MATRIX_UNKNOWN, RANGE_UNKNOWN, MATRIX_UNKNOWN, MATRIX_UNKNOWN),
            time_base=Fraction(1, 1000),
            rate=Fraction(round(rate * 1000), 1000) if 1 <= rate <= 1000 else Fraction(25),
            packets=0,
            duration=None,
        )

    def decoded(self) -> Iterator[BgrPixels]:
        """The frames until the camera is disconnected."""
        while True:
            works, frame = self._capture.read()
            if not works:
                return
            yield np.asarray(frame, np.uint8)

    def rgb(self, frame: BgrPixels) -> Frame:
        """One of the frames as a picture."""
        return Frame(np.ascontiguousarray(frame[..., ::-1]), 0, 0)


@contextlib.contextmanager
def open_camera(place: str) -> Iterator[CameraStream]:
    """A camera: its number, or its device such as /dev/video0.

    Raises:
        DerainError: there is none, or it delivers no pictures.
    """
    device = Path(place)
    if not place.isdecimal() and not device.exists():
        raise DerainError(f"{place}: no such camera.")
    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # its message repeats this at length
    try:
        capture = cv2.VideoCapture(int(place) if place.isdecimal() else place)
    finally:
        logging.setLogLevel(before)
    try:
        if not capture.isOpened():
            raise DerainError(f"{place}: the camera cannot be opened; another program may be using it.")
        yield CameraStream(capture, place)
    finally:
        capture.release()
