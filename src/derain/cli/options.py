"""Groups of options: a dataclass each, expanded into a command's parameters.

@dataclass(frozen=True)
class Shade:
    dark: Annotated[bool, typer.Option(help="...")] = False

@grouped
def paint(house: Path, shade: Shade) -> None: ...   # derain paint HOUSE --dark
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from derain.cli.shared import MODEL, AsJson, Device, Ensemble, FullSize, Overwrite, Precision
from derain.strength import MAX_STRENGTH

if TYPE_CHECKING:
    from derain.restore import Settings


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of those parameters that are dataclasses."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))
            continue
        kinds = get_type_hints(groups[name], include_extras=True)
        parameters += [
            parameter.replace(name=field.name, default=field.default, annotation=kinds[field.name])
            for field in dataclasses.fields(groups[name])
        ]

    def spread(**values: Any) -> None:
        built = {
            name: kind(**{field.name: values.pop(field.name) for field in dataclasses.fields(kind)})
            for name, kind in groups.items()
        }
        command(**values, **built)

    spread.__doc__ = command.__doc__
    spread.__name__ = command.__name__
    ordered = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters]
    spread.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in ordered}
    return spread


@dataclass(frozen=True)
class ModelOptions:
    """Which network, and how it runs."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            "--weights",
            metavar="MODEL",
            help=MODEL,
        ),
    ] = None
    device: Device = "auto"
    precision: Precision = "auto"
    tile: Annotated[
        int | None,
        typer.Option(help="Side of a tile in pixels; 0: never tile. Default: what fits in memory."),
    ] = None
    overlap: Annotated[int | None, typer.Option(help="Pixels that neighbouring tiles share.")] = None
    ensemble: Ensemble = False
    strength: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=MAX_STRENGTH,
            help="How much of the change to apply: 0.5 removes half of the rain; above 1 exaggerates "
            "and may leave dark traces.",
        ),
    ] = 1.0
    full_size: FullSize = False
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU cores to use, at most all there are. Default: the idle ones."),
    ] = None

    def settings(self) -> Settings:
        """The options as the library takes them; `threads` is set for the whole process."""
        import cv2
        import torch

        from derain.cores import usable_threads
        from derain.restore import Settings
        from derain.restore.threads import fastest_threads

        threads = usable_threads(self.threads or fastest_threads(torch.get_num_threads()))
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        return Settings(
            self.device,
            self.precision,
            self.tile,
            self.overlap,
            self.ensemble,
            self.strength,
            full_size=self.full_size,
        )


@dataclass(frozen=True)
class ResultOptions:
    """What happens to results, and how they are reported."""

    overwrite: Overwrite = False
    as_json: AsJson = False
