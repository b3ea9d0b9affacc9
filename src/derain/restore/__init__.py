"""A network applied to a picture of any size: padding, tiles, ensemble, device, precision, memory."""

from derain.restore.derainer import Derainer, Settings, load

__all__ = ["Derainer", "Settings", "load"]
