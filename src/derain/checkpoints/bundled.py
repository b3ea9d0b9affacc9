"""The weights that come with the package: one safetensors file and one model card each."""

from __future__ import annotations

from pathlib import Path

from derain.errors import unknown_name

FOLDER = Path(__file__).resolve().parent.parent / "weights"
DEFAULT = "spanet"


def bundled_names() -> tuple[str, ...]:
    """Names of all bundled weights."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def find(model: str | Path | None) -> Path:
    """The file of a model given as users do: None for the default, a bundled name, a path or "hf:OWNER/NAME".

    Raises `UsageError` for a name that does not exist; whether a path exists is not looked at.
    """
    if model is None:
        return bundled(DEFAULT)
    return bundled(str(model)) if is_plain_name(model) else Path(model)


def is_plain_name(model: str | Path) -> bool:
    """Whether `model` can only be a name: a plain word that is not a file."""
    return isinstance(model, str) and not set("/.:") & set(model) and not Path(model).is_file()


def bundled(name: str) -> Path:
    """The file of bundled weights. Raises `UsageError` for a name that does not exist."""
    if name not in bundled_names():
        raise unknown_name("model", name, bundled_names())
    return FOLDER / f"{name}.safetensors"
