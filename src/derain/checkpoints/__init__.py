"""Opens any checkpoint safely, recognises its network, and writes this project's own files."""

from derain.checkpoints.models import create_model, list_models
from derain.checkpoints.recognise import Checkpoint, Model, identify, open_checkpoint, save_model
from derain.tensors import read_tensors, save_checkpoint

__all__ = [
    "Checkpoint",
    "Model",
    "create_model",
    "identify",
    "list_models",
    "open_checkpoint",
    "read_tensors",
    "save_checkpoint",
    "save_model",
]
