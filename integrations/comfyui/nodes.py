"""A node that takes an image, and returns the restored image and a mask of the rain."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

import derain
from derain.restore.blending import blended

SHOWN = 4  # factor that makes faint rain visible in the mask


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
            The restored images (B, H, W, 3), and the rain, (B, H, W) in [0, 1]: `SHOWN` times the mean change
            of the three channels at full strength.

        Raises:
            ValueError: the image has another shape, or is not of floats.
        """
        if image.ndim != 4 or image.shape[-1] not in (3, 4) or not image.is_floating_point():
            raise ValueError(
                f"the image is {tuple(image.shape)} of {image.dtype}; give (B, H, W, 3), float RGB in [0, 1]."
            )
        restore = _opened(model).with_settings(tile=tile or None)
        rainy = image[..., :3].detach().cpu().float().clamp(0, 1).permute(0, 3, 1, 2).contiguous()
        dry = restore.restore(rainy).image
        rain = SHOWN * (dry - rainy).abs().mean(1)
        image = blended(rainy, dry, strength, None)
        return image.permute(0, 2, 3, 1).contiguous(), rain.clamp(max=1)


@functools.lru_cache(maxsize=1)
def _opened(model: str) -> derain.Derainer:
    """Opens a model; the last one stays open."""
    if model not in derain.list_models(pretrained=True):  # a workflow from a stranger must not name files
        raise ValueError(f"model '{model}': choose one of {', '.join(derain.list_models(pretrained=True))}.")
    return derain.load(model)


NODE_CLASS_MAPPINGS = {"DerainRemoveRain": RemoveRain}
NODE_DISPLAY_NAME_MAPPINGS = {"DerainRemoveRain": "Remove Rain"}
