"""Where the authors of methods and sets publish them: `sources.yaml` as data.

The addresses are those of the authors' own pages. Nothing is fetched from them, and their content may
change.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import files

import yaml

NO_ADDRESS = "no address is known here; look for the paper"


@dataclass(frozen=True)
class Source:
    """One thing that authors publish.

    Attributes:
        of: the method (a folder below `methods/`) or the public set.
        what: what lies there, e.g. "weights for Rain200L".
        address: of the page; "" for the paper of a set whose address is not known here.
        networks: names of the networks that it is for; empty for all of the method.
        file: its name there, "" if the page states it.
        code: that the page asks for before it hands out the file.
        size: as published, or of the file itself where it was seen.
        sha256: of a copy that this project compares itself with; "" where it has none.
        licence: as published; "" if none is known here, which does not mean that there is none.
    """

    of: str
    what: str
    address: str = ""
    networks: tuple[str, ...] = ()
    file: str = ""
    code: str = ""
    size: str = ""
    sha256: str = ""
    licence: str = ""

    @property
    def details(self) -> str:
        """File, code, size and licence in a few words; empty if none is known."""
        known = {
            "file": self.file,
            "code": self.code,
            "size": self.size,
            "SHA-256": self.sha256,
            "licence": self.licence,
        }
        return ", ".join(f"{name} {value}" for name, value in known.items() if value)


@functools.cache
def all_sources() -> tuple[Source, ...]:
    """Everything in the file, in its order."""
    text = files("derain").joinpath("sources.yaml").read_text("utf-8")
    return tuple(
        Source(**{**entry, "networks": tuple(entry.get("networks", ()))}) for entry in yaml.safe_load(text)
    )


def published_by(subject: str, network: str = "") -> tuple[Source, ...]:
    """What the authors of a method or set publish; with `network`, only what concerns that network."""
    return tuple(
        source
        for source in all_sources()
        if source.of == subject and (not network or not source.networks or network in source.networks)
    )
