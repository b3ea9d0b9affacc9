"""Rain2Avoid (ICASSP 2023, IEEE TMM 2025): learns to remove rain from the rainy picture alone."""

from __future__ import annotations

from collections.abc import Mapping

from derain.methods.contract import Architecture, Figure, Method
from derain.methods.rain2avoid.backbones import (
    DnCNN,
    ResNet,
    UNet,
    recognise_dncnn,
    recognise_resnet,
    recognise_unet,
)
from derain.methods.rain2avoid.loss import SquaredError
from derain.methods.self_supervision import SelfSupervision


def _presets() -> Mapping[str, SelfSupervision]:
    from derain.methods.rain2avoid.learning import presets  # needed for learning only

    return presets()


METHOD = Method(
    name="rain2avoid",
    title="Rain2Avoid (ICASSP 2023, TMM 2025)",
    paper="Peng, Li and Chen, Rain2Avoid: Learning Deraining by Self-Supervision",
    self_supervision=_presets,
    architectures=(
        Architecture(
            name="rain2avoid_unet",
            build=UNet,
            variants={
                "published": {"levels": 4, "width": 64, "channels": 3},
                "slim": {"levels": 4, "width": 32, "channels": 3},
            },
            recognise=recognise_unet,
            loss=SquaredError,
            tiny={"width": 8},
            figures=(
                Figure(
                    "published", "Rain100L", 27.75, 0.861, "skimage_rgb", "ICASSP 2023, one network a picture"
                ),
            ),
        ),
        Architecture(
            name="rain2avoid_resnet",
            build=ResNet,
            variants={"published": {"width": 64}},
            recognise=recognise_resnet,
            loss=SquaredError,
            tiny={"width": 8},
            unused_parameters=("resnet18.fc",),
        ),
        Architecture(
            name="rain2avoid_dncnn",
            build=DnCNN,
            variants={"published": {"depth": 17, "width": 64}},
            recognise=recognise_dncnn,
            loss=SquaredError,
            tiny={"depth": 5, "width": 8},
        ),
    ),
)
