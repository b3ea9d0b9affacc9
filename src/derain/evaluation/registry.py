"""All protocols by name, and what each compares a restored picture with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from derain.errors import UsageError, refuse_unknown
from derain.evaluation import flicker, no_reference, protocols
from derain.evaluation.levels import AnyPicture, Quantise
from derain.evaluation.measures import MEASURES
from derain.evaluation.protocols import Score
from derain.evaluation.real_rain import RealRain, real_rain

WITH_TRUTH: tuple[Callable[..., Score], ...] = (
    protocols.matlab_y_uint8,
    protocols.matlab_y_double,
    protocols.skimage_rgb,
    protocols.skimage_rgb_range1,
    protocols.raindrop_y,
    protocols.udr_test_y,
    protocols.basicsr_y,
    protocols.basicsr_rgb,
    protocols.rgb_psnr,
    protocols.toolbox_rgb,
    protocols.toolbox_y,
    protocols.zero_pad_rgb,
)
WITHOUT_TRUTH: tuple[Callable[..., float], ...] = (
    no_reference.niqe_live,
    no_reference.niqe_stable,
    no_reference.brisque_live,
    no_reference.brisque_stable,
)
CLIPS: dict[Callable[..., float], tuple[str, ...]] = {
    flicker.flicker_truth: ("previous", "clean", "previous_clean"),
    flicker.flicker_static: ("previous",),
    flicker.flicker_warped: ("previous", "rainy", "previous_rainy"),
}
NOUNS = {
    "clean": "the clean picture",
    "rainy": "the rainy picture",
    "mask": "a rain mask",
    "previous": "the restored frame before it",
    "previous_clean": "the clean frame before it",
    "previous_rainy": "the rainy frame before it",
}


@dataclass(frozen=True)
class Protocol:
    """A protocol as users name it.

    Attributes:
        name: e.g. "matlab_y_uint8".
        summary: what it does, in one line.
        measures: the figures it yields, e.g. ("psnr", "ssim").
        needs: what the restored picture is compared with, keys of `NOUNS` in the function's order.
        reads_bytes: whether it scores bytes, so that `quantise` decides how floats become bytes.
        function: the pure function behind it.
    """

    name: str
    summary: str
    measures: tuple[str, ...]
    needs: tuple[str, ...]
    reads_bytes: bool
    function: Callable[..., Any]

    @property
    def needs_truth(self) -> bool:
        """Whether it compares with the clean picture."""
        return "clean" in self.needs

    @property
    def needs_frames(self) -> bool:
        """Whether it compares a frame of a clip with the one before it."""
        return "previous" in self.needs

    def distance(self, values: Mapping[str, float]) -> float:
        """Distance of a picture or a mean from the ideal, by the first measure; for sorting."""
        measure = self.measures[0]
        return MEASURES[measure].distance(values[measure])

    def __call__(
        self,
        restored: AnyPicture,
        clean: AnyPicture | None = None,
        quantise: Quantise = "round",
        **others: AnyPicture | None,
    ) -> dict[str, float]:
        """The figures of one picture, {measure: value}; raises as the function does.

        Args:
            restored: the picture to score.
            clean: the truth, where the protocol needs it.
            quantise: how floats become bytes, where the protocol reads bytes.
            others: whatever else it needs, by the keys of `NOUNS`; what it does not need is ignored.

        Raises:
            UsageError: a picture with which the protocol compares was not given.
        """
        given = {"clean": clean, **others}
        for need in self.needs:
            if given.get(need) is None:
                raise UsageError(f"{self.name} compares with {NOUNS[need]}; give one.")
        options = {"quantise": quantise} if self.reads_bytes else {}
        found = self.function(restored, *(given[need] for need in self.needs), **options)
        if isinstance(found, float):
            return {self.measures[0]: found}
        return {measure: getattr(found, measure) for measure in self.measures}


def _describe(function: Callable[..., Any], measures: tuple[str, ...], needs: tuple[str, ...]) -> Protocol:
    return Protocol(
        name=function.__name__,
        summary=(inspect.getdoc(function) or "").splitlines()[0],
        measures=measures,
        needs=needs,
        reads_bytes="quantise" in inspect.signature(function).parameters,
        function=function,
    )


PROTOCOLS: dict[str, Protocol] = {
    **{
        f.__name__: _describe(f, ("psnr",) if f is protocols.rgb_psnr else ("psnr", "ssim"), ("clean",))
        for f in WITH_TRUTH
    },
    "real_rain": _describe(real_rain, RealRain._fields, ("rainy", "mask")),
    **{f.__name__: _describe(f, ("flicker",), needs) for f, needs in CLIPS.items()},
    **{f.__name__: _describe(f, (f.__name__.partition("_")[0],), ()) for f in WITHOUT_TRUTH},
}


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: there is none; the message suggests the nearest.
    """
    refuse_unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
