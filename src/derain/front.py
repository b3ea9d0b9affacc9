"""The commands' work as functions for programs: scoring, evaluating, training.

Each imports what it needs when called, so that scoring does not load the training code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from derain.errors import UsageError, refuse_unknown, wrong_type
from derain.paths import path_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor, nn

    from derain.evaluation.candidates import Candidate
    from derain.evaluation.cases import Case
    from derain.evaluation.levels import Quantise
    from derain.evaluation.report import Report
    from derain.evaluation.scores import SetScore
    from derain.restore import Derainer
    from derain.restore.rain import Rain
    from derain.training import Recipe

    PictureLike: TypeAlias = NDArray[Any] | Tensor | Image.Image
    ModelLike: TypeAlias = str | Path | nn.Module | Derainer | None


def score(
    restored: str | Path | PictureLike,
    clean: str | Path | PictureLike | None = None,
    protocol: str = "matlab_y_uint8",
    *,
    rainy: str | Path | PictureLike | None = None,
    masks: str | Path | PictureLike | None = None,
    crop_to_common: bool = False,
) -> SetScore:
    """Scores restored pictures, two folders of them, two files or two clips, under a published protocol.

    Examples:
        >>> import derain, numpy
        >>> clean = numpy.full((32, 32, 3), 100, numpy.uint8)
        >>> {name: round(value, 2) for name, value in derain.score(clean + 10, clean).mean.items()}
        {'psnr': 30.07, 'ssim': 1.0}

    Args:
        restored: a file or a folder; or a PIL picture, an array (H, W, 3) or (H, W), or a tensor
            (3, H, W) or (B, 3, H, W), of bytes or of floats in [0, 1].
        clean: the truth, of the same kind; folders are paired by name. None for NIQE and BRISQUE.
        protocol: a key of `derain.evaluation.PROTOCOLS`.
        rainy, masks: the rainy pictures and masks of their rain, of the same kind, for `real_rain`.
        crop_to_common: for files: crop pictures of different sizes to their common centre.

    Returns:
        The figures of each picture and their `mean`, {measure: value}. Pictures of a folder
        that could not be scored are listed in `failed` and are not in the mean.

    Raises:
        UsageError: the protocol is not known, or needs a clean picture and there is none.
        DerainError: no picture could be read or compared, or something is no picture.
    """
    from derain.evaluation import Scores
    from derain.evaluation.clips import with_frames
    from derain.evaluation.scoring import plan_of, score_files

    others = {"clean": clean, "rainy": rainy, "mask": masks}
    given = [restored, *(other for other in others.values() if other is not None)]
    if any(isinstance(picture, str) and not picture for picture in given):
        raise UsageError("a path is empty; give a file or a folder.")
    are_paths = [isinstance(picture, str | Path) for picture in given]
    if all(are_paths):
        named = {"restored": restored, "clean": clean, "rainy": rainy, "masks": masks}
        paths = {kind: Path(path) if isinstance(path, str | Path) else None for kind, path in named.items()}
        with with_frames(paths) as places:
            return score_files(plan_of(places, [protocol]), [protocol], crop_to_common).sets[0]
    if any(are_paths):
        raise UsageError("give either paths or pictures, not some of each.")
    scores = Scores(protocol)
    compared: dict[str, Any] = {
        kind: _levels(picture) for kind, picture in others.items() if picture is not None
    }
    scores.update(_levels(restored), **compared)
    return scores.compute()


def _levels(picture: Any) -> NDArray[Any] | Tensor:
    """A picture as an array or tensor; one of PIL is turned upright, and a palette gives its colours.

    Raises:
        UsageError: it is no picture.
    """
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from derain.restore.in_memory import no_picture, pil_upright

    if isinstance(picture, Image.Image):
        upright = pil_upright(picture)
        return np.asarray(upright.convert({"P": "RGB", "1": "L"}.get(upright.mode, upright.mode)))
    if isinstance(picture, np.ndarray | Tensor):
        return picture
    raise no_picture(picture)


def rain(picture: str | Path | PictureLike, model: ModelLike = None) -> Rain:
    """How much rain there is in a picture.

    For many pictures, load the model once: `restore = derain.load()`, then `restore.rain(picture)`.

    Examples:
        >>> import derain, numpy
        >>> derain.rain(numpy.full((48, 48, 3), 90, numpy.uint8)).share
        0.0

    Args:
        picture: a file; or a PIL picture, an array (H, W, 3) or (H, W), or a tensor (3, H, W).
        model: anything that `derain.load` takes, or a `Derainer`.

    Returns:
        Figures, and `is_raining`: whether they are above the threshold that was measured for the weights.

    Raises:
        UsageError: the model is not known.
        DerainError: the picture cannot be read, or is of an unknown type.
    """
    from derain.restore import Derainer, load

    restore = model if isinstance(model, Derainer) else load(model)
    return restore.rain(picture)


def evaluate(
    rainy: str | Path,
    clean: str | Path | None = None,
    models: Iterable[ModelLike | Candidate | tuple[str, ModelLike | Candidate]] = (None,),
    *,
    masks: str | Path | None = None,
    results: Mapping[str, str | Path] | None = None,
    protocols: str | Sequence[str] = (),
    name: str = "",
    output: str | Path = "evaluation",
    quantise: Quantise = "round",
    device: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    ensemble: bool | str = False,
    test_time: Sequence[str] = (),
    own_code: bool = False,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Restores a set with one or more models, scores it, and writes a report.

    The unchanged input is scored too. Resumes where an earlier run into the same folder stopped.

    Args:
        rainy: a public set as unpacked, or the folder of rainy pictures.
        clean: the folder of clean pictures; None for a public set, or where no truth is known.
        models: each as `derain.load` takes it; a `Derainer`, which is taken as it is; any
            `torch.nn.Module` that maps pictures to pictures; any ONNX file that maps pictures; or
            "package.module:factory", WHOSE CODE IS RUN, see `derain.evaluation.candidates`. ("ours", MODEL)
            is called "ours" in tables.
        masks: the folder of rain masks, for real rain without clean pictures.
        results: {name: folder} of results of other programs, to compare with the models.
        protocols: one or more keys of `derain.evaluation.PROTOCOLS`; by default the one usual for a public
            set.
        name: what tables call the set; by default that of the public set.
        output: the folder of the report; gets `index.html`, `report.json`, tables, sheets, and the pictures.
            The next evaluation into it replaces these, but restored pictures of other models stay.
        quantise: how results become bytes.
        device, tile, ensemble: as for `derain.load`.
        precision: as for `derain.load`, but "auto" is float32, so that figures do not depend on the machine.
        test_time: "flips", "turns" or "phases": measure every model with each of them, too.
        own_code: run the Python code of a custom network that the weights name, as for `derain.load`.
        on_picture: called with the number of pictures done and of all pictures, over all models.

    Returns:
        The report; `report.networks[0].scores(NAME).mean` are the figures of the first model. Pictures
        that failed are listed in `report.failed` and are not in any figure.

    Raises:
        UsageError: there is not exactly one set of pictures, a name is not known, or the set has no default
            protocol.
        DerainError: a picture has no partner, none could be read, restored and compared, or another
            process evaluates into the same folder.
    """
    from derain.evaluation.candidates import candidate_of
    from derain.evaluation.cases import find_cases
    from derain.evaluation.evaluate import evaluate as run
    from derain.evaluation.levels import Quantise
    from derain.evaluation.page import write_report
    from derain.evaluation.report import Report, repeats_of
    from derain.locks import exclusive_lock
    from derain.restore import Settings

    refuse_unknown("way to quantise", quantise, get_args(Quantise))
    options = _listed("test_time", test_time)
    if options and ensemble:
        raise UsageError("ensemble and test_time both average over flips or rotations; give one of them.")
    if not isinstance(name, str):
        raise wrong_type("the name of a set", name, "text")
    truth = None if clean is None else path_of("the clean folder", clean)
    marks = None if masks is None else path_of("the folder of masks", masks)
    folder = path_of("the folder of the report", output)
    names = (protocols,) if isinstance(protocols, str) else _listed("protocols", protocols)
    test_set = find_cases(path_of("the rainy folder", rainy), truth, marks, names, name)
    settings = Settings(device, precision, tile, ensemble=ensemble)
    opened = functools.partial(candidate_of, settings=settings, own_code=own_code)
    candidates = _candidates(models, results, options, test_set.cases, opened)
    used = ", ".join(dict.fromkeys(str(c.device) for c in candidates if c.restore))
    done, total = 0, len(candidates) * len(test_set.cases)

    def count() -> None:
        nonlocal done
        done += 1
        on_picture(done, total)

    with exclusive_lock(folder / "records.jsonl"):
        found = run(candidates, test_set.cases, test_set.protocols, folder, quantise, count)
        scored = {record.name for record in found[0].records}
        repeats = repeats_of([case for case in test_set.cases if case.name in scored])
        report = Report(test_set, found, folder, used, quantise, repeats)
        write_report(report)
    return report


