"""Where a run's figures are sent besides its own files: a small interface, and the services behind it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from derain.extras import extra
from derain.training.recipe import Recipe


class Tracker(Protocol):
    """Receives the events of a run; every call names its step."""

    def figures(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Records figures of "training" or "validation"."""

    def picture(self, name: str, step: int, picture: Tensor) -> None:
        """Records a sample (3, H, W) in [0, 1]."""

    def close(self) -> None:
        """Ends the run, and writes what is still buffered."""


def trackers(recipe: Recipe, run: Path, step: int) -> list[Tracker]:
    """The trackers that a recipe asks for, for a run that resumes after `step`.

    Raises:
        DerainError: the library of one is not installed; the message says how to get it.
    """
    found: list[Tracker] = []
    if recipe.tensorboard:
        found.append(TensorBoard(run, step))
    if recipe.wandb is not None:
        found.append(WeightsAndBiases(recipe, run))
    return found


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, run: Path, step: int) -> None:
        extra("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(run / "tensorboard", purge_step=step + 1)

    def figures(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One curve for each figure, "training/l1"."""
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, name: str, step: int, picture: Tensor) -> None:
        """One picture for each step."""
        self._writer.add_image(name, picture.clamp(0, 1), step)

    def close(self) -> None:
        """Writes what is still buffered."""
        self._writer.close()


class WeightsAndBiases:
    """A run in the project that the recipe names, called like its folder; a resumed run stays the same run.

    Environment variables of `wandb`, such as WANDB_MODE=offline, apply.
    """

    def __init__(self, recipe: Recipe, run: Path) -> None:
        wandb = extra("wandb", "wandb")
        identity = run / "wandb.txt"
        known = identity.read_text("utf-8").strip() if identity.exists() else secrets.token_hex(4)
        identity.write_text(known, "utf-8")
        self._image = wandb.Image
        self._run: Any = wandb.init(
            project=recipe.wandb, name=run.name, id=known, resume="allow", dir=run,
            config=recipe.model_dump(mode="json"),
        )  # fmt: skip
        # Explicit steps, as a resumed run repeats some, which wandb's own counter would refuse.
        for kind in ("training", "validation"):
            self._run.define_metric(f"{kind}/*", step_metric="step")

    def figures(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One curve for each figure, "training/l1", over the step."""
        self._run.log({"step": step, **{f"{kind}/{name}": value for name, value in values.items()}})

    def picture(self, name: str, step: int, picture: Tensor) -> None:
        """One picture for each step."""
        levels = picture.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        self._run.log({"step": step, name: self._image(levels)})

    def close(self) -> None:
        """Sends what is still buffered."""
        self._run.finish()
