"""The optimizers of a recipe, by name, including Muon for convolution kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from derain.training.recipe import Optimizer


def make_optimizer(chosen: Optimizer, network: nn.Module) -> torch.optim.Optimizer:
    """An optimizer for the trainable parameters of a network."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    rate, decay, momentum = chosen.rate, chosen.weight_decay, chosen.momentum
    match chosen.name:
        case "adam":
            return torch.optim.Adam(trained, rate, chosen.betas, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(trained, rate, chosen.betas, weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(trained, rate, 0.9 if momentum is None else momentum, weight_decay=decay)
        case "muon":
            return MuonWithAdamW(trained, rate, 0.95 if momentum is None else momentum, chosen.betas, decay)


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for parameters with several axes, AdamW for biases and scales.

    A kernel (out, in, height, width) is flattened to (out, in * height * width) for Muon, whose updates
    are scaled to the size of AdamW's (Liu et al., 2025), so that one rate and one weight decay suit both.

    Args:
        parameters: the parameters of a network.
        rate: learning rate; read from `param_groups` at every step.
        momentum: Muon's momentum.
        betas: AdamW's betas.
        weight_decay: decoupled weight decay of both.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        rate: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        given = list(parameters)
        self._kernels = [p for p in given if p.ndim > 1]
        rest = [p for p in given if p.ndim <= 1]
        super().__init__([{"params": self._kernels}, {"params": rest}], {"lr": rate})
        # A kernel in channels-last order has no flat view, so Muon works on copies.
        self._flat = [nn.Parameter(p.detach().flatten(1).clone()) for p in self._kernels]
        self._muon = torch.optim.Muon(
            [{"params": self._flat}], rate, weight_decay, momentum, adjust_lr_fn="match_rms_adamw"
        )
        self._adamw = torch.optim.AdamW([{"params": rest}], rate, betas, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update; a closure is not supported."""
        assert closure is None
        for flat, kernel in zip(self._flat, self._kernels, strict=True):
            flat.copy_(kernel.flatten(1))
            flat.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for optimizer, group in zip((self._muon, self._adamw), self.param_groups, strict=True):
            optimizer.param_groups[0]["lr"] = group["lr"]
            optimizer.step()
        for flat, kernel in zip(self._flat, self._kernels, strict=True):
            kernel.copy_(flat.view(kernel.shape))
            flat.grad = None

    def state_dict(self) -> dict[str, Any]:
        """{"muon": state, "adamw": state}, each as from PyTorch's optimizer."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state from `state_dict`."""
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
