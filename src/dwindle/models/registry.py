"""Reference networks by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dwindle.errors import RecipeError
from dwindle.models.lenet import LeNet5, LeNet300

_MODELS: dict[str, Callable[[float], nn.Module]] = {"lenet-300-100": LeNet300, "lenet-5": LeNet5}

NAMES = tuple(_MODELS)
"""Names `build` knows."""


def build(name: str, *, dropout: float = 0.0) -> nn.Module:
    """Make a reference network with fresh weights, drawn from torch's global random state.

    Args:
        name: one of `NAMES`.
        dropout: rate of its dropout modules (`drop1`, `drop2`), which is theirs to change: `drop1.p`.

    Raises:
        RecipeError: if the name is unknown.
    """
    if name not in _MODELS:
        raise RecipeError(f"model: expected one of {', '.join(NAMES)}, got {name!r}")
    return _MODELS[name](dropout)
