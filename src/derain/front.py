"""The commands' work as functions for programs: scoring, evaluating, training.

Each imports what it needs when it is called, so that scoring does not load the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from derain.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor, nn

    from derain.data.layouts import Split
    from derain.evaluation.evaluate import Contender
    from derain.evaluation.pairs import Quantise
    from derain.evaluation.report import Report
    from derain.evaluation.scores import SetScore
    from derain.restore import Derainer
    from derain.training import Recipe

    Picture: TypeAlias = NDArray[Any] | Tensor | Image.Image
    Model: TypeAlias = str | Path | nn.Module | Derainer | None


def score(
    restored: str | Path | Picture,
    clean: str | Path | Picture | None = None,
    protocol: str = "matlab_y_uint8",
    *,
    crop_to_common: bool = False,
) -> SetScore:
    """Scores restored pictures, two folders of them or two files, under a published protocol.

        >>> import numpy, derain
        >>> clean = numpy.full((32, 32, 3), 100, numpy.uint8)
        >>> {name: round(value, 2) for name, value in derain.score(clean + 10, clean).mean.items()}
        {'psnr': 29.45, 'ssim': 1.0}

    Args:
        restored: a file or a folder; or a PIL picture, an array (H, W, 3) or (H, W), or a tensor
            (3, H, W) or (B, 3, H, W), of bytes or of floats in [0, 1].
        clean: the truth, of the same kind; folders are paired by name. None for NIQE and BRISQUE.
        protocol: a key of `derain.evaluation.PROTOCOLS`.
        crop_to_common: for files: cut pictures of different sizes to their common centre.

    Returns:
        The figures of each picture and their `mean`, {measure: value}.

    Raises:
        UsageError: the protocol is not known, or needs a clean picture and there is none.
        DerainError: a file cannot be read, or pictures cannot be compared.
    """
    from PIL import Image

    from derain.evaluation import Scores
    from derain.evaluation.files import plan, score_files

    if isinstance(restored, str | Path) and (clean is None or isinstance(clean, str | Path)):
        items = plan(Path(restored), None if clean is None else Path(clean), [protocol])
        return score_files(items, [protocol], crop_to_common).sets[0]
    if isinstance(restored, str | Path) or isinstance(clean, str | Path):
        raise UsageError("give two paths or two pictures to compare, not one of each.")
    import numpy as np

    def plain(picture: Picture) -> NDArray[Any] | Tensor:
        return np.asarray(picture) if isinstance(picture, Image.Image) else picture

    scores = Scores(protocol)
    scores.update(plain(restored), None if clean is None else plain(clean))
    return scores.compute()


def evaluate(
    rainy: str | Path,
    clean: str | Path | None = None,
    models: Iterable[Model] = (None,),
    *,
    protocols: Sequence[str] = (),
    output: str | Path = "evaluation",
    quantise: Quantise = "round",
    device: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    ensemble: bool = False,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Restores a set with one or several models, scores it, and writes a report to look at.

    Goes on where an earlier run into the same folder stopped.

    Args:
        rainy: a public set as unpacked, or the folder of rainy pictures.
        clean: the folder of clean pictures; None for a public set.
        models: each as `derain.load` takes it, or a `Derainer` that is taken as it is.
        protocols: keys of `derain.evaluation.PROTOCOLS`; by default the one usual for a public set.
        output: the folder of the report; gets `index.html`, `report.json`, sheets, and the pictures.
        quantise: how results become bytes.
        device, precision, tile, ensemble: as for `derain.load`.
        on_picture: called with the pictures done and their number, over all models.

    Returns:
        The report; `report.networks[0].scores(NAME).mean` are the figures of the first model.

    Raises:
        UsageError: there is not one set of pairs, a name is not known, or no protocol is usual for the set.
        DerainError: a picture has no partner, or cannot be read, restored or compared.
    """
    from derain.evaluation.evaluate import evaluate as run
    from derain.evaluation.evaluate import rainy_contender
    from derain.evaluation.page import write_report
    from derain.evaluation.report import Report
    from derain.restore import Derainer, load

    if quantise not in ("round", "floor"):
        raise UsageError(f"quantise '{quantise}': choose round or floor.")
    test_set, chosen = _test_set(Path(rainy), None if clean is None else Path(clean), protocols)
    pairs = test_set.pairing.pairs
    contenders, used = [rainy_contender()], ""
    for model in models:
        derainer = (
            model
            if isinstance(model, Derainer)
            else load(model, device=device, precision=precision, tile=tile, ensemble=ensemble)
        )
        contenders.append(_contender(derainer, model, [c.name for c in contenders]))
        used = str(derainer.device)
    done, total = 0, len(contenders) * len(pairs)

    def count() -> None:
        nonlocal done
        done += 1
        on_picture(done, total)

    results = run(contenders, pairs, chosen, Path(output), quantise, count)
    report = Report(test_set.dataset, pairs, chosen, results, Path(output), used, _notes(test_set))
    write_report(report)
    return report


