"""Learning from rainy pictures alone, from files to files (`derain adapt`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from derain.checkpoints import open_checkpoint, save_checkpoint
from derain.checkpoints.bundled import find
from derain.errors import DerainError, Remedy, UsageError, errors_of, unknown_name
from derain.methods import create_network, network_names
from derain.methods.network import RainNetwork
from derain.methods.rain2avoid import adapt, ldgp
from derain.methods.rain2avoid.sampling import Bytes
from derain.paths import exists
from derain.pictures import Picture, read_picture, to_rgb8, to_tensor, with_pixels, write_picture
from derain.restore.jobs import Job, Outcome, failed, skipped

NETWORK_FILE = "network.safetensors"
KEPT = "kept"


@dataclass(frozen=True)
class Start:
    """The network to begin with.

    Attributes:
        name: in the registry.
        config: keyword arguments of its class.
        weights: trained ones, or None for fresh ones.
    """

    name: str
    config: dict[str, Any]
    weights: dict[str, torch.Tensor] | None

    def network(self) -> RainNetwork:
        """A new network in this state; fresh weights are the same each time."""
        torch.manual_seed(adapt.SEED)
        network = create_network(self.name, **self.config)
        if self.weights is not None:
            network.load_state_dict(self.weights, strict=True)
        return network


def starting_point(preset: str, backbone: str | None, weights: str | None) -> Start:
    """What `--preset`, `--backbone` and `--from` stand for.

    Args:
        preset: a key of `adapt.PRESETS`.
        backbone: a name of the registry; None for the preset's.
        weights: a checkpoint or the name of bundled weights; None for a fresh network.

    Raises:
        UsageError: options contradict each other, or a name is not known.
        DerainError: the file cannot be opened.
    """
    if weights is None:
        name = backbone or adapt.PRESETS[preset].backbone
        if name not in network_names():
            raise unknown_name("network", name, network_names())
        architecture, variant = network_names()[name]
        return Start(architecture.name, dict(architecture.variants[variant]), None)
    if backbone is not None:
        raise UsageError("--backbone and --from exclude each other; the weights say which network it is.")
    if preset == "published":
        raise UsageError("--from works with the quick preset only; the published one starts from noise.")
    checkpoint = open_checkpoint(find(weights))
    return Start(checkpoint.architecture.name, checkpoint.config, checkpoint.network.state_dict())


def write_maps(jobs: Sequence[Job], overwrite: bool = False) -> Iterator[Outcome]:
    """The published rain prior of each picture as an 8-bit picture, whatever the preset takes for rain."""
    for job in jobs:
        if exists(job.target) and not overwrite:
            yield skipped(job)
            continue
        try:
            with errors_of(job.source, job.target):
                prior = ldgp.rain_prior(to_rgb8(read_picture(job.source)))
                _write_map(job.target, prior.map)
        except DerainError as error:
            yield failed(job, error)
        else:
            share = 100 * float((prior.map > 10).mean())
            yield Outcome(job, "restored", f"{share:.1f} % suspected, leaning {prior.theta} degrees")


def adapt_each(
    jobs: Sequence[Job],
    start: Start,
    preset: adapt.Preset,
    *,
    seconds: float | None = None,
    device: str | torch.device = "cpu",
    precision: torch.dtype = torch.float32,
    keep: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = adapt.silent,
) -> Iterator[Outcome]:
    """One network per picture; `seconds` are for each. One that fails does not stop the rest."""
    for job in jobs:
        if exists(job.target) and not overwrite:
            yield skipped(job)
            continue
        try:
            with errors_of(job.source, job.target):
                picture = read_picture(job.source)
                adapted = adapt.adapt_one(
                    to_tensor(picture),
                    start.network(),
                    preset,
                    trained=start.weights is not None,
                    seconds=seconds,
                    device=device,
                    precision=precision,
                    progress=progress,
                )
                if keep:
                    _keep(job, picture, adapted.lesson, adapted.learnt, start)
                write_picture(job.target, with_pixels(picture, adapted.image))
        except DerainError as error:
            yield failed(job, error)
        else:
            yield Outcome(job, "restored", adapted.note)


def adapt_together(
    jobs: Sequence[Job],
    start: Start,
    preset: adapt.Preset,
    network_file: Path,
    *,
    seconds: float | None = None,
    device: str | torch.device = "cpu",
    precision: torch.dtype = torch.float32,
    keep: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = adapt.silent,
) -> Iterator[Outcome]:
    """One network for all pictures, saved for `derain run --weights`, then applied to each.

    All pictures are held in memory. Those that cannot be read are reported and left out.

    Raises:
        DerainError: no picture could be read, the network file exists, time is up before the first
            step, or the loss is no longer finite.
    """
    if network_file.exists() and not overwrite:
        raise UsageError(f"{network_file}: exists already.", Remedy("replace it", {"overwrite": True}))
    began = time.monotonic()
    network = start.network()
    trained = start.weights is not None
    taught: list[tuple[Job, Picture, adapt.Lesson]] = []
    for job in jobs:
        try:
            with errors_of(job.source):
                picture = read_picture(job.source)
                lesson = adapt.prepare(
                    to_tensor(picture), preset, network.to(device) if trained else None, device
                )
        except DerainError as error:
            yield failed(job, error)
        else:
            taught.append((job, picture, lesson))
    if not taught:
        raise DerainError("no picture could be read, so there is nothing to learn from.")
    if not trained and not preset.plain:
        adapt.start_at_identity(network)
    learnt = adapt.learn(
        [lesson for _, _, lesson in taught],
        network,
        preset,
        together=True,
        trained=trained,
        seconds=None if seconds is None else seconds - (time.monotonic() - began),
        device=device,
        precision=precision,
        progress=progress,
    )
    if not learnt.losses:
        raise DerainError("time was up before the first step; give more minutes or fewer pictures.")
    _save(network_file, learnt, start)
    for job, picture, lesson in taught:
        if exists(job.target) and not overwrite:
            yield skipped(job)
            continue
        try:
            with errors_of(job.source, job.target):
                if keep:
                    _keep(job, picture, lesson, None, start)
                image = adapt.restore(lesson, learnt.network, preset, device)
                write_picture(job.target, with_pixels(picture, image))
        except DerainError as error:
            yield failed(job, error)
        else:
            notes = [note for note in (lesson.warning, learnt.note) if note]
            yield Outcome(job, "restored", "; ".join(notes))


def _keep(
    job: Job, picture: Picture, lesson: adapt.Lesson, learnt: adapt.Learnt | None, start: Start
) -> None:
    """Mask, references and weights, in OUT/kept/NAME."""
    folder = job.folder / KEPT / job.name
    _write_map(folder / "mask.png", lesson.rain_map)
    write_picture(folder / "reference.png", with_pixels(picture, lesson.mean))
    for draw in range(len(lesson.draws or ())):
        assert lesson.draws is not None
        write_picture(folder / "references" / f"{draw}.png", Picture(lesson.draws[draw]))
    if learnt is not None:
        _save(folder / NETWORK_FILE, learnt, start)


def _write_map(path: Path, rain_map: Bytes) -> None:
    write_picture(path, Picture(np.ascontiguousarray(rain_map[..., None])))


def _save(path: Path, learnt: adapt.Learnt, start: Start) -> None:
    facts = {"network": start.name, "config": start.config, "step": len(learnt.losses)}
    save_checkpoint(path, learnt.network.state_dict(), facts)