def _candidates(
    models: Any,
    results: Any,
    options: Sequence[str],
    cases: Sequence[Case],
    opened: Callable[..., Candidate],
) -> list[Candidate]:
    """The unchanged input, every model as it is and with each of the options, and finished results.

    Args:
        models, results: see `evaluate`.
        options: see `test_time` there.
        cases: what is restored.
        opened: makes a candidate of a model, whose name is not `taken`, or its `title`.
    """
    from derain.evaluation.candidates import finished_results, input_unchanged, with_option

    found = [input_unchanged(cases)]
    for given in _listed("models", models):
        title, model = given if isinstance(given, tuple) else (None, given)
        candidate = opened(model, taken=[c.name for c in found], title=title)
        found += [candidate, *(with_option(candidate, option) for option in options)]
    if not isinstance(results, Mapping | None):
        raise wrong_type("results", results, "a dictionary {name: folder}")
    for title, folder in (results or {}).items():
        files = path_of(f"the results of {title}", folder)
        found.append(finished_results(title, files, cases, [c.name for c in found]))
    return found


def _listed(what: str, given: Any) -> list[Any]:
    """The elements of a list; text in its place, whose elements are letters, is refused, too."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise wrong_type(what, given, "a list")
    return list(given)


def train(
    recipe: str | Path | Recipe | Mapping[str, Any],
    run: str | Path,
    *,
    progress: Callable[[int, int, str], None] | None = None,
    own_code: bool = False,
    **changes: Any,
) -> Path:
    """Trains a network, and keeps the run in a folder; a run that stopped there is resumed.

    Examples:
        A published recipe on pictures of your own, for 5,000 steps:

            weights = derain.train("spanet/synthetic", "runs/first", data={"clean": "photos"}, steps=5000)
            restore = derain.load(weights)

    Args:
        recipe: the name of a published recipe (`derain.training.published_recipes()`), a YAML file, a
            `Recipe`, or its content as a dictionary.
        run: the folder of the run. Give the same one, with more `steps`, to continue.
        progress: called with the number of updates done and of all, and words: first, if a run is resumed,
            where it continues; after each update, the last loss and validation.
        own_code: run the Python code that the recipe names (`package.module:name`), its network or its loss.
        changes: parts of the recipe to replace, as in its file; a dictionary replaces only the keys that it
            contains.

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
    elif isinstance(recipe, str | Path):
        content, source = load_recipe(recipe).model_dump(), str(recipe)
    else:
        raise wrong_type("a recipe", recipe, "the name of a published one, a file or a dictionary")
    folder = path_of("the folder of the run", run)
    merged = _merged(with_current_keys(content), with_current_keys(changes))
    train_recipe(checked(merged, source), folder, progress, own_code)
    return folder / "last.safetensors"


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with `changes` applied; a part of another `name`, such as a schedule, is replaced whole."""
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
