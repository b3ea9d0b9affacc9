"""A recipe: everything about a training run, in one YAML file.

Unknown keys, wrong types and impossible values are one-line errors that name the place and, for a misspelt
key, the closest known one. Recipes of the published systems are in `methods/<name>/recipes/`;
"nerd_rain/rain200l" names one of them.
"""

from __future__ import annotations

import importlib.resources
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationError,
)

from derain.data.mixtures import CYCLE
from derain.data.patches import NO_ZOOM, Crop, Turns
from derain.data.synthesis.weather import STEEPEST
from derain.errors import UsageError, reason, unknown_name
from derain.plain_yaml import MOST_CHARACTERS, parse_yaml
from derain.precisions import precision_name
from derain.training.mistakes import explain, kinds_at
from derain.training.schedule import Constant, Schedule

Scalar = bool | int | float | str | None
Fraction = Annotated[float, Field(ge=0, lt=1)]
Angle = Annotated[float, Field(ge=-STEEPEST, le=STEEPEST)]
Zoom = Annotated[float, Field(ge=0.1, le=10)]


Precision = Literal["float32", "bfloat16", "float16"]

# Keys and values of older recipes.
_OLD_KEYS = {"optimiser": "optimizer"}
_OLD_TURNS = {"eight": "flips_and_rotations", "nine": "upright_twice_as_likely"}


def _current_turns(value: Any) -> Any:
    return _OLD_TURNS.get(value, value) if isinstance(value, str) else value


def _current_precision(value: Any) -> Any:
    return precision_name(value) if isinstance(value, str) else value


def _loss_options(value: Any) -> Any:
    return {"function": value} if isinstance(value, str) else value


