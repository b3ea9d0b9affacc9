"""Files that `derain.export` wrote, as models: what they state about themselves, and running them."""

from pathlib import Path

EXTENSIONS = {"onnx": ".onnx", "openvino": ".xml"}  # {target of the export: of its files}


def is_exported(path: Path) -> bool:
    """Whether a file is an exported network, by its name."""
    return path.suffix in EXTENSIONS.values()
