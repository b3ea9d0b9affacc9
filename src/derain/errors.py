"""Errors meant for the user: one line that says what, where and what to do.

The library does not know how the user called it, so what to do is data: a `Remedy` names settings as
Python does, and the interface spells them. The command line turns them into options
(`cli/messages.py`), so that the same error reads

    a.png: exists already. To replace it, set overwrite=True.       (in Python)
    derain: a.png: exists already. To replace it, give --overwrite.  (on the command line)

Raise it so:

    raise UsageError(f"{path}: exists already.", Remedy("replace it", {"overwrite": True}))
"""

from __future__ import annotations

import difflib
import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("derain")


@dataclass(frozen=True)
class Remedy:
    """Settings that would help.

    Attributes:
        purpose: completes "To ...", e.g. "replace it".
        settings: {parameter of the Python function that was called: the value to give it}; None stands
            for leaving it out.
    """

    purpose: str
    settings: Mapping[str, object]

    def sentence(self, give: str, spell: Callable[[str, object], str]) -> str:
        """The remedy in words.

        Args:
            give: the verb for giving a setting: "set", "give".
            spell: how a name and a value are written; the value is None where only the name is wanted.
        """
        wanted = [spell(name, value) for name, value in self.settings.items() if value is not None]
        unwanted = [spell(name, None) for name, value in self.settings.items() if value is None]
        steps = []
        if wanted:
            steps.append(f"{give} {' and '.join(wanted)}")
        if unwanted:
            steps.append(f"leave out {' and '.join(unwanted)}")
        return f"To {self.purpose}, {' and '.join(steps)}."

    def __str__(self) -> str:
        return self.sentence("set", lambda name, value: name if value is None else f"{name}={value!r}")


class DerainError(ValueError):
    """Something that the user gave cannot be used; the command line prints it and exits with 1.

    Attributes:
        message: what is wrong, and where; one or several sentences.
        remedy: settings that would help, or None.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: Remedy | None = None) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message} {self.remedy}"

    def naming(self, path: str | Path, *others: str | Path) -> None:
        """Prefixes the message with the file, unless it already names it or one of the others."""
        if not any(str(known) in self.message for known in (path, *others)):
            self.message = f"{path}: {self.message}"
            self.args = (self.message, *self.args[1:])


class UsageError(DerainError):
    """The request itself is wrong (an unknown name, contradicting options); exits with 2."""

    exit_code = 2


def refuse_unknown(kind: str, name: object, known: Iterable[str]) -> None:
    """Raises `UsageError` for what is not one of the known names, whatever its type."""
    known = sorted(known)
    if not isinstance(name, str):
        raise wrong_type(f"a {kind}", name, f"one of {', '.join(known)}")
    if name not in known:
        raise unknown_name(kind, name, known)


def wrong_type(what: str, given: object, wanted: str) -> UsageError:
    """The error for a value that is of no use because of its type.

    >>> str(wrong_type("a path", 3, "a file or a folder"))
    'a path of type int: give a file or a folder.'
    """
    return UsageError(f"{what} of type {type(given).__name__}: give {wanted}.")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist; suggests the nearest ones that do."""
    known = sorted(known)
    by_lower_case = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.55)
    hint = f" Did you mean '{by_lower_case[near[0]]}'?" if near else ""
    return UsageError(f"unknown {kind} '{name}'.{hint} Known: {', '.join(known)}.")


def number_wanted(given: object, *, whole: bool, least: float | None, most: float | None) -> str:
    """What to give instead of a value that is no number, or out of range; the values are in the range, too.

    >>> number_wanted("0,7", whole=False, least=0, most=1.5)
    'give a number from 0 to 1.5, with a point: 0.7'
    """
    kind = "a whole number" if whole else "a number"
    if least is not None and most is not None:
        kind += f" from {least:g} to {most:g}"
    elif least is not None:
        kind += f" of at least {least:g}"
    with_point = str(given).strip().replace(",", ".", 1)
    is_comma = not whole and "," in str(given) and with_point.replace(".", "", 1).isdecimal()
    return f"give {kind}, with a point: {with_point}" if is_comma else f"give {kind}"


# The system's error numbers in plain words.
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "no permission",
    errno.EPERM: "not permitted",
    errno.EROFS: "the disk is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "a symbolic link to itself",
    errno.ENOENT: "no such file or folder",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "a file of that name is in the way",
}


def reason(error: Exception) -> str:
    """Why the system, or FFmpeg, refused, in one line."""
    known = _REASONS.get(getattr(error, "errno", None) or 0)
    return known or getattr(error, "strerror", None) or first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class if it has none."""
    return _line(error, 0) or type(error).__name__


def last_line(error: BaseException) -> str:
    """The last one, for runtimes that begin with places in their own code."""
    return _line(error, -1) or type(error).__name__


def with_class(error: BaseException) -> str:
    """The class of an error and the first line of its message, as Python shows them."""
    return ": ".join(part for part in (type(error).__name__, _line(error, 0)) if part)


def _line(error: BaseException, which: int) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[which][:160] if lines else ""


def foreign(error: Exception) -> str:
    """What went wrong, in words, for an error that is not of this package.

    The traceback of an unforeseen one, such as a codec's TypeError, goes to the log `derain` at level DEBUG.
    """
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError):
        return reason(error)
    log.debug("traceback of the error:", exc_info=error)
    return f"an unexpected error ({with_class(error)})"


@contextmanager
def errors_of(path: str | Path, *others: str | Path) -> Iterator[None]:
    """Turns whatever goes wrong with one file into one `DerainError` that names it, or one of `others`.

    For loops over many files, which report it and continue:

        try:
            with errors_of(job.source):
                ...
        except DerainError as error:
            yield failed(job, error)

    Other packages' errors are put into words by `foreign`; what is not an `Exception` (Ctrl-C) passes.
    """
    try:
        yield
    except DerainError as error:
        error.naming(path, *others)
        raise
    except Exception as error:
        raise DerainError(f"{path}: {foreign(error)}.") from error