def _test_set(rainy: Path, clean: Path | None, protocols: Sequence[str]) -> tuple[Split, tuple[str, ...]]:
    """A whole set of pairs, and the protocols to score it by."""
    from derain.data.layouts import find_splits, split_of
    from derain.data.pairing import refuse_leftovers
    from derain.evaluation import protocol

    if clean is None:
        splits = find_splits(rainy)
        if len(splits) > 1:
            found = ", ".join(str(split.rainy) for split in splits)
            raise UsageError(f"{rainy}: holds {len(splits)} sets; name one of them: {found}.")
        split = splits[0]
    else:
        split = split_of(rainy, clean)
    refuse_leftovers(split.pairing, split.rainy, split.clean)
    usual = [s.protocol for s in split.sets]
    if not protocols and not usual:
        raise UsageError(
            f"{rainy}: no protocol is usual for it, as it is not a known public set; name one, such as "
            "matlab_y_uint8."
        )
    chosen = tuple(dict.fromkeys(protocols or usual))
    for name in chosen:
        protocol(name)
    return split, chosen


def _notes(test_set: Split) -> tuple[str, ...]:
    """What a reader must know before comparing with published figures."""
    count = len(test_set.pairing.pairs)
    whole = [size for s in test_set.sets for split, size in s.sizes.items() if split != "train"]
    if test_set.purpose not in (None, "train"):
        whole = list(test_set.expected)
    if not whole or count in whole:
        return ()
    sizes = " or ".join(map(str, whole))
    return (f"These are {count} pictures; published figures are means over the {sizes} of the test set.",)


def _contender(derainer: Derainer, model: Model, taken: Sequence[str]) -> Contender:
    """A model with a name that no other one has."""
    from derain.checkpoints.hub import names_repository, repository
    from derain.evaluation.evaluate import Contender
    from derain.methods import network_names

    checkpoint = derainer.checkpoint
    if isinstance(model, str | Path) and names_repository(model):
        stem = repository(model).name
    else:
        stem = checkpoint.path.stem if checkpoint else derainer.name
    names = (stem, *(f"{stem}-{i}" for i in range(2, len(taken) + 2)))
    size = (derainer.name, checkpoint.variant if checkpoint else None)
    known = (
        n for n, (architecture, variant) in network_names().items() if (architecture.name, variant) == size
    )
    network: Any = derainer.network

    def restore(rainy: Tensor) -> Tensor:
        return derainer.restore(rainy).image

    return Contender(
        name=next(name for name in names if name not in taken),
        method=next(known, ""),
        restore=restore,
        identity=f"{derainer.identity} {derainer.device}",
        parameters=sum(p.numel() for p in network.parameters()),
        multiply_adds=network.multiply_adds,
    )


def train(
    recipe: str | Path | Recipe | Mapping[str, Any],
    run: str | Path,
    *,
    progress: bool = False,
    **changes: Any,
) -> Path:
    """Trains a network into a folder, from the start or from where the run there stopped.

        derain.train("spanet/synthetic", "runs/first", data={"clean": "photos"}, steps=5000)

    Args:
        recipe: the name of a published recipe (`derain.training.published_recipes()`), a YAML file, a
            `Recipe`, or its content as a dictionary.
        run: the folder of the run. Give the same one, with more `steps`, to go on.
        progress: show a bar with the time left on standard error.
        changes: parts of the recipe to replace, as in its file; a dictionary replaces the keys that it
            has, and keeps the others.

    Returns:
        The weights, `last.safetensors` in the folder.

    Raises:
        UsageError: something is wrong with the recipe or the changes, or the folder holds another run.
        DerainError: pictures cannot be read, the disk is full, or the loss is no longer finite.
        derain.training.Stopped: the process was interrupted; the state was saved.
    """
    from derain.training import Recipe, load_recipe
    from derain.training import train as train_recipe
    from derain.training.recipe import checked, with_current_keys

    if isinstance(recipe, Recipe):
        content, source = recipe.model_dump(), "recipe"
    elif isinstance(recipe, Mapping):
        content, source = dict(recipe), "recipe"
    else:
        content, source = load_recipe(recipe).model_dump(), str(recipe)
    train_recipe(
        checked(_merged(with_current_keys(content), with_current_keys(changes)), source), run, progress
    )
    return Path(run) / "last.safetensors"


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with `changes` in it; a part with another `name`, such as a schedule, is replaced whole."""
    merged = dict(content)
    for key, new in changes.items():
        old = merged.get(key)
        if (
            isinstance(old, Mapping)
            and isinstance(new, Mapping)
            and new.get("name") in (None, old.get("name"))
        ):
            merged[key] = _merged(old, new)
        else:
            merged[key] = new
    return merged
