"""`derain adapt INPUT... -o OUT`: learns rain removal from the rainy pictures alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli.options import ResultOptions, grouped
from derain.cli.shared import Device

if TYPE_CHECKING:
    from derain.methods.self_supervision import FitOptions, Progress, SelfSupervision
    from derain.restore.adapting import Start


@dataclass(frozen=True)
class Learning:
    """How the network is trained."""

    preset: Annotated[
        str,
        typer.Option(
            help="quick (about half a minute per picture), published (about an hour) or icassp2023 (the "
            "first paper's method; takes as long as published)."
        ),
    ] = "quick"
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Train one network for all pictures, and save it as OUT/network.safetensors.",
        ),
    ] = False
    backbone: Annotated[
        str | None, typer.Option(help="Network to train; see `derain models`. Default: the preset's.")
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            "--from",
            metavar="MODEL",
            help="Trained weights to start from, by name or file.",
        ),
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(min=0.05, help="Time limit per picture, or for all of them with --together."),
    ] = None
    keep: Annotated[bool, typer.Option("--keep", help="Keep masks, references and weights in OUT/kept.")] = (
        False
    )
    device: Device = "auto"
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of training: float32, bfloat16, or auto (bfloat16 for the quick preset where "
            "the processor supports it, else float32)."
        ),
    ] = "auto"

    def options(self, start: Start, way: SelfSupervision, progress: Progress) -> FitOptions:
        """The options as the library takes them."""
        from derain.methods.self_supervision import FitOptions
        from derain.restore.adapting import learning_precision
        from derain.restore.settings import choose_device

        device = choose_device(self.device)
        return FitOptions(
            seconds=None if self.minutes is None else 60 * self.minutes,
            device=device,
            precision=learning_precision(self.precision, start, way, device),
            progress=progress,
        )


@grouped
def adapt(
    inputs: Annotated[list[Path], typer.Argument(help="Rainy pictures and folders of them.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results; for a single picture, the file.")
    ],
    learning: Learning,
    result: ResultOptions,
    only: Annotated[
        str | None,
        typer.Option(help="mask: only write the published rain maps as PNG files, without training."),
    ] = None,
) -> None:
    """Remove rain from pictures by training on them alone, without clean pictures or trained weights.

    Example: derain adapt rainy.jpg -o dry.jpg
    """
    from derain.cli.outcomes import follow, summarise
    from derain.cli.progress import bar
    from derain.errors import UsageError, refuse_unknown
    from derain.restore import adapting
    from derain.restore.jobs import plan

    way = adapting.preset(learning.preset)
    _refuse_unknown_names(learning)
    if only is not None:
        refuse_unknown("--only", only, ["mask"])
    if only and learning != Learning(preset=learning.preset, device=learning.device):
        raise UsageError("--only mask trains nothing; leave out the training options.")
    planned = plan(inputs, output, suffix=".png" if only else None, videos=False)
    jobs, together = planned.jobs, learning.together
    if together and len(jobs) == 1 and jobs[0].target == output:
        raise UsageError("--together also saves the network: give a folder as --output.")
    began = time.monotonic()
    with bar("learning", 1 if together else len(jobs)) as progress:
        if only:
            results = adapting.write_maps(jobs, way, result.overwrite)
        else:
            start = adapting.starting_point(way, learning.backbone, learning.model)
            options = learning.options(start, way, progress.part)
            if together:
                network = output / adapting.NETWORK_FILE
                results = adapting.adapt_together(
                    jobs, start, way, network, options, keep=learning.keep, overwrite=result.overwrite
                )
            else:
                results = adapting.adapt_each(
                    jobs, start, way, options, keep=learning.keep, overwrite=result.overwrite
                )
        done = follow(results, progress, result.as_json, advance=not together)
    summarise(done, planned.unread, result.as_json, began, f"-> {output}")


def _refuse_unknown_names(learning: Learning) -> None:
    from derain.errors import refuse_unknown
    from derain.precisions import precision_name
    from derain.restore.settings import DEVICES

    refuse_unknown("device", learning.device, DEVICES)
    refuse_unknown("precision", precision_name(learning.precision), ("auto", "float32", "bfloat16"))
