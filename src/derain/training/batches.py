"""From a recipe's folders to batches: which pictures, which items at which step, in which process."""

from __future__ import annotations

import functools
import itertools
import multiprocessing.util
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from derain.cores import cores
from derain.data.folders import pictures_in
from derain.data.mixtures import CYCLE, Mixture, interleave
from derain.data.pairing import pair_folders
from derain.data.patches import (
    KEPT,
    Cut,
    Item,
    PairedPatches,
    Pictures,
    Rainmaker,
    SyntheticPairs,
    rain_of_layers,
    rain_of_preset,
)
from derain.data.synthesis import preset
from derain.data.synthesis.layers import ADDED, FILMED
from derain.data.synthesis.weather import ORDINARY, Weather
from derain.errors import DerainError, UsageError
from derain.evaluation import protocol
from derain.training.recipe import Data, Recipe, Stage, Validation, shares_of, sources_of


@dataclass(frozen=True)
class TrainingSource:
    """Clean pictures with their rainy ones, or with a function that adds rain to them."""

    clean: Pictures
    rain: Pictures | Rainmaker

    def __len__(self) -> int:
        return len(self.clean)

    def patches(self, cut: Cut, seed: int) -> Dataset[Item]:
        """The endless stream of training items."""
        if isinstance(self.rain, Pictures):
            return PairedPatches(self.rain, self.clean, cut, seed)
        return SyntheticPairs(self.clean, self.rain, cut, seed)


HeldOut = list[tuple[TrainingSource, int]]  # pictures to validate on: a source and an index in it


def open_sources(recipe: Recipe) -> tuple[list[TrainingSource], HeldOut]:
    """The sources to train on, in the order of the recipe, and the pictures to validate on.

    Raises:
        DerainError: a folder is missing or empty, a picture has no partner, the set is smaller
            than a batch, or the validation's protocol does not exist or compares with no picture.
    """
    validation = recipe.validation
    if validation and not protocol(validation.protocol).needs_truth:
        raise UsageError(
            f"'validation.protocol': {validation.protocol} gives no PSNR, which the best weights are "
            "chosen by; take one that compares with the clean picture, e.g. matlab_y_uint8."
        )
    parts = sources_of(recipe)
    found = [_files(name, part) for name, part in parts.items()]
    every = validation.hold_out if validation else None
    trained_on = [[file for i, file in enumerate(files) if not every or i % every] for files in found]
    for name, files in zip(parts, trained_on, strict=True):
        if not files:
            raise UsageError(f"'{name}': its only picture is kept for the validation; add more pictures.")
    largest, count = max(stage.batch for stage in recipe.stages), sum(map(len, trained_on))
    if largest > count:
        raise UsageError(
            f"a batch of {largest} is larger than the set of {count} pictures; use a smaller 'batch'."
        )
    opened: dict[tuple[Path, ...], Pictures] = {}  # sources of one folder share the pictures read
    train = [_source(f, part, opened) for f, part in zip(trained_on, parts.values(), strict=True)]
    if validation is None:
        return train, []
    if every:
        kept = [_source(f[::every], p, None) for f, p in zip(found, parts.values(), strict=True)]
        return train, _sample(kept, shares_of(recipe), validation.count)
    return train, _sample(
        [_source(_files("validation", validation), validation, None)], [1], validation.count
    )


