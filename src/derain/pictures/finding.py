"""Which pictures the files and folders that a user names stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from derain.errors import UsageError
from derain.pictures.writing import FORMATS

EXTENSIONS = tuple(FORMATS)


@dataclass(frozen=True)
class Found:
    """A file, and where its result belongs below the output folder."""

    source: Path
    relative: Path


def find_pictures(inputs: Sequence[str | Path]) -> list[Found]:
    """The pictures among files and folders, in the order given, each folder sorted.

    A file is taken as it is and keeps its name. A folder is searched with all below it for `EXTENSIONS`
    in any case, without hidden entries, and its structure is kept.

    Raises:
        UsageError: an input does not exist, a folder cannot be listed, nothing is found, or two different
            files would end at the same place.
    """
    places: dict[Path, Path] = {}
    for given in map(Path, inputs):
        for found in _below(given):
            first = places.setdefault(found.relative, found.source)
            if first.resolve() != found.source.resolve():
                raise UsageError(
                    f"{first} and {found.source} would both be written as {found.relative}; "
                    "run them one after the other into different folders."
                )
    if not places:
        looked = ", ".join(map(str, inputs)) or "no input"
        raise UsageError(f"{looked}: no pictures found; looked for {' '.join(EXTENSIONS)}.")
    return [Found(source, relative) for relative, source in places.items()]


def _below(given: Path) -> Iterator[Found]:
    if given.is_dir():
        for source in _walk(given, ()):
            yield Found(source, source.relative_to(given))
    elif given.exists():
        yield Found(given, Path(given.name))
    else:
        raise UsageError(f"{given}: no such file or folder.")


def _walk(folder: Path, parents: tuple[Path, ...]) -> Iterator[Path]:
    """Pictures below `folder`; links to folders are followed unless they lead back to a parent."""
    real = folder.resolve()
    if real in parents:
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror or error}).") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, (*parents, real))
        elif entry.suffix.lower() in EXTENSIONS:
            yield entry
