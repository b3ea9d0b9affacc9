"""Networks as ONNX or OpenVINO files: writing them, checking them against PyTorch, running them."""
