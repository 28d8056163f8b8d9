"""Reference networks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import nn

from dwindle.errors import RecipeError
from dwindle.models.alexnet import AlexNet
from dwindle.models.lenet import LeNet5, LeNet300
from dwindle.models.resnet import ResNet50
from dwindle.models.vgg import VGG16

Data = Literal["mnist", "images"]


class _Network(NamedTuple):
    make: Callable[..., nn.Module]
    data: Data
    dropout: bool = True


_NETWORKS = {
    "lenet-300-100": _Network(LeNet300, "mnist"),
    "lenet-5": _Network(LeNet5, "mnist"),
    "alexnet": _Network(AlexNet, "images"),
    "vgg-16": _Network(VGG16, "images"),
    "resnet-50": _Network(ResNet50, "images", dropout=False),
}

NAMES = tuple(_NETWORKS)
"""Names `build` knows."""

DATA: dict[str, Data] = {name: network.data for name, network in _NETWORKS.items()}
"""What each network takes: MNIST's digits, or pictures of ImageNet's 1,000 classes."""


def build(name: str, *, dropout: float | None = None) -> nn.Module:
    """Make a reference network with fresh weights, drawn from torch's global random state.

    Args:
        name: one of `NAMES`.
        dropout: rate of its dropout modules, which is theirs to change afterwards (`drop1.p`); None leaves
            the network's own: 0 for the LeNets, 0.5 for AlexNet and VGG-16.

    Raises:
        RecipeError: if the name is unknown, or dropout is asked of a network that has none.
    """
    if name not in _NETWORKS:
        raise RecipeError(f"model: expected one of {', '.join(NAMES)}, got {name!r}")
    network = _NETWORKS[name]
    if network.dropout and dropout is not None:
        return network.make(dropout=dropout)
    if dropout:
        raise RecipeError(f"{name}: expected no dropout, since the network has none, got {dropout}")
    return network.make()
