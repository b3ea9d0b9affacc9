"""Networks as ONNX or OpenVINO files: writing them, checking them against PyTorch, running them."""

from pathlib import Path

EXTENSIONS = {"onnx": ".onnx", "openvino": ".xml"}


def is_exported(path: Path) -> bool:
    """Whether a file is taken for an exported network, by its name."""
    return path.suffix in EXTENSIONS.values()
