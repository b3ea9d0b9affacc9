"""The better of up to two passes over a picture, here called looks: upright, and on its side if its rain
falls sideways.

Generic over the two forms in which pictures are restored: tensors, and integers from files in bands of rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derain.notes import join_notes
from derain.pictures import Picture, to_tensor
from derain.pictures.picture import grey_pixels, to_pixels
from derain.restore import sideways
from derain.restore.inference import BandSource, Inference, Restored, source_of
from derain.restore.rain import Change, Rain, measure_rain
from derain.restore.sideways import ON_ITS_SIDE, falls_sideways, may_fall_sideways
from derain.restore.test_time import turned, turned_back

Image = TypeVar("Image")


class Work(NamedTuple):
    """How one picture is restored; see `Inference.restore`."""

    dtype: torch.dtype
    with_maps: bool = False
    progress: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Look(Generic[Image]):
    """What a network made of a picture.

    Attributes:
        image: the restored picture.
        maps: {"mask" or "uncertainty": a grey picture}; empty if not requested.
        rain: how much there was.
        note: what a user should know about how it was done, or "".
        is_turned: whether the network saw it on its side.
    """

    image: Image
    maps: Mapping[str, Image]
    rain: Rain
    note: str
    is_turned: bool = False


@dataclass(frozen=True)
class Form(Generic[Image]):
    """A form in which a picture and its maps are held, and the operations on it.

    Attributes:
        source: gives the rows of a picture as the network takes them.
        turned: turns a picture by `ON_ITS_SIDE`.
        turned_back: undoes `turned`.
        look: restores a picture, given it, its `source` and the rain threshold.
    """

    source: Callable[[Image], BandSource]
    turned: Callable[[Image], Image]
    turned_back: Callable[[Image], Image]
    look: Callable[[Inference, Image, BandSource, Work, float | None], Look[Image]]


def seen_in(rainy: Tensor, found: Restored, threshold: float | None) -> Look[Tensor]:
    """The look at a picture (1, 3, H, W) for which the network returned `found`."""
    return Look(found.image, found.maps, measure_rain(rainy, found.image, threshold), found.note)


def _tensor_look(
    inference: Inference, image: Tensor, _: BandSource, work: Work, threshold: float | None
) -> Look[Tensor]:
    return seen_in(image, inference.restore(image, *work), threshold)


def _picture_source(picture: Picture) -> BandSource:
    return BandSource(*picture.size, lambda first, end: to_tensor(picture, first, end))


def _picture_turned(picture: Picture) -> Picture:
    return replace(picture, pixels=np.rot90(picture.pixels, -1), alpha=None)


def _picture_turned_back(picture: Picture) -> Picture:
    return replace(picture, pixels=np.ascontiguousarray(np.rot90(picture.pixels)))


def _picture_look(
    inference: Inference, picture: Picture, source: BandSource, work: Work, threshold: float | None
) -> Look[Picture]:
    """Restores a picture in bands of rows."""
    height, width = picture.size
    pixels, maps, note = np.empty_like(picture.pixels), dict[str, NDArray[np.uint8]](), ""
    change = Change(height, width)
    for band in inference.bands(source, *work):
        rows, note = slice(band.top, band.bottom), band.note
        change.add(band.top, band.rainy, band.image)
        pixels[rows] = to_pixels(picture, band.image)
        for name, values in band.maps.items():
            if name not in maps:
                maps[name] = np.empty((height, width, 1), np.uint8)
            maps[name][rows] = grey_pixels(values)
    return Look(
        replace(picture, pixels=pixels),
        {name: Picture(values) for name, values in maps.items()},
        change.measured(threshold),
        note,
    )


# For pictures (1, 3, H, W) and maps (1, C, H, W), float in [0, 1].
TENSORS = Form(
    source_of,
    functools.partial(turned, position=ON_ITS_SIDE),
    functools.partial(turned_back, position=ON_ITS_SIDE),
    _tensor_look,
)
# For integers, with no more floats in memory than the network needs. Turning drops the transparency.
PICTURES = Form(_picture_source, _picture_turned, _picture_turned_back, _picture_look)


@dataclass(frozen=True)
class Looks(Generic[Image]):
    """How a picture in some form is looked at.

    Attributes:
        form: the form of the picture.
        inference: the network and how it is applied.
        work: how the picture is restored.
        threshold: the rain threshold; None if it was not measured for the weights.
    """

    form: Form[Image]
    inference: Inference
    work: Work
    threshold: float | None

    def better(self, image: Image, first: Look[Image] | None = None) -> Look[Image]:
        """The better look at a picture, at full strength.

        Args:
            image: the picture.
            first: the upright look, if there already is one; returned itself if it is the better one.
        """
        source = self.form.source(image)
        first = first or self._look(image, source)
        if self.threshold is None:  # nothing tells which is better
            return first
        side = self._on_its_side(image, source, first, self.threshold)
        return first if side is None else self._upright(side)

    def _look(self, image: Image, source: BandSource) -> Look[Image]:
        return self.form.look(self.inference, image, source, self.work, self.threshold)

    def _on_its_side(
        self, image: Image, source: BandSource, first: Look[Image], threshold: float
    ) -> Look[Image] | None:
        """The picture turned; None where its rain does not fall sideways."""
        seen = functools.partial(self.inference.at_working_size, source)
        if not may_fall_sideways(first.rain, seen, self._trial, threshold):
            return None
        side = self.form.turned(image)
        found = self._look(side, self.form.source(side))
        if not falls_sideways(found.rain, first.rain, threshold):
            return None
        return replace(found, note=join_notes(sideways.NOTE, found.note), is_turned=True)

    def _trial(self, rainy: Tensor) -> Restored:
        return self.inference.restore(rainy, self.work.dtype)

    def _upright(self, look: Look[Image]) -> Look[Image]:
        maps = {name: self.form.turned_back(values) for name, values in look.maps.items()}
        return replace(look, image=self.form.turned_back(look.image), maps=maps)