def _sample(sources: Sequence[TrainingSource], shares: Sequence[float], count: int) -> HeldOut:
    """At most `count` pictures; sources take turns by their shares until they have no more."""
    if len(sources) == 1:
        return [(sources[0], number) for number in range(min(count, len(sources[0])))]
    order = interleave(shares)
    rounds = -(-max(map(len, sources)) // int(order.counts.min()))
    places = (order(item) for item in range(rounds * CYCLE))
    held_out = ((sources[source], number) for source, number in places if number < len(sources[source]))
    return list(itertools.islice(held_out, count))


def _files(name: str, part: Data | Validation) -> list[tuple[Path | None, Path]]:
    if part.clean is None:
        other = ", or 'validation.hold_out' to e.g. 20" if name == "validation" else ""
        raise UsageError(f"'{name}.clean' is not given; set it to a folder of clean pictures{other}.")
    layers = part.layers if isinstance(part, Data) else None
    if part.rainy is None and part.rain is None and layers is None:
        raise UsageError(
            f"'{name}.rainy' is not given; set it to the folder of rainy pictures, "
            f"or '{name}.rain' to a preset, e.g. light."
        )
    if part.rainy is not None:
        return [(pair.picture, pair.partner) for pair in pair_folders(Path(part.rainy), Path(part.clean))]
    if part.rain is not None:
        preset(part.rain)  # so that an unknown name is an error now, not in a worker
    return [(None, file) for file in pictures_in(part.clean)]


def _source(
    files: list[tuple[Path | None, Path]],
    part: Data | Validation,
    opened: dict[tuple[Path, ...], Pictures] | None,
) -> TrainingSource:
    """A source over files; with `opened`, pictures are kept in memory if the recipe asks for it."""

    def pictures(paths: list[Path]) -> Pictures:
        if opened is None or not (isinstance(part, Data) and part.keep):
            return Pictures(paths, room=0)
        return opened.setdefault(tuple(paths), Pictures(paths, KEPT))

    clean, rainy = [clean for _, clean in files], [file for file, _ in files if file is not None]
    if rainy:
        return TrainingSource(pictures(clean), pictures(rainy))
    if part.rain is not None:
        weather = Weather(angle=part.angle) if isinstance(part, Data) else ORDINARY
        return TrainingSource(pictures(clean), rain_of_preset(part.rain, weather))
    assert isinstance(part, Data)
    assert part.layers is not None
    layers = pictures(pictures_in(part.layers))
    return TrainingSource(pictures(clean), rain_of_layers(layers, ADDED if part.added else FILMED))


@dataclass(frozen=True)
class Span:
    """The steps that one stage covers, from `first` up to but not including `end`."""

    stage: Stage
    first: int
    end: int


def spans(recipe: Recipe) -> list[Span]:
    """The stages laid out over the run; the last one lasts until its end."""
    result, first = [], 0
    for number, stage in enumerate(recipe.stages):
        last = number + 1 == len(recipe.stages)
        end = recipe.steps if last or stage.steps is None else min(first + stage.steps, recipe.steps)
        if end > first:
            result.append(Span(stage, first, end))
        first = end
    return result


def first_items(recipe: Recipe) -> list[int]:
    """The index of the first item of every span: how many items the spans before it have used."""
    counts, used = [], 0
    for span in spans(recipe):
        counts.append(used)
        used += span.stage.batch * (span.end - span.first)
    return counts


def batches(
    recipe: Recipe, sources: Sequence[TrainingSource], start: int, process: int, processes: int
) -> Generator[list[dict[str, Any]]]:
    """For every step from `start` on: this process's parts of the batch, one per accumulation.

    Every process has its share of a step's items and divides it into parts, so that an update uses the same
    pictures however they are divided.

    Raises:
        DerainError: a picture cannot be read or used; the message names it.
    """
    for span, used in zip(spans(recipe), first_items(recipe), strict=True):
        if span.end <= start:
            continue
        begin = max(span.first, start)
        batch, parts = span.stage.batch, recipe.accumulate
        if batch % (processes * parts):
            raise UsageError(
                f"a batch of {batch} cannot be divided by {processes} processes with 'accumulate' {parts}."
            )
        share = batch // processes
        mine = used + (begin - span.first) * batch + process * share
        order = _Order(mine, span.end - begin, stride=batch, parts=parts, size=share // parts)
        # Creates the folder for the workers' sockets here, so that it belongs to this process and outlives
        # them. A worker with its own may remove it while opening a socket there, which ends in a traceback.
        multiprocessing.util.get_temp_dir()
        over = torch.multiprocessing.get_context().Event()
        loader = DataLoader(
            _Guarded(_items(recipe, sources, span.stage.patch)),
            batch_sampler=order,
            num_workers=min(recipe.workers, len(order), cores()),
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),  # copies to a GPU then overlap with its work
            worker_init_fn=functools.partial(_leave_signals_to_main, over),
            generator=torch.Generator(),  # the loader draws a seed for workers; keep it off the global state
        )
        stream = iter(loader)
        try:
            for _ in range(begin, span.end):
                yield [_checked(next(stream)) for _ in range(parts)]
        finally:
            over.set()
            del stream  # ends the workers now, even if a traceback refers to this frame


def _items(recipe: Recipe, sources: Sequence[TrainingSource], patch: int) -> Dataset[Item]:
    """The endless stream of training items at one patch size, from the only source or from the mixture."""
    parts = sources_of(recipe).values()
    cuts = [Cut(patch, part.crop, part.turns, part.saturation, part.sideways, part.zoom) for part in parts]
    if isinstance(recipe.data, Data):
        return sources[0].patches(cuts[0], recipe.seed)
    seeds = [_seed_of_source(recipe.seed, number) for number in range(len(sources))]
    streams = [source.patches(cut, seed) for source, cut, seed in zip(sources, cuts, seeds, strict=True)]
    return Mixture(streams, shares_of(recipe))


def _seed_of_source(seed: int, number: int) -> int:
    """The seed of a source, as sources over the same pictures must not cut the same patches."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class _Order:
    """The items of one process: for every step `parts` lists of `size` consecutive numbers."""

    first: int
    steps: int
    stride: int
    parts: int
    size: int

    def __len__(self) -> int:
        return self.steps * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            for part in range(self.parts):
                begin = self.first + step * self.stride + part * self.size
                yield list(range(begin, begin + self.size))


class _Guarded(Dataset[Item | DerainError]):
    """Passes on a user's error as an item, as one raised in a worker would arrive as a traceback."""

    def __init__(self, items: Dataset[Item]) -> None:
        self.items = items

    def __getitem__(self, index: int) -> Item | DerainError:
        try:
            return self.items[index]
        except DerainError as error:
            return error


def _collate(items: list[Item | DerainError]) -> dict[str, Any] | DerainError:
    for item in items:
        if isinstance(item, DerainError):
            return item
    batch: dict[str, Any] = default_collate(items)
    return batch


def _checked(batch: dict[str, Any] | DerainError) -> dict[str, Any]:
    if isinstance(batch, DerainError):
        raise batch
    return batch


def _leave_signals_to_main(over: Event, _: int) -> None:
    """Ignores Ctrl-C in a terminal and SIGTERM from a batch system, which reach workers as well, while the
    main process still needs the rest of its step. Once that is `over`, it ends busy workers by SIGTERM."""

    def end(*_: object) -> None:
        if over.is_set():
            os._exit(0)  # any other status would raise an error in the main process

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)


def to_device(batch: dict[str, Any], device: torch.device, channels_last: bool) -> tuple[Tensor, Tensor]:
    """`rainy` and `clean` of a batch, (B, 3, H, W)."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    rainy, clean = (batch[name].to(device, non_blocking=True) for name in ("rainy", "clean"))
    return rainy.to(memory_format=layout), clean.to(memory_format=layout)  # faster on the device
