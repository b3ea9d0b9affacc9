"""The node for ComfyUI, called as ComfyUI calls it: tensors (B, H, W, 3), and widgets by their names."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import derain

PACK = Path(__file__).resolve().parents[2] / "integrations" / "comfyui"


@pytest.fixture(scope="module")
def pack() -> ModuleType:
    """The folder, imported as a program with node packs does it."""
    spec = importlib.util.spec_from_file_location("comfyui_pack", PACK / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_batch_with_the_widgets_as_they_start(pack: ModuleType) -> None:
    node = pack.NODE_CLASS_MAPPINGS["DerainRemoveRain"]
    wanted = node.INPUT_TYPES()["required"]
    assert set(pack.NODE_DISPLAY_NAME_MAPPINGS) == set(pack.NODE_CLASS_MAPPINGS)
    assert wanted["model"][0] == derain.list_models(pretrained=True)
    widgets = {name: wanted[name][1]["default"] for name in ("strength", "tile")}
    batch = torch.rand(2, 37, 50, 3)
    image, rain = getattr(node(), node.FUNCTION)(image=batch, model="spanet", **widgets)
    assert node.RETURN_TYPES == ("IMAGE", "MASK")
    assert (image.shape, rain.shape) == (batch.shape, batch.shape[:3])
    assert (image.dtype, rain.dtype) == (torch.float32, torch.float32)
    direct = derain.load("spanet")(batch.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1)
    assert torch.allclose(image, direct, atol=1e-6)
    assert rain.min() >= 0
    assert rain.max() <= 1
    half, same = node().remove(batch, "spanet", 0.5, 64)
    assert torch.allclose(half, (image + batch) / 2, atol=0.02)
    assert torch.allclose(same, rain, atol=0.1)


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 3, 8, 8), (1, 8, 8, 1), (1, 8, 8)])
def test_another_layout_is_refused_in_words(pack: ModuleType, shape: tuple[int, ...]) -> None:
    node = pack.NODE_CLASS_MAPPINGS["DerainRemoveRain"]()
    with pytest.raises(ValueError, match=r"give \(B, H, W, 3\)"):
        node.remove(torch.rand(shape), "spanet", 1.0, 0)
    with pytest.raises(ValueError, match="uint8"):
        node.remove(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), "spanet", 1.0, 0)


def test_values_outside_the_range_and_transparency(pack: ModuleType) -> None:
    node = pack.NODE_CLASS_MAPPINGS["DerainRemoveRain"]()
    image, _ = node.remove(3 * torch.rand(1, 16, 16, 4) - 1, "spanet", 1.0, 0)
    assert image.shape == (1, 16, 16, 3)
    assert image.isfinite().all()


def test_a_workflow_names_no_files(pack: ModuleType) -> None:
    with pytest.raises(ValueError, match="choose one of"):
        pack.NODE_CLASS_MAPPINGS["DerainRemoveRain"]().remove(torch.rand(1, 8, 8, 3), "/tmp/x.pth", 1.0, 0)
