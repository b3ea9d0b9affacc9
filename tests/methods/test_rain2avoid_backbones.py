"""The backbones of Rain2Avoid: sizes, receptive fields, operation counts, recognition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from derain.methods.rain2avoid.backbones import (
    DnCNN,
    ResNet,
    UNet,
    recognise_dncnn,
    recognise_resnet,
    recognise_unet,
)


def test_parameters_and_operations_are_the_published_ones() -> None:
    with torch.device("meta"):
        unet, resnet, dncnn = UNet(), ResNet(), DnCNN()
    assert [_parameters(n) for n in (unet, resnet, dncnn)] == [4_539_988, 14_511_147, 558_336]
    assert [len(n.state_dict()) for n in (unet, resnet, dncnn)] == [39, 372, 92]
    assert round(unet.multiply_adds(320, 480) / 1e9, 1) == 18.0
    assert round(dncnn.multiply_adds(320, 480) / 1e9, 1) == 85.5


@pytest.mark.parametrize("network", [UNet(width=8), UNet(levels=2, width=8), ResNet(8), DnCNN(5, 8)])
def test_multiply_adds_are_those_of_the_convolutions_that_run(network: UNet | ResNet | DnCNN) -> None:
    stated, counted = network.multiply_adds(64, 96), 0

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal counted
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        places = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        counted += module.weight.numel() * places.shape[2] * places.shape[3]

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    network(torch.rand(1, 3, 64, 96))
    assert counted == stated


@pytest.mark.parametrize(
    "network", [UNet(levels=1, width=4), UNet(levels=2, width=4), UNet(width=4), DnCNN(6, 8)]
)
def test_the_receptive_field_is_exact(network: UNet | DnCNN) -> None:
    for parameter in network.parameters():  # all positive, so that nothing cancels or dies in a ReLU
        nn.init.constant_(parameter, 0.1)
    network.eval()
    size = 32 * (network.spec.receptive_field // 16 + 1)
    furthest = 0
    for offset in range(network.spec.multiple_of):
        at = size // 2 + offset
        picture = torch.rand(1, 3, size, 16, requires_grad=True)
        network(picture)[0, 0, at, 8].backward()
        assert picture.grad is not None
        rows = picture.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        furthest = max(furthest, at - int(rows.min()), int(rows.max()) - at)
    assert furthest == network.spec.receptive_field


def test_recognition_reads_the_hyper_parameters() -> None:
    assert recognise_unet(UNet(width=8, channels=1).state_dict()) == {"levels": 4, "width": 8, "channels": 1}
    assert recognise_resnet(ResNet(8).state_dict()) == {"width": 8}
    assert recognise_dncnn(DnCNN(7, 12).state_dict()) == {"depth": 7, "width": 12}
    assert recognise_unet(DnCNN(3, 4).state_dict()) is None


def test_the_last_of_the_copies_in_a_resnet_file_wins() -> None:
    network = ResNet(8)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state["down3.0.conv1.weight"].fill_(0.5)
    network.load_state_dict(state, strict=True)
    assert (network.state_dict()["resnet18.layer2.0.conv1.weight"] == 0.5).all()


def test_training_mode_can_be_chained() -> None:
    network = UNet(width=4)
    assert network.train() is network
    assert network.eval() is network


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
