"""Weights from the Hugging Face Hub: "hf:OWNER/NAME" or "hf:OWNER/NAME@REVISION".

A repository holds three files, and only these are ever asked for:

    model.safetensors   the weights
    config.json         {"network": ..., "config": {hyper-parameters}, "derain": version}
    README.md           the card, for people

The hub library downloads and caches files, and uses its cache when offline; the place of the cache, the hub's
address and the user's token are its own settings (HF_HOME, HF_ENDPOINT, HF_TOKEN).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain.errors import DerainError, UsageError, reason
from derain.extras import extra

PREFIX = "hf:"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
LARGEST_CONFIG = 1 << 20  # bytes
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_REPOSITORY = re.compile(rf"(?P<id>{_PART}/(?P<name>{_PART}))(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?")


@dataclass(frozen=True)
class Repository:
    """A model repository.

    Attributes:
        id: OWNER/NAME.
        name: NAME.
        revision: a branch, tag or commit; None for the newest.
    """

    id: str
    name: str
    revision: str | None

    def __str__(self) -> str:
        return f"{PREFIX}{self.id}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Download:
    """Two files of a repository in the cache, both from the same commit."""

    repository: Repository
    weights: Path
    config: dict[str, Any]


def names_repository(model: str | Path) -> bool:
    """Whether `model` names a repository rather than a file or bundled weights."""
    return str(model).startswith(PREFIX)


def repository(text: str | Path) -> Repository:
    """The repository that "hf:OWNER/NAME", with or without @REVISION, names; "hf:" may be left out.

    Raises:
        UsageError: the text has another form.
    """
    text = Path(text).as_posix()
    found = _REPOSITORY.fullmatch(text.removeprefix(PREFIX))
    if found is None or ".." in text or "--" in text or found["id"].endswith(".git"):
        raise UsageError(f"{text}: write hf:OWNER/NAME or hf:OWNER/NAME@REVISION.")
    return Repository(found["id"], found["name"], found["revision"])


def download(source: Repository) -> Download:
    """Weights and configuration of a repository, from the cache if they are there.

    Raises:
        DerainError: the extra is not installed, there is no such repository or revision, it is private,
            the hub cannot be reached and the cache is empty, or the files are not of the expected kind.
    """
    with hub_errors(source):
        from huggingface_hub import hf_hub_download

        config = Path(hf_hub_download(source.id, CONFIG, revision=source.revision))
        # The folder is named after the commit, from which the weights are then taken as well.
        weights = Path(hf_hub_download(source.id, WEIGHTS, revision=config.parent.name))
    with weights.open("rb") as file:
        head = file.read(9)
    if head[8:] != b"{":
        raise DerainError(f"{source}: {WEIGHTS} is not a safetensors file; only those are opened from a hub.")
    return Download(source, weights, _read_config(source, config))


def check_config(found: Download, network: str, config: dict[str, Any]) -> None:
    """Compares config.json with the network that was recognised from the weights.

    Raises:
        DerainError: they disagree.
    """
    recognised = {"network": network, "config": json.loads(json.dumps(config))}
    for key, value in recognised.items():
        if found.config.get(key) != value:
            raise DerainError(
                f"{found.repository}: {CONFIG} says {key} {json.dumps(found.config.get(key))[:100]}, but the "
                f"weights are {json.dumps(value)}; ask its author."
            )


def _read_config(source: Repository, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= LARGEST_CONFIG else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or "network" not in content:
        raise DerainError(f"{source}: {CONFIG} does not name a network; it was not made by derain publish.")
    return content


@contextmanager
def hub_errors(source: Repository) -> Iterator[None]:
    """Turns every error of the hub library into a one-line message."""
    huggingface_hub = extra("huggingface_hub", "hub")
    import httpx2
    from huggingface_hub import errors

    verbosity = huggingface_hub.logging.get_verbosity()
    huggingface_hub.logging.set_verbosity(logging.ERROR)
    try:
        yield
    except errors.GatedRepoError:
        raise DerainError(
            f"{source}: access must be requested on its page; then log in with hf auth login."
        ) from None
    except errors.RepositoryNotFoundError:
        raise DerainError(
            f"{source}: no such repository, or it is private; hf auth login opens your own."
        ) from None
    except errors.RevisionNotFoundError:
        raise DerainError(f"{source}: the repository has no revision {source.revision}.") from None
    except errors.RemoteEntryNotFoundError as error:
        name = CONFIG if CONFIG in str(error) else WEIGHTS
        raise DerainError(f"{source}: holds no {name}; it was not made by derain publish.") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx2.TransportError):
        where = huggingface_hub.constants.ENDPOINT
        raise DerainError(f"{source}: {where} cannot be reached, and it is not in the cache.") from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        raise DerainError(f"{source}: {_refusal(code)} (HTTP {code}).") from None
    except OSError as error:
        raise DerainError(f"{source}: the cache cannot be used ({reason(error)}).") from None
    finally:
        huggingface_hub.logging.set_verbosity(verbosity)


def _refusal(code: int) -> str:
    if code in (401, 403):
        return "the hub refuses this account; log in with hf auth login and a token that has the right"
    return "the hub gave an unexpected answer; try again later"
