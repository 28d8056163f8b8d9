"""The trained reference networks that come with the repository."""

from __future__ import annotations

from pathlib import Path

from dwindle.checkout import source_tree


def reference_checkpoint(name: str) -> Path | None:
    """The committed checkpoint of a reference network; None where the package is used without the repository.

    Args:
        name: one of `NAMES`.
    """
    root = source_tree()
    path = None if root is None else root / "checkpoints" / f"{name}.safetensors"
    return path if path is not None and path.is_file() else None
