"""derain: takes the rain out of pictures and video."""

__version__ = "0.1.0"

from derain.checkpoints import open_checkpoint
from derain.errors import DerainError, UsageError
from derain.methods import create_network
from derain.restore import Derainer, load

__all__ = ["DerainError", "Derainer", "UsageError", "create_network", "load", "open_checkpoint"]
