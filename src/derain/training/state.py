"""A run on disk: everything needed to resume exactly, saved so that no crash can damage it.

RUN/recipe.yaml        the recipe of the run
RUN/last.pt            weights, average, optimizer, random states, step; RUN/previous.pt the one before
RUN/best.safetensors   the weights with the best validation
RUN/last.safetensors   the weights of the last step, once the run is finished
RUN/log.jsonl, training.csv, validation.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from derain.atomic import link_or_copy, new_file
from derain.errors import DerainError, first_line, with_class

_OLD_NAMES = {"optimiser": "optimizer"}  # in states of earlier versions


@dataclass(frozen=True)
class RunState:
    """Everything that the next step depends on.

    Attributes:
        recipe: the recipe, as in its file.
        step: the number of updates done.
        network: its state dict.
        average: the moving average of the parameters, empty without one.
        optimizer: its state dict.
        scaler: the state of the loss scaling for float16, empty otherwise.
        random: per process, the states of PyTorch's generators: "cpu" and, on a GPU, "cuda".
        best: the best PSNR of the validations so far; -inf before the first.
    """

    recipe: dict[str, Any]
    step: int
    network: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    random: list[dict[str, Tensor]]
    best: float


def save_state(run: Path, state: RunState) -> None:
    """Replaces `last.pt` completely or not at all, and keeps the previous one as `previous.pt`.

    Raises:
        DerainError: it cannot be written, e.g. because the disk is full; `last.pt` is then unchanged.
    """
    last, previous = run / "last.pt", run / "previous.pt"
    with new_file(last) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(vars(state), file)
        except RuntimeError as error:  # PyTorch's writer turns an OSError into one of these
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise OSError(first_line(error)) from error
        if last.exists():
            spare = previous.with_suffix(".link")
            spare.unlink(missing_ok=True)
            link_or_copy(last, spare)
            spare.replace(previous)


def load_state(run: Path) -> tuple[RunState, Path] | None:
    """The state to resume from, and its file; None for a run that has none yet.

    Falls back to `previous.pt` if `last.pt` is damaged.

    Raises:
        DerainError: both are damaged.
    """
    problems = []
    for path in (run / "last.pt", run / "previous.pt"):
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            return RunState(**{_OLD_NAMES.get(name, name): value for name, value in content.items()}), path
        except Exception as error:  # damaged bytes can raise anything
            problems.append(f"{path}: damaged ({with_class(error)})")
    if problems:
        raise DerainError(f"{'; '.join(problems)}. Remove the files to start the run again.")
    return None