def with_current_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's content with the keys of older recipes renamed to the current ones.

    Raises:
        UsageError: it has a key in both spellings.
    """
    for old, new in _OLD_KEYS.items():
        if old in content and new in content:
            raise UsageError(f"'{old}' and '{new}' are the same; give only '{new}'.")
    return {_OLD_KEYS.get(key, key): value for key, value in content.items()}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """What is trained on: a folder of clean pictures with synthetic rain, or folders of pairs.

    Attributes:
        clean: folder of clean pictures.
        rainy: folder of rainy pictures with the same names; None for synthetic rain.
        rain: preset of `derain.data.synthesis`, if no rainy folder is given.
        angle: smallest and largest angle of that rain's fall, in degrees from vertical; null leaves them to
            the preset.
        layers: folder of pictures of streaks on black, which are laid over the clean ones instead.
        added: layers are added to the unchanged clean pictures, as in most public sets; otherwise scenes are
            darkened first, and layers are blended with them in several ways, to resemble real rain.
        crop: "window" cuts a patch; "resized" cuts 80 to 100 % of the area with an aspect ratio of
            3/4 to 4/3 and resizes it to the patch, as SPANet does.
        turns: "none"; "mirror" left-right; "flips_and_rotations", all eight positions of a square,
            equally likely; "upright_twice_as_likely", the same with no turn twice as likely, as
            NeRD-Rain does.
        saturation: with probability 1/3, colours are made up to 20 % stronger or weaker.
        sideways: share of synthetic pairs that are rotated again after rain was added.
        zoom: smallest and largest factor by which pairs are enlarged (below 1: reduced) together with their
            rain; only for the crop "window".
        keep: keep decoded pictures in memory, up to 1 GiB per folder in each process that makes
            patches.
    """

    clean: str | None = None
    rainy: str | None = None
    rain: str | None = None
    angle: tuple[Angle, Angle] | None = None
    layers: str | None = None
    added: bool = False
    crop: Crop = "window"
    turns: Annotated[Turns, BeforeValidator(_current_turns)] = "flips_and_rotations"
    saturation: bool = False
    sideways: Fraction = 0.0
    zoom: tuple[Zoom, Zoom] = NO_ZOOM
    keep: bool = True


class MixtureSource(Data):
    """One source of a mixture.

    Attributes:
        share: its share of the training items, relative to the shares of the other sources.
        loss: options of the loss for pictures from this source, in place of those of the recipe.
    """

    share: PositiveFloat
    loss: dict[str, Scalar] = {}


class MixedData(_Part):
    """Several sources, each with its own pictures, rain, crop and turns, that take turns by their shares."""

    sources: list[MixtureSource] = Field(min_length=1)


def _kind_of_data(data: Any) -> str:
    named = "sources" in data if isinstance(data, dict) else isinstance(data, MixedData)
    return "MixedData" if named else "Data"


AnyData = Annotated[
    Annotated[Data, Tag("Data")] | Annotated[MixedData, Tag("MixedData")], Discriminator(_kind_of_data)
]


class Stage(_Part):
    """A part of the run with its own patches.

    Attributes:
        patch: side of a patch in pixels.
        batch: number of patches in an update, over all processes.
        steps: number of updates in this stage; None for all that remain, which only the last stage may have.
    """

    patch: Annotated[int, Field(gt=0, le=8192)]
    batch: Annotated[int, Field(gt=0, le=65536)]
    steps: PositiveInt | None = None


class Optimizer(_Part):
    """How gradients become updates.

    Attributes:
        name: "adam"; "adamw" with decoupled weight decay; "sgd" with momentum; "muon" for kernels and
            matrices with AdamW for the rest, both with decoupled weight decay.
        rate: learning rate on which the schedule is based.
        weight_decay: decoupled for AdamW and Muon, added to the gradient for the others.
        betas: betas of Adam and AdamW.
        momentum: momentum of SGD (None: 0.9) and Muon (None: 0.95).
        clip: largest L2 norm of the gradient; None for no limit.
    """

    name: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    rate: PositiveFloat
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    momentum: Fraction | None = None
    weight_decay: NonNegativeFloat = 0.0
    clip: PositiveFloat | None = None


class Validation(_Part):
    """How a run is validated. Without `clean`, every `hold_out`-th training picture is reserved for it.

    Attributes:
        every: steps between validations.
        protocol: a key of `derain.evaluation.PROTOCOLS`.
        clean, rainy, rain: as in `Data`; synthetic rain is the same at every validation.
        hold_out: N reserves every Nth picture of each training folder for validation.
        count: the largest number of pictures.
        patch: None for whole pictures, otherwise the side of the central square that is used.
    """

    every: PositiveInt = 1000
    protocol: str = "matlab_y_uint8"
    clean: str | None = None
    rainy: str | None = None
    rain: str | None = None
    hold_out: int | None = Field(default=None, ge=2)
    count: PositiveInt = 100
    patch: PositiveInt | None = None


class Recipe(_Part):
    """One training run.

    Attributes:
        network: a name from `derain.list_models`, of a network that can be trained; or
            "package.module:name", the user's own class or function that makes a `derain.RainNetwork`,
            which runs only if the user allows it.
        data: one source of training pairs, or a mixture of several.
        options: keyword arguments of the network that replace those of the variant.
        loss: keyword arguments of the method's loss; custom networks have none, as theirs is the mean
            absolute error. Or `function`, the user's own "package.module:function", with the other keys as
            its keyword arguments; the text alone means the same. It is called with (outputs, clean, rainy)
            and returns a scalar or {term: scalar}; it runs only if the user allows it.
        start: checkpoint to start from; None for random weights.
        steps: number of updates.
        stages: progressive patches; `batch` counts the pictures of an update over all processes.
        accumulate: the number of parts in which the batch of an update goes through the network.
        ema: decay of the exponential moving average of the weights; None for none.
        validation: how the run is validated; None for no validation.
        optimizer: how gradients become updates.
        schedule: the learning rate over the steps, relative to the optimizer's rate.
        seed: seed of the initial weights, the order of pictures and all random draws.
        precision: precision of the forward pass; weights stay float32.
        checkpointing: recompute activations instead of keeping them, which takes less memory but more time.
        channels_last: use the memory layout that is faster for convolutional networks.
        workers: number of processes that make patches, at most one per core; 0 for none.
        log_every: steps between lines of `log.jsonl` and `training.csv`; the last step also has one.
        save_every: steps between saved states.
        tensorboard: write events for TensorBoard as well (extra `tensorboard`).
        wandb: project of Weights & Biases to send the figures to (extra `wandb`); None for none.
        origin: where the values come from.
    """

    network: str
    options: dict[str, Any] = {}
    loss: Annotated[dict[str, Scalar], BeforeValidator(_loss_options)] = {}
    start: str | None = None
    data: AnyData
    validation: Validation | None = None
    steps: PositiveInt
    stages: list[Stage] = Field(min_length=1)
    optimizer: Optimizer
    schedule: Schedule = Constant()
    accumulate: PositiveInt = 1
    ema: float | None = Field(default=None, gt=0, lt=1)
    precision: Annotated[Precision, BeforeValidator(_current_precision)] = "float32"
    checkpointing: bool = False
    channels_last: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    log_every: PositiveInt = 50
    save_every: PositiveInt = 500
    tensorboard: bool = False
    wandb: str | None = None
    origin: str = ""


def load_recipe(source: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """A recipe from a YAML file or by the name of a published one.

    Args:
        source: a path, or a name like "spanet/spa_data".
        changes: "key.key=value" each, with values as in YAML, which replace those of the file. A number is
            an index in a list, counted from 0: "data.sources.1.share=0.3".

    Raises:
        UsageError: there is no such recipe, it is not YAML, or it has a mistake; the message names the first.
    """
    content = _read(source)
    for change in changes:
        _apply(content, change)
    return checked(content, str(source))


def checked(content: Mapping[str, Any], source: str) -> Recipe:
    """The recipe that a dictionary describes. Raises `UsageError` with the first mistake."""
    try:
        recipe = Recipe.model_validate(with_current_keys(content))
    except ValidationError as error:
        raise UsageError(f"{source}: {explain(error, Recipe)}") from None
    contradiction = next(_contradictions(recipe), None)
    if contradiction is not None:
        raise UsageError(f"{source}: {contradiction}")
    return recipe


def published_recipes() -> dict[str, Traversable]:
    """{"method/recipe": file} of all shipped recipes."""
    found = {}
    for method in sorted(_folders(importlib.resources.files("derain.methods")), key=lambda m: m.name):
        recipes = method / "recipes"
        if recipes.is_dir():
            for file in sorted(recipes.iterdir(), key=lambda f: f.name):
                if file.name.endswith(".yaml"):
                    found[f"{method.name}/{file.name.removesuffix('.yaml')}"] = file
    return found


def _folders(folder: Traversable) -> Iterator[Traversable]:
    return (entry for entry in folder.iterdir() if entry.is_dir())


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    try:
        if path.suffix in (".yaml", ".yml"):
            with path.open(encoding="utf-8") as file:
                text = file.read(MOST_CHARACTERS + 1)
        elif str(source) in published_recipes():
            text = published_recipes()[str(source)].read_text("utf-8")
        else:
            raise unknown_name("recipe", str(source), published_recipes())
    except OSError as error:
        raise UsageError(f"{source}: cannot be read ({reason(error)}).") from None
    except UnicodeDecodeError:
        raise UsageError(f"{source}: not a text file.") from None
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise UsageError(f"{source}: {error}.") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{source}: not a recipe; a recipe is a mapping, one 'key: value' a line.")
    return with_current_keys(content)


def _apply(content: dict[str, Any], change: str) -> None:
    keys, equals, value = change.partition("=")
    *parents, last = place = [_OLD_KEYS.get(key, key) for key in keys.split(".")]
    if not equals or not last:
        raise UsageError(f"{change!r}: changes are written key=value or part.key=value.")
    here: Any = content
    for key in parents:
        step = _place(here, key, change)
        if isinstance(here, dict) and here.get(step) is None:
            here[step] = {}
        here = here[step]
        if not isinstance(here, dict | list):
            raise UsageError(f"{change!r}: {key!r} has no parts.")
    here[_place(here, last, change)] = _value(place, value, change)


def _value(place: Sequence[str], text: str, change: str) -> Any:
    """The value of a text at a place of the recipe: as in YAML, but unchanged where text is expected."""
    kinds = set(kinds_at(Recipe, place))
    if kinds and kinds <= {str, types.NoneType} and text[:1] not in ("'", '"'):
        return None if text in ("", "null", "~") else text
    try:
        return parse_yaml(text)
    except ValueError:
        raise UsageError(f"{change!r}: the value is not YAML.") from None


def _place(container: dict[str, Any] | list[Any], key: str, change: str) -> Any:
    """The key itself for a mapping, or the index that it stands for in a list."""
    if isinstance(container, dict):
        return key
    if key.isascii() and key.isdecimal() and int(key) < len(container):
        return int(key)
    raise UsageError(f"{change!r}: {key!r} is not a position in a list of {len(container)}, counted from 0.")


def sources_of(recipe: Recipe) -> dict[str, Data]:
    """The sources of the training data by their place in the recipe: {"data": ...} or one per share."""
    if isinstance(recipe.data, Data):
        return {"data": recipe.data}
    return {f"data.sources.{number}": source for number, source in enumerate(recipe.data.sources)}


def shares_of(recipe: Recipe) -> list[float]:
    """The share of every source of the training data."""
    return [1.0] if isinstance(recipe.data, Data) else [source.share for source in recipe.data.sources]


def losses_of(recipe: Recipe) -> list[dict[str, Scalar]]:
    """The options of the loss for every source of the training data."""
    if isinstance(recipe.data, Data):
        return [recipe.loss]
    return [{**recipe.loss, **source.loss} for source in recipe.data.sources]


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """The broken rules that types cannot express."""
    sources = sources_of(recipe)
    for place, source in sources.items():
        yield from _of_rain(place, source)
        yield from _of_source(place, source)
    if recipe.validation:
        yield from _of_validation(recipe.validation)
    for place, source in sources.items():
        if isinstance(source, MixtureSource) and "function" in source.loss:
            yield f"'{place}.loss.function': all sources share one function; name it in 'loss'."
    shares = shares_of(recipe)
    if min(shares) * CYCLE < sum(shares):
        yield f"'data.sources.{shares.index(min(shares))}.share' is below a thousandth of all shares."
    yield from _of_optimizer(recipe.optimizer)
    yield from _of_stages(recipe.stages, recipe.accumulate)


def _of_rain(place: str, part: Data | Validation) -> Iterator[str]:
    if part.rainy and part.rain:
        yield (
            f"'{place}.rainy' names pairs and '{place}.rain' ({part.rain}) makes rain; only one can be. "
            f"For pairs, set '{place}.rain' to null; to make rain, set '{place}.rainy' to null."
        )


def _of_source(place: str, source: Data) -> Iterator[str]:
    if source.layers and (source.rainy or source.rain):
        yield f"'{place}.layers' excludes '{place}.rainy' and '{place}.rain': give one of the three."
    if source.added and not source.layers:
        yield f"'{place}.added' is about layers; name their folder in '{place}.layers'."
    if source.angle and not source.rain:
        yield f"'{place}.angle' is that of synthetic rain; name its preset in '{place}.rain'."
    if source.angle and source.angle[0] > source.angle[1]:
        yield f"'{place}.angle': the smaller angle comes first."
    if source.zoom[0] > source.zoom[1]:
        yield f"'{place}.zoom': the smallest factor comes first."
    if source.zoom != NO_ZOOM and source.crop != "window":
        yield f"'{place}.zoom' works on windows only; set '{place}.crop' to window."


def _of_validation(validation: Validation) -> Iterator[str]:
    yield from _of_rain("validation", validation)
    if validation.clean and validation.hold_out:
        yield (
            "'validation.clean' names pictures and 'validation.hold_out' takes some of those for training, "
            "and only one of them can be. Set the other to null."
        )


def _of_optimizer(optimizer: Optimizer) -> Iterator[str]:
    if optimizer.momentum is not None and optimizer.name in ("adam", "adamw"):
        yield f"'optimizer.momentum' is not used by {optimizer.name}; it has 'betas'."
    if optimizer.betas != Optimizer.model_fields["betas"].default and optimizer.name == "sgd":
        yield "'optimizer.betas' is not used by sgd; it has 'momentum'."


def _of_stages(stages: Sequence[Stage], accumulate: int) -> Iterator[str]:
    for number, stage in enumerate(stages):
        if stage.batch % accumulate:
            given = f"'stages.{number}.batch' is {stage.batch}"
            yield f"{given}, not a multiple of 'accumulate' {accumulate}."
        if stage.steps is None and number + 1 < len(stages):
            yield f"'stages.{number}.steps' is missing; only the last stage may leave it out."
