"""derain: removes rain from pictures and video.

    import derain

    restore = derain.load()                        # the bundled weights
    restore("rainy.jpg", output="dry.jpg")         # a file, a video, or a picture in memory
    derain.score("dry.jpg", "clean.jpg").mean      # {"psnr": ..., "ssim": ...}

Nothing heavy is imported until a name is used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from derain.errors import DerainError, UsageError

if TYPE_CHECKING:
    from derain.checkpoints import Checkpoint, Model, create_model, list_models, open_checkpoint
    from derain.front import evaluate, rain, score, train
    from derain.methods import create_network
    from derain.methods.network import RainNetwork, Spec
    from derain.restore import Derainer, load

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "DerainError",
    "Derainer",
    "Model",
    "RainNetwork",
    "Spec",
    "UsageError",
    "create_model",
    "create_network",
    "evaluate",
    "list_models",
    "load",
    "open_checkpoint",
    "rain",
    "score",
    "train",
]

_PLACES = {
    "Checkpoint": "derain.checkpoints",
    "Derainer": "derain.restore",
    "Model": "derain.checkpoints",
    "RainNetwork": "derain.methods.network",
    "Spec": "derain.methods.network",
    "create_model": "derain.checkpoints",
    "create_network": "derain.methods",
    "evaluate": "derain.front",
    "list_models": "derain.checkpoints",
    "load": "derain.restore",
    "open_checkpoint": "derain.checkpoints",
    "rain": "derain.front",
    "score": "derain.front",
    "train": "derain.front",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'derain' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
