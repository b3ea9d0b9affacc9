"""Learning from files of rainy pictures alone, with no clean ones to compare them with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from derain.atomic import refuse_existing, refuse_unwritable
from derain.checkpoints import open_checkpoint, save_checkpoint
from derain.checkpoints.bundled import find_model
from derain.errors import DerainError, Remedy, UsageError, errors_of, refuse_unknown
from derain.methods import all_methods, create_network, network_names
from derain.methods.network import RainNetwork
from derain.methods.self_supervision import Bytes, Fit, FitOptions, SelfSupervision, Target
from derain.nn.padding import pad_to_multiple
from derain.notes import join_notes
from derain.pictures import Picture, left_out, read_picture, to_rgb8, to_tensor, with_pixels, write_picture
from derain.restore.jobs import Job, Made, Outcome, carry_out, failed, prepare_folders
from derain.restore.precision import choose_precision, is_bfloat16_native
from derain.restore.test_time import with_test_time
from derain.restore.tiles import OVERLAP, even_axis, run_tiles

NETWORK_FILE = "network.safetensors"
KEPT = "kept"
FEWEST_STEPS = 20  # after fewer, a network leaves artefacts in the picture
TILE = 512  # pixels: side of the tiles into which larger pictures are cut


def presets() -> Mapping[str, SelfSupervision]:
    """All ways to learn from rainy pictures alone, by name; the first is the default."""
    ways = [method.self_supervision for method in all_methods() if method.self_supervision is not None]
    return {name: way for give in ways for name, way in give().items()}


def preset(name: str) -> SelfSupervision:
    """One way to learn. Raises `UsageError` for a name that does not exist."""
    known = presets()
    refuse_unknown("preset", name, known)
    return known[name]


@dataclass(frozen=True)
class Start:
    """The network to start with.

    Attributes:
        name: its name in the registry.
        config: keyword arguments of its class.
        weights: trained weights, or None to initialise new ones.
        seed: the seed for new weights.
    """

    name: str
    config: dict[str, Any]
    weights: dict[str, Tensor] | None
    seed: int

    def network(self) -> RainNetwork:
        """A new network in this state; weights that are not trained are initialised alike each time."""
        torch.manual_seed(self.seed)
        network = create_network(self.name, **self.config)
        if self.weights is not None:
            network.load_state_dict(self.weights, strict=True)
        return network


def starting_point(way: SelfSupervision, network: str | None = None, model: str | None = None) -> Start:
    """The network to start with.

    Args:
        way: how to learn.
        network: the name in the registry of an untrained one; None for the default.
        model: trained weights: a file, or the name of bundled ones; None for an untrained network.

    Raises:
        UsageError: both are given, the way takes no trained network, or a name is not known.
        DerainError: the file cannot be opened.
    """
    if model is None:
        name = network or way.network
        refuse_unknown("network", name, network_names())
        architecture, variant = network_names()[name]
        return Start(architecture.name, dict(architecture.variants[variant]), None, way.seed)
    if network is not None:
        raise UsageError(
            f"{model}: the weights already say which network it is; '{network}' is not needed.",
            Remedy("start from the weights", {"backbone": None}),
        )
    if not way.takes_trained:
        raise UsageError(
            f"{model}: this preset starts from fresh weights.",
            Remedy("start from trained ones", {"preset": "quick"}),
        )
    trained, checkpoint = open_checkpoint(find_model(model), own_code=None)
    return Start(checkpoint.architecture.name, checkpoint.config, trained.state_dict(), way.seed)


def learning_precision(name: str, start: Start, way: SelfSupervision, device: torch.device) -> torch.dtype:
    """The precision to learn in: the requested one; for "auto", bfloat16 where the processor, the way and the
    network allow it, else float32.

    Raises:
        UsageError: the network's results would suffer in the requested precision.
    """
    network = start.network()
    safe = way.safe_in_bfloat16 and "bfloat16" not in network.spec.refused_precisions
    if name == "auto" and safe and is_bfloat16_native(device):
        return torch.bfloat16
    return choose_precision(name, start.name, network)


def apply(
    network: RainNetwork, picture: Tensor, device: torch.device | str = "cpu", least_side: int = 1
) -> Tensor:
    """A network's result for a picture (1, 3, H, W) of any size, in [0, 1].

    Large pictures are cut into tiles of `TILE` pixels rather than those of the published tests, as nothing
    here is compared with published figures.
    """
    height, width = picture.shape[2:]
    multiple = network.spec.multiple_of
    padded = pad_to_multiple(picture, multiple, least_side)
    size = TILE if height * width > TILE * TILE else max(padded.shape[2:])
    rows, columns = (even_axis(side, size, OVERLAP, multiple, hard_cut=False) for side in padded.shape[2:])
    network = network.to(device).eval()
    with torch.inference_mode():
        outputs = run_tiles(padded, lambda tile: {"image": network(tile.to(device)).cpu()}, rows, columns)
    return outputs["image"][..., :height, :width].clamp(0, 1)


def restore_target(
    target: Target, network: RainNetwork, way: SelfSupervision, device: torch.device | str = "cpu"
) -> Tensor:
    """The picture of a target, restored by a fitted network: (1, 3, H, W) in [0, 1]."""

    def once(rainy: Tensor) -> Tensor:
        return apply(network, rainy, device, way.least_side)

    restored = with_test_time(once, "flips") if way.flips else once
    return way.finished(target, restored(target.rainy))


@dataclass(frozen=True)
class Adapted:
    """A picture restored by learning from it, with all intermediate results.

    Attributes:
        image: (1, 3, H, W) in [0, 1].
        target: what was trained on.
        fit: the network, or None if there was nothing to learn or no time to apply it.
        note: what a user should know, or "".
    """

    image: Tensor
    target: Target
    fit: Fit | None
    note: str


def adapt_one(
    rainy: Tensor, network: RainNetwork, way: SelfSupervision, options: FitOptions | None = None
) -> Adapted:
    """Learns from one picture and restores it.

    Args:
        rainy: (1, 3, H, W) in [0, 1].
        network: one from the registry; trained in place.
        way: how to learn.
        options: how to fit; `seconds` is the limit for everything, so training stops early enough to
            apply the network.

    Raises:
        DerainError: the picture is too small, or the loss is no longer finite.
    """
    options = options or FitOptions()
    began, seconds = time.monotonic(), options.seconds

    def left() -> float | None:
        return None if seconds is None else seconds - (time.monotonic() - began)

    target = make_target(rainy, network, way, options)
    if not target.suspected.any():
        return Adapted(rainy, target, None, target.warning)
    fit = way.fit([target], network, replace(options, seconds=left()))
    notes = [target.warning, fit.note]
    remaining = left()
    too_short = fit.ended == "time" and len(fit.losses) < FEWEST_STEPS
    if too_short or (remaining is not None and fit.seconds_to_restore > 2 * max(remaining, 0)):
        notes.append("too little time to train: streaks were only filled in from their neighbours")
        return Adapted(target.mean, target, None, join_notes(*notes))
    return Adapted(restore_target(target, fit.network, way, options.device), target, fit, join_notes(*notes))


def make_target(rainy: Tensor, network: RainNetwork, way: SelfSupervision, options: FitOptions) -> Target:
    """The target made from a picture, with the result of a trained network if there is one.

    Raises:
        DerainError: see `SelfSupervision.target`.
    """
    derained = apply(network, rainy, options.device, way.least_side) if options.trained else None
    return way.target(rainy, derained)


def write_maps(jobs: Sequence[Job], way: SelfSupervision, overwrite: bool = False) -> Iterator[Outcome]:
    """Writes the published rain map of each picture as an 8-bit picture."""

    def write(job: Job) -> Made:
        rain_map, note = way.rain_map(to_rgb8(read_picture(job.source)))
        _write_map(job.target, rain_map)
        return Made(note)

    return carry_out(jobs, write, overwrite)


def adapt_each(
    jobs: Sequence[Job],
    start: Start,
    way: SelfSupervision,
    options: FitOptions,
    *,
    keep: bool = False,
    overwrite: bool = False,
) -> Iterator[Outcome]:
    """Trains one network per picture, for at most `options.seconds` each. A failure does not stop the rest.

    Args:
        jobs: pictures.
        start: the network to start with.
        way: how to learn.
        options: how to fit.
        keep: also write the mask, references and weights to OUT/kept.
        overwrite: replace results that exist.

    Raises:
        DerainError: no result could be written; checked before any work is done.
    """
    options = replace(options, trained=start.weights is not None)

    def adapt(job: Job) -> Made:
        picture = read_picture(job.source)
        adapted = adapt_one(to_tensor(picture), start.network(), way, options)
        if keep:
            _keep(job, picture, adapted.target, adapted.fit, start)
        lost = write_picture(job.target, with_pixels(picture, adapted.image))
        return Made(join_notes(adapted.note, left_out(lost)))

    return carry_out(jobs, adapt, overwrite)


def adapt_together(
    jobs: Sequence[Job],
    start: Start,
    way: SelfSupervision,
    network_file: Path,
    options: FitOptions,
    *,
    keep: bool = False,
    overwrite: bool = False,
) -> Iterator[Outcome]:
    """Trains one network on all pictures, saves it as a checkpoint, and applies it to each.

    All pictures are held in memory. Those that cannot be read are reported and left out.

    Raises:
        DerainError: no picture could be read, the network file exists or cannot be written, or the loss
            is no longer finite.
    """
    refuse_existing(network_file, overwrite)
    refuse_unwritable(network_file.parent)
    prepare_folders(jobs, overwrite=True)
    began = time.monotonic()
    network = start.network()
    options = replace(options, together=True, trained=start.weights is not None)
    prepared: dict[Job, tuple[Picture, Target]] = {}
    for job in jobs:
        try:
            with errors_of(job.source):
                picture = read_picture(job.source)
                target = make_target(to_tensor(picture), network, way, options)
        except DerainError as error:
            yield failed(job, error)
        else:
            prepared[job] = picture, target
    if not prepared:
        raise DerainError("no picture could be read, so there is nothing to learn from.")
    seconds = None if options.seconds is None else options.seconds - (time.monotonic() - began)
    fit = way.fit([target for _, target in prepared.values()], network, replace(options, seconds=seconds))
    _save(network_file, fit, start)

    def restore(job: Job) -> Made:
        picture, target = prepared[job]
        if keep:
            _keep(job, picture, target, None, start)
        image = restore_target(target, fit.network, way, options.device)
        lost = write_picture(job.target, with_pixels(picture, image))
        return Made(join_notes(target.warning, fit.note, left_out(lost)))

    yield from carry_out(list(prepared), restore, overwrite)


def _keep(job: Job, picture: Picture, target: Target, fit: Fit | None, start: Start) -> None:
    """Writes the mask, references and weights to OUT/kept/NAME."""
    folder = job.folder / KEPT / job.name
    _write_map(folder / "mask.png", target.rain_map)
    write_picture(folder / "reference.png", with_pixels(picture, target.mean))
    if target.references is not None:
        for number in range(len(target.references)):
            write_picture(folder / "references" / f"{number}.png", Picture(target.references[number]))
    if fit is not None:
        _save(folder / NETWORK_FILE, fit, start)


def _write_map(path: Path, rain_map: Bytes) -> None:
    write_picture(path, Picture(np.ascontiguousarray(rain_map[..., None])))


def _save(path: Path, fit: Fit, start: Start) -> None:
    facts = {"network": start.name, "config": start.config, "step": len(fit.losses)}
    save_checkpoint(path, fit.network.state_dict(), facts)
