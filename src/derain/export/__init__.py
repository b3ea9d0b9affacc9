"""Exports networks as files for other programs, and checks them against PyTorch."""

from derain.checkpoints.exported import EXTENSIONS

TARGETS = {**EXTENSIONS, "dtmodel": ".dtmodel"}
