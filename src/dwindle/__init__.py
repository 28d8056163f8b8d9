"""dwindle makes trained PyTorch networks small, and proves that they still work.

Names are imported when they are first used: reading a `.dwz` file needs no torch, and `import dwindle` alone
loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dwindle.calibrate import Calibration
    from dwindle.checkpoints import compress_checkpoint
    from dwindle.code.plan import Coding
    from dwindle.compression import Result
    from dwindle.errors import DwindleError
    from dwindle.file import Archive
    from dwindle.file import Archive as open
    from dwindle.loading import load, load_into
    from dwindle.search.entry import compress

__version__ = "0.2.0"
__all__ = [
    "Archive",
    "Calibration",
    "Coding",
    "DwindleError",
    "Result",
    "__version__",
    "compress",
    "compress_checkpoint",
    "load",
    "load_into",
    "open",
]

_HOMES = {
    "Archive": "file",
    "Calibration": "calibrate",
    "Coding": "code.plan",
    "DwindleError": "errors",
    "Result": "compression",
    "compress": "search.entry",
    "compress_checkpoint": "checkpoints",
    "load": "loading",
    "load_into": "loading",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name == "open":
        name = "Archive"
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
