"""Files that `derain.export` wrote, as models: reads what they state about themselves, and runs them."""

from pathlib import Path

EXTENSIONS = {"onnx": ".onnx", "openvino": ".xml"}  # {target of the export: extension of its files}


def is_exported(path: Path) -> bool:
    """Whether a file is an exported network, by its name."""
    return path.suffix in EXTENSIONS.values()
