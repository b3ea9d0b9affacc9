"""Plots a run: the loss and its terms above, validation below."""

from __future__ import annotations

from pathlib import Path

from derain.atomic import new_file
from derain.errors import DerainError
from derain.pictures.charts import Line, chart_sheet
from derain.training.log import read_log


def plot_run(run: str | Path) -> Path:
    """Draws `RUN/plot.png` from the run's log and returns its path.

    Raises:
        DerainError: the folder holds no log.
    """
    run = Path(run)
    events = read_log(run)
    training = [e for e in events if e["kind"] == "training"]
    validation = [e for e in events if e["kind"] == "validation"]
    if not training and not validation:
        raise DerainError(f"{run}: no log of a run; a run writes log.jsonl into its folder.")
    charts = []
    if training:
        names = [name for name in training[0] if name not in ("kind", "step", "rate", "seconds")]
        terms: list[Line] = [(name, [(e["step"], e[name]) for e in training]) for name in names]
        if len(terms) > 1:
            terms.insert(0, ("loss", [(e["step"], sum(e[name] for name in names)) for e in training]))
        charts.append(("training loss", terms))
    if validation:
        names = [name for name in ("psnr", "rainy_psnr") if name in validation[0]]
        lines: list[Line] = [(name, [(e["step"], e[name]) for e in validation]) for name in names]
        charts.append(("validation, dB", lines))
    with new_file(run / "plot.png") as temporary:
        chart_sheet(charts).save(temporary)
    return run / "plot.png"
