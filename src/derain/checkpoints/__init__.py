"""Opens any checkpoint safely, recognises its network, and writes our own files."""

from derain.checkpoints.files import read_tensors, save_checkpoint
from derain.checkpoints.recognise import Checkpoint, identify, open_checkpoint

__all__ = ["Checkpoint", "identify", "open_checkpoint", "read_tensors", "save_checkpoint"]
