"""Models by name: lists them, and creates new ones."""

from __future__ import annotations

import fnmatch
from typing import Any

from torch import nn

from derain.checkpoints.bundled import bundled, bundled_names
from derain.checkpoints.recognise import open_checkpoint
from derain.errors import UsageError, wrong_type
from derain.methods import create_network, network_names


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of models, in alphabetical order.

    Examples:
        >>> import derain
        >>> derain.list_models("nerd*")
        ['nerd_rain', 'nerd_rain-s']

    Args:
        pattern: `*` stands for anything, `?` for any character.
        pretrained: only those whose weights come with the package.

    Raises:
        UsageError: the pattern is not text.
    """
    if not isinstance(pattern, str):
        raise wrong_type("a pattern", pattern, "text, such as 'nerd*'")
    names = bundled_names() if pretrained else {*network_names(), *bundled_names()}
    return sorted(fnmatch.filter(names, pattern))


def create_model(name: str, *, pretrained: bool = False, **config: Any) -> nn.Module:
    """A network as a `torch.nn.Module`, in training mode, on the CPU.

    Examples:
        >>> import derain
        >>> network = derain.create_model("spanet", width=8)
        >>> sum(p.numel() for p in network.parameters())
        18180

    Args:
        name: one of `list_models()`.
        pretrained: load the weights that come with the package; otherwise they are random.
        config: keyword arguments of the network that replace those of the variant.

    Raises:
        UsageError: the name is not known, its weights are not bundled, or `config` does not suit the network
            or is given together with `pretrained`.
    """
    if not pretrained:
        return create_network(name, **config)
    if config:
        raise UsageError(
            f"{name}: pretrained weights have fixed hyper-parameters; leave out {', '.join(config)}, "
            "or `pretrained`."
        )
    return open_checkpoint(bundled(name)).network.train()
