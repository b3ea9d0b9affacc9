"""The weights that come with the package: one safetensors file and one model card each."""

from __future__ import annotations

from pathlib import Path

from derain.errors import unknown_name

FOLDER = Path(__file__).resolve().parent.parent / "weights"
DEFAULT = "spanet"


def bundled_names() -> tuple[str, ...]:
    """Names of all bundled weights."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def bundled(name: str) -> Path:
    """The file of bundled weights. Raises `UsageError` for a name that does not exist."""
    if name not in bundled_names():
        raise unknown_name("model", name, bundled_names())
    return FOLDER / f"{name}.safetensors"
