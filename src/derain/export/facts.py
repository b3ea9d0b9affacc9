"""What an exported file says about itself: all that `restore` must know to run it on any picture."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from derain.checkpoints import Checkpoint
from derain.errors import DerainError
from derain.methods.contract import RainNetwork

KEY = "derain"  # of the facts among a file's metadata
INPUT, OUTPUT = "rainy", "image"

Pixels = Annotated[int, Field(ge=0, le=1 << 16)]


class Facts(BaseModel):
    """The metadata, stored as JSON under `KEY`; see `methods/contract.py` for the rules.

    Attributes:
        format: of these facts.
        network: name of the architecture.
        variant: of the architecture, None for an unusual size.
        config: its hyper-parameters.
        size_multiple: height and width must be multiples of it; pad by reflection at the right and bottom.
        reach: how far an output pixel looks, None for unlimited.
        tile: (size, overlap) of the published protocol where the result depends on it.
        bytes_per_pixel: most memory of intermediate values at once.
        multiply_adds_per_pixel: of a large picture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    network: str
    variant: str | None
    config: dict[str, Any]
    size_multiple: Annotated[int, Field(ge=1, le=4096)]
    reach: Pixels | None
    tile: tuple[Annotated[int, Field(ge=1, le=1 << 16)], Pixels] | None
    bytes_per_pixel: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    multiply_adds_per_pixel: Annotated[float, Field(ge=0, allow_inf_nan=False)]


def facts_of(checkpoint: Checkpoint, bytes_per_pixel: float) -> Facts:
    """The facts of a network that is being exported."""
    network = cast(RainNetwork, checkpoint.network)
    side = 1024
    return Facts(
        network=checkpoint.architecture.name,
        variant=checkpoint.variant,
        config=checkpoint.config,
        size_multiple=network.size_multiple,
        reach=network.reach,
        tile=None if network.tile is None else (network.tile.size, network.tile.overlap),
        bytes_per_pixel=bytes_per_pixel,
        multiply_adds_per_pixel=network.multiply_adds(side, side) / side**2,
    )


def read_facts(text: str | None, source: str) -> Facts:
    """The facts out of a file's metadata.

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
