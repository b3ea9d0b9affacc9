"""A node that takes an image, and returns the restored image and a mask of the rain."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

import derain


class RemoveRain:
    """Removes rain from images, with the weights bundled with derain."""

    CATEGORY = "image/restoration"
    DESCRIPTION = "Removes rain from pictures; the mask shows where the network found it."
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "rain")
    FUNCTION = "remove"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node takes, in ComfyUI's format."""
        return {
            "required": {
                "image": ("IMAGE",),
                "model": (derain.list_models(pretrained=True),),
                "strength": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 1.5,
                        "step": 0.05,
                        "tooltip": "how much of the change to apply",
                    },
                ),
                "tile": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 8192,
                        "step": 64,
                        "tooltip": "side of a tile in pixels; 0: what fits in memory",
                    },
                ),
            }
        }

    def remove(self, image: Tensor, model: str, strength: float, tile: int) -> tuple[Tensor, Tensor]:
        """Restores a batch, (B, H, W, 3) float RGB in [0, 1]; values outside are clamped.

        Returns:
            The restored images of the same shape, and the rain, (B, H, W) in [0, 1]: the network's own map,
            or, for networks without one, the mean change of the three channels.
        """
        restore = _opened(model).with_settings(strength=strength, tile=tile or None)
        rainy = image[..., :3].detach().cpu().float().clamp(0, 1).permute(0, 3, 1, 2).contiguous()
        found = restore.restore(rainy, with_maps="mask" in restore.network.spec.maps)
        rain = found.maps.get("mask", (found.image - rainy).abs().mean(1, keepdim=True))
        return found.image.permute(0, 2, 3, 1).contiguous(), rain[:, 0].clamp(0, 1)


@functools.lru_cache(maxsize=1)
def _opened(model: str) -> derain.Derainer:
    """Opens a model; the last one stays open."""
    if model not in derain.list_models(pretrained=True):  # a workflow from a stranger must not name files
        raise ValueError(f"model '{model}': choose one of {', '.join(derain.list_models(pretrained=True))}.")
    return derain.load(model)


NODE_CLASS_MAPPINGS = {"DerainRemoveRain": RemoveRain}
NODE_DISPLAY_NAME_MAPPINGS = {"DerainRemoveRain": "Remove Rain"}
