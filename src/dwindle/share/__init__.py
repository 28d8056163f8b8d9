"""Weight sharing: k-means, codebooks, bits per layer.

What works on arrays (`assign`, `kmeans`, `layer`, `allocate`, `rate`) does so without torch: hence names
are imported from their modules on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dwindle.share.apply import PAPER_BITS, Bits, SharedTensor, ShareReport, sharable, share, share_levels
    from dwindle.share.codebook import Codebook, get_codebook, set_codebook
    from dwindle.share.layer import assign_layer
    from dwindle.share.levels import Signal, step_sizes

__all__ = [
    "PAPER_BITS",
    "Bits",
    "Codebook",
    "ShareReport",
    "SharedTensor",
    "Signal",
    "assign_layer",
    "get_codebook",
    "set_codebook",
    "sharable",
    "share",
    "share_levels",
    "step_sizes",
]

_HOMES = dict.fromkeys(__all__, "apply") | dict.fromkeys(
    ("Codebook", "get_codebook", "set_codebook"), "codebook"
)
_HOMES |= {"assign_layer": "layer", "step_sizes": "levels", "Signal": "levels"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
