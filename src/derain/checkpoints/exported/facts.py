"""What an exported file states about itself: everything that `restore` needs to run it on any picture."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from derain.checkpoints.rain_threshold import FACT
from derain.checkpoints.recognise import Model
from derain.errors import DerainError
from derain.methods.network import Spec, Tile

KEY = "derain"  # the key of the facts in a file's metadata
INPUT, OUTPUT = "rainy", "image"

# {name in the first format: current name}
FIRST_NAMES = {"size_multiple": "multiple_of", "reach": "receptive_field"}

PixelCount = Annotated[int, Field(ge=0, le=1 << 16)]


class Facts(BaseModel):
    """The metadata, stored as JSON under `KEY`; see `methods/network.py` for the rules.

    Attributes:
        format: version of these facts, 2; version 1 said `size_multiple` and `reach`, and is still read.
        network: name of the architecture.
        variant: variant of the architecture; None for an unusual size.
        config: its hyper-parameters.
        multiple_of: height and width must be multiples of it; pad by reflection at the right and bottom.
        receptive_field: radius in pixels; None if unlimited.
        working_side: see `Spec`.
        tile: (size, overlap) of the published protocol, if the result depends on it.
        bytes_per_pixel: peak memory of intermediate values, per pixel.
        multiply_adds_per_pixel: as measured for a large picture.
        precision: the precision of its convolutions.
        rain_threshold: the signal above which a picture counts as rainy, see `derain.restore.rain`; None if
            not measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2
    network: str
    variant: str | None
    config: dict[str, Any]
    multiple_of: Annotated[int, Field(ge=1, le=4096)]
    receptive_field: PixelCount | None
    working_side: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    tile: tuple[Annotated[int, Field(ge=1, le=1 << 16)], PixelCount] | None
    bytes_per_pixel: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    multiply_adds_per_pixel: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    precision: Literal["float32", "int8"] = "float32"
    rain_threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_the_first_format(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("format") != 1:
            return given
        return {"format": 2} | {FIRST_NAMES.get(k, k): v for k, v in given.items() if k != "format"}

    def spec(self) -> Spec:
        """What the facts state about the network, in the form of a network's own spec."""
        return Spec(
            multiple_of=self.multiple_of,
            receptive_field=self.receptive_field,
            working_side=self.working_side,
            tile=None if self.tile is None else Tile(*self.tile),
            refused_precisions=dict.fromkeys(
                ("bfloat16", "float16"), f"an exported file computes in {self.precision}"
            ),
            stored_precision=self.precision,
        )

    def of_weights(self) -> dict[str, Any]:
        """The facts as a file of weights states them; see `derain.checkpoints.rain_threshold`."""
        return {} if self.rain_threshold is None else {FACT: {"threshold": self.rain_threshold}}


def exported_facts(
    model: Model, bytes_per_pixel: float, precision: Literal["float32", "int8"] = "float32"
) -> Facts:
    """The facts of a network that is being exported."""
    network, checkpoint = model
    spec, side = network.spec, 1024
    return Facts(
        network=checkpoint.architecture.name,
        variant=checkpoint.variant,
        config=checkpoint.config,
        multiple_of=spec.multiple_of,
        receptive_field=spec.receptive_field,
        working_side=spec.working_side,
        tile=None if spec.tile is None else (spec.tile.size, spec.tile.overlap),
        bytes_per_pixel=bytes_per_pixel,
        multiply_adds_per_pixel=network.multiply_adds(side, side) / side**2,
        precision=precision,
        rain_threshold=checkpoint.rain_threshold,
    )


def read_facts(text: str | None, source: str) -> Facts:
    """The facts in a file's metadata.

    Raises:
        DerainError: there are none (the file was not made by `derain export`), or they are wrong.
    """
    if text is None:
        raise DerainError(
            f"{source}: was not made by `derain export`: it does not say how pictures must be padded."
        )
    try:
        return Facts.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "facts"
        raise DerainError(f"{source}: its metadata are wrong ({where}: {first['msg']}).") from None
