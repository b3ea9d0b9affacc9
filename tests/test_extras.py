"""Optional packages, and what they must not do behind the user's back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command_line import environment


@pytest.mark.parametrize(("module", "name"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_no_package_reports_its_use_to_its_makers(module: str, name: str, tmp_path: Path) -> None:
    """Both do so when they are imported, and keep an identification of the user for it in these folders."""
    pytest.importorskip(module, reason=f"the extra '{name}' is not installed")
    program = f"from derain.extras import extra\nextra({module!r}, {name!r})"
    surroundings = {**environment(), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    surroundings.pop("ORT_DISABLE_TELEMETRY", None)
    surroundings.pop("CI", None)  # OpenVINO is silent there
    subprocess.run([sys.executable, "-c", program], env=surroundings, check=True)
    assert not list(tmp_path.iterdir())
