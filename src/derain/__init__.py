"""derain: takes the rain out of pictures and video."""

from derain.checkpoints import open_checkpoint
from derain.errors import DerainError, UsageError
from derain.methods import create_network

__all__ = ["DerainError", "UsageError", "create_network", "open_checkpoint"]
