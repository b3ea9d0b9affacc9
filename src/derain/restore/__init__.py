"""Applies a network to a picture of any size: padding, tiles, ensembles, devices, precision and memory."""

from derain.restore.derainer import Derainer, load
from derain.restore.run import PictureOptions, RunReport, restore_files
from derain.restore.settings import Settings, VideoOptions

__all__ = ["Derainer", "PictureOptions", "RunReport", "Settings", "VideoOptions", "load", "restore_files"]
