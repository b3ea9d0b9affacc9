"""All protocols by name: the ones that compare with the truth and the ones that need none."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from derain.errors import UsageError, unknown_name
from derain.evaluation import no_reference, protocols
from derain.evaluation.pairs import Picture, Quantise
from derain.evaluation.protocols import Score

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


@dataclass(frozen=True)
class Protocol:
    """A protocol as users name it.

    Attributes:
        name: e.g. "matlab_y_uint8".
        summary: what it does, in one line.
        measures: the figures it gives, e.g. ("psnr", "ssim").
        needs_truth: it compares with the clean picture.
        reads_bytes: it scores bytes, so `quantise` decides how floats become bytes.
        function: the pure function behind it.
    """

    name: str
    summary: str
    measures: tuple[str, ...]
    needs_truth: bool
    reads_bytes: bool
    function: Callable[..., Any]

    def __call__(
        self, restored: Picture, clean: Picture | None = None, quantise: Quantise = "round"
    ) -> dict[str, float]:
        """The figures of one picture, {measure: value}; raises as the function does.

        Raises:
            UsageError: the protocol compares with a clean picture and none was given.
        """
        options = {"quantise": quantise} if self.reads_bytes else {}
        if not self.needs_truth:
            return {self.measures[0]: self.function(restored, **options)}
        if clean is None:
            raise UsageError(f"{self.name} compares with the clean picture; give one.")
        score: Score = self.function(restored, clean, **options)
        return {measure: getattr(score, measure) for measure in self.measures}


def _describe(function: Callable[..., Any], measures: tuple[str, ...], needs_truth: bool) -> Protocol:
    return Protocol(
        name=function.__name__,
        summary=(inspect.getdoc(function) or "").splitlines()[0],
        measures=measures,
        needs_truth=needs_truth,
        reads_bytes="quantise" in inspect.signature(function).parameters,
        function=function,
    )


PROTOCOLS: dict[str, Protocol] = {
    **{
        f.__name__: _describe(f, ("psnr",) if f is protocols.rgb_psnr else ("psnr", "ssim"), True)
        for f in WITH_TRUTH
    },
    **{f.__name__: _describe(f, (f.__name__.partition("_")[0],), False) for f in WITHOUT_TRUTH},
}


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: there is none; names the nearest.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
