"""What a user means by a model: bundled weights, a file, or a repository of the Hugging Face Hub.

Bundled weights come with the package: one safetensors file and one model card each.
"""

from __future__ import annotations

from pathlib import Path

from derain.errors import UsageError, refuse_unknown, wrong_type
from derain.sources import published_by

FOLDER = Path(__file__).resolve().parent.parent / "weights"
DEFAULT = "everyday"


def bundled_names() -> tuple[str, ...]:
    """Names of all bundled weights."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def find_model(model: str | Path | None) -> Path:
    """The file of a model as users name it: None for the default, a bundled name, a path or "hf:OWNER/NAME".

    Raises `UsageError` for a name that does not exist or has no bundled weights, and for anything that is
    neither a name nor a path. It does not check whether a path exists.
    """
    if model is None:
        return bundled(DEFAULT)
    if not isinstance(model, str | Path):
        raise wrong_type("a model", model, "its name, a file of weights or hf:OWNER/NAME")
    return bundled(str(model)) if is_plain_name(model) else Path(model)


def is_plain_name(model: str | Path) -> bool:
    """Whether `model` can only be a name: a plain word that is not a file."""
    return not set("/.:\\") & set(str(model)) and not Path(model).is_file()


def bundled(name: str) -> Path:
    """The file of bundled weights.

    Raises:
        UsageError: there is no model of this name, or its weights are not bundled; the message then says
            where their authors publish them.
    """
    from derain.methods import method_of, network_names

    refuse_unknown("model", name, {*bundled_names(), *network_names()})
    if name in bundled_names():
        return FOLDER / f"{name}.safetensors"
    found = published_by(method_of(network_names()[name][0]).name, name)
    weights = [source for source in found if "weights" in source.what]
    where = "".join(f" Its authors: {source.address} ({source.what})." for source in (weights or found)[:1])
    raise UsageError(
        f"model '{name}': known, but no weights come with the package.{where} "
        "Give a file of weights, or train the network first."
    )
