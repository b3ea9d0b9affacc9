"""Finds the pictures and videos in the files and folders that a user names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from derain.errors import DerainError, UsageError, reason
from derain.paths import exists, is_folder, is_link, real, same
from derain.pictures.kinds import VIDEO_KINDS, FileKind, file_kind, label
from derain.pictures.writing import FORMATS

EXTENSIONS = tuple(FORMATS)
FOLDER = "folder"


@dataclass(frozen=True)
class Found:
    """A picture or video, and where its result belongs below the output folder.

    Attributes:
        source: the file.
        relative: its path relative to the folder that was given; its name if it was given itself.
        kind: its kind according to its content; None if only the name tells what it is.
        is_video: whether it is a video rather than a picture; a named file of unknown kind counts as a
            picture.
    """

    source: Path
    relative: Path
    kind: FileKind | None = None
    is_video: bool = False


@dataclass(frozen=True)
class Unread:
    """A file or folder that is skipped.

    Attributes:
        source: where it is.
        kind: a short name: HEIC, TXT, folder.
        advice: what the user can do; empty for files that are neither pictures nor videos.
    """

    source: Path
    kind: str
    advice: str


def find(inputs: Sequence[str | Path]) -> tuple[list[Found], list[Unread]]:
    """The pictures and videos among files and folders, in the order given, and what is skipped.

    A file that is named is always taken, and keeps its name. A folder is searched recursively, sorted and
    without hidden entries, and its structure is kept. In it, a file with a picture's extension counts as a
    picture; any other is recognised by its content.

    Raises:
        UsageError: an input does not exist, or two different files would have the same result.
    """
    places: dict[Path, Found] = {}
    unread: list[Unread] = []
    for given in map(Path, inputs):
        for found in _below(given):
            if isinstance(found, Unread):
                unread.append(found)
                continue
            first = places.setdefault(found.relative, found)
            if not same(first.source, found.source):
                raise one_result_of_two(first.source, found.source, found.relative)
    return list(places.values()), unread


def find_pictures(inputs: Sequence[str | Path]) -> list[Found]:
    """The pictures among files and folders, as `find` finds them; named files count as pictures.

    Raises:
        UsageError: as for `find`, or nothing is found.
        DerainError: a folder cannot be listed.
    """
    found, unread = find(inputs)
    for entry in unread:
        if entry.kind == FOLDER:
            raise DerainError(f"{entry.source}: {entry.advice}.")
    pictures = [entry for entry in found if not entry.is_video or entry.source in map(Path, inputs)]
    if not pictures:
        raise nothing_found(inputs)
    return pictures


def nothing_found(inputs: Sequence[str | Path], videos: bool = False) -> UsageError:
    """The error for inputs without any picture, or, with `videos`, without any video either."""
    looked = ", ".join(map(str, inputs)) or "no input"
    wanted = "pictures or videos" if videos else "pictures"
    kinds = (*EXTENSIONS, *VIDEO_KINDS) if videos else EXTENSIONS
    return UsageError(f"{looked}: no {wanted} found; looked for {' '.join(kinds)}.")


def one_result_of_two(one: Path, other: Path, target: Path) -> UsageError:
    """The error for two sources whose results would be the same file."""
    return UsageError(
        f"{one} and {other} would both be written as {target}; "
        "restore them one after the other, into different folders."
    )


def _below(given: Path) -> Iterator[Found | Unread]:
    if is_folder(given):
        for entry in walk(given):
            if isinstance(entry, Unread):
                yield entry
            else:
                yield classify(entry, entry.relative_to(given))
    elif exists(given) or is_link(given):
        yield classify(given, Path(given.name), named=True)
    else:
        raise UsageError(f"{given}: no such file or folder.")


def classify(source: Path, relative: Path, named: bool = False) -> Found | Unread:
    """What a file is.

    Args:
        source: the file.
        relative: its path relative to the folder that was given.
        named: whether the user named the file itself rather than a folder.
    """
    suffix = source.suffix.lower()
    if suffix in EXTENSIONS and not named:
        return Found(source, relative)
    try:
        kind = file_kind(source)
    except DerainError as error:
        kind = None
        if not named and suffix not in VIDEO_KINDS:
            return Unread(source, label(source, None), error.message.removeprefix(f"{source}: ").rstrip("."))
    if kind is not None and (named or kind.is_read):
        return Found(source, relative, kind, kind.media == "video")
    if kind is not None:
        return Unread(source, label(source, kind), kind.advice)
    if suffix in VIDEO_KINDS:
        return Found(source, relative, None, True)
    return Found(source, relative) if named else Unread(source, label(source, None), "")


def walk(folder: Path, parents: tuple[Path, ...] = ()) -> Iterator[Path | Unread]:
    """Files below `folder`, sorted and without hidden ones; links to folders are followed unless they lead
    back to a parent."""
    place = real(folder)
    if place in parents:
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        yield Unread(folder, FOLDER, f"cannot be listed ({reason(error)})")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if is_folder(entry):
            yield from walk(entry, (*parents, place))
        else:
            yield entry


def passed_over(unread: Sequence[Unread]) -> str:
    """How many files were not read, of which kinds, and what to do; "" if all were.

    E.g. "4 files not read: 2 JP2 (save it as PNG or TIFF), 1 HEIC (pip install ...), 1 TXT."
    """
    if not unread:
        return ""
    counts = Counter((entry.kind, entry.advice) for entry in unread)
    kinds = [
        f"{count} {kind}" + (f" ({advice})" if advice else "")
        # First the kinds that the user can do something about, then by number.
        for (kind, advice), count in sorted(counts.items(), key=lambda item: (not item[0][1], -item[1]))
    ]
    files = "file" if len(unread) == 1 else "files"
    return f"{len(unread)} {files} not read: {', '.join(kinds)}."
