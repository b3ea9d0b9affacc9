"""Fixtures that many tests use. Oracles and real pictures lie outside the project; see `shared`."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest
import torch

from derain.checkpoints import save_checkpoint
from derain.extras import silence
from derain.methods import create_network

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Shells make background jobs ignore Ctrl-C, which every command under test would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

silence()

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of specifications, oracles and real pictures; absent for users."""
    if not SHARED.is_dir():
        pytest.skip("the folder with oracles and real pictures is not beside the project")
    return SHARED


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a SPANet so narrow that it costs nothing, with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(path, create_network("spanet", width=4).state_dict(), {})
    return path


@pytest.fixture(scope="session")
def fill(shared: Path) -> ModuleType:
    """The rule that gives every oracle its weights: `fill_state_dict`, `test_image`, `uniform`."""
    spec = importlib.util.spec_from_file_location("fill", shared / "oracles" / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
