"""Networks as files for other programs: writing them, and checking them against PyTorch."""

from derain.checkpoints.exported import EXTENSIONS

TARGETS = {**EXTENSIONS, "dtmodel": ".dtmodel"}
