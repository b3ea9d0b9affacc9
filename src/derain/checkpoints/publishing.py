"""`derain publish`: uploads weights to a repository of the Hugging Face Hub; see `hub`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import derain
from derain.checkpoints.hub import CARD, CONFIG, WEIGHTS, Repository, hub_errors
from derain.checkpoints.recognise import Checkpoint, Model, save_model
from derain.errors import Remedy, UsageError


def publish(
    model: Model,
    target: Repository,
    *,
    card: str | None = None,
    private: bool = False,
    overwrite: bool = False,
) -> str:
    """Creates the repository if there is none, and commits weights, configuration and card together.

    Args:
        card: the text of README.md; by default that of `default_card`.
        private: create a repository that only its owner can see.
        overwrite: whether the repository may already hold weights; they stay in its history.

    Returns:
        The address of the commit.

    Raises:
        UsageError: a revision is named, the repository holds weights and `overwrite` is not set, or it is
            public and should be `private`.
        DerainError: see `hub.hub_errors`.
    """
    if target.revision is not None:
        raise UsageError(f"{target}: what is published becomes the newest revision; leave @... out.")
    with hub_errors(target), tempfile.TemporaryDirectory() as folder:
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(library_name="derain", library_version=derain.__version__)
        api.create_repo(target.id, private=private or None, exist_ok=True)
        if private and not api.model_info(target.id).private:
            raise UsageError(f"{target}: is already public; choose another name for private weights.")
        if not overwrite and api.file_exists(target.id, WEIGHTS):
            raise UsageError(
                f"{target}: already holds weights.", Remedy("add a revision", {"overwrite": True})
            )
        weights = Path(folder) / WEIGHTS
        save_model(weights, model)
        content: dict[str, Any] = {
            WEIGHTS: str(weights),
            CONFIG: (json.dumps(configuration(model.checkpoint), indent=2) + "\n").encode(),
            CARD: (default_card(model, target) if card is None else card).encode(),
        }
        commit = api.create_commit(
            target.id,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=each) for name, each in content.items()],
            commit_message=f"{model.checkpoint.name} by derain {derain.__version__}",
        )
        return str(commit.commit_url)


def configuration(checkpoint: Checkpoint) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "network": checkpoint.architecture.name,
        "config": checkpoint.config,
        "derain": derain.__version__,
    }


def default_card(model: Model, target: Repository) -> str:
    """A model card with what can be told from the weights alone."""
    network, checkpoint = model
    parameters = sum(p.numel() for p in network.parameters())
    options = ", ".join(f"`{key}` {value}" for key, value in checkpoint.config.items())
    return f"""---
library_name: derain
pipeline_tag: image-to-image
tags:
- deraining
- image-restoration
---
# {target.name}

Removes rain from pictures with `derain`.

| | |
| --- | --- |
| network | `{checkpoint.name}`, {checkpoint.method.title} |
| paper | {checkpoint.method.paper} |
| hyper-parameters | {options or "none"} |
| parameters | {parameters:,} |
| trained on | not stated |
| licence | not stated |

```sh
pip install ".[hub]"    # in a copy of derain
derain run photo.jpg --model {target}
```

```python
import derain

restore = derain.load("{target}")
restore("photo.jpg", output="dry.jpg")
```
"""
