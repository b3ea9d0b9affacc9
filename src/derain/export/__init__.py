"""Networks as files for other programs: writing them, checking them against PyTorch, running them."""

from pathlib import Path

EXTENSIONS = {"onnx": ".onnx", "openvino": ".xml"}  # of the files that can also be run here
TARGETS = {**EXTENSIONS, "dtmodel": ".dtmodel"}


def is_exported(path: Path) -> bool:
    """Whether a file is an exported network, by its name."""
    return path.suffix in EXTENSIONS.values()
