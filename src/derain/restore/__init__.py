"""A network applied to a picture of any size: padding, tiles, ensemble, device, precision, memory."""

from derain.restore.derainer import Derainer, load
from derain.restore.run import PictureOptions, RunReport, VideoOptions, restore_files
from derain.restore.settings import Settings

__all__ = ["Derainer", "PictureOptions", "RunReport", "Settings", "VideoOptions", "load", "restore_files"]
