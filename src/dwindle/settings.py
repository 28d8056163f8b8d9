"""One shape for settings by tensor: a value for all, or values by name, by pattern, by type of layer."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from dwindle.errors import TensorError, shown

T = TypeVar("T")
KINDS = ("conv", "linear")
"""Types of layers as a checkpoint shows them: weights of three or more dimensions, and of two."""


def resolve(setting: T | Mapping[str, T | None], tensors: Mapping[str, int]) -> dict[str, T]:
    """The value for each tensor.

    A full name counts more than a pattern ("*.attn.*", of several the last that fits), and a pattern more
    than a type of layer; None means: leave this tensor alone.

    Args:
        setting: one value for all tensors, or values by full name, pattern and type.
        tensors: number of dimensions by name.

    Raises:
        TensorError: if a key is no type and fits no tensor.
    """
    if not isinstance(setting, Mapping):
        return dict.fromkeys(tensors, setting)
    for key in setting:
        if key not in KINDS and key not in tensors and not any(fnmatchcase(name, key) for name in tensors):
            near = difflib.get_close_matches(key, [*KINDS, *tensors], n=1, cutoff=0)
            hint = f", such as {shown(near[0])}" if near else ""
            raise TensorError(f"{shown(key)}: expected the name of a tensor to compress{hint}, got no match")
    patterns = [key for key in setting if key not in KINDS and key not in tensors]
    chosen = {}
    for name, dimensions in tensors.items():
        fitting = [key for key in patterns if fnmatchcase(name, key)]
        kind = "conv" if dimensions > 2 else "linear"
        chosen[name] = setting.get(name if name in setting else fitting[-1] if fitting else kind)
    return {name: value for name, value in chosen.items() if value is not None}
