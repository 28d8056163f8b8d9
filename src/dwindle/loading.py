"""From a file back to tensors and models."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from dwindle import bind
from dwindle.file import Archive

Module = TypeVar("Module", bound=nn.Module)


def load(path: Path | str, *, max_bytes: int | str | None = "auto") -> dict[str, Tensor]:
    """All tensors of a `.dwz` file by name, in CPU memory of their own; tied names share one tensor.

    Args:
        path: the file.
        max_bytes: see `file.Archive`.

    Raises:
        FileError: if it is no `.dwz` file, or damaged.
    """
    with Archive(path, max_bytes=max_bytes) as archive:
        return bind.from_archive(archive)


def load_into(model: Module, path: Path | str, *, max_bytes: int | str | None = "auto") -> Module:
    """Load a `.dwz` file into a model of the class it was made from, in place.

    Args:
        model: its parameters keep their dtype and device.
        path: the file.
        max_bytes: see `file.Archive`.

    Returns:
        `model`.

    Raises:
        CheckpointError: if the file's names or shapes are not the model's.
        FileError: if it is no `.dwz` file, or damaged.
    """
    with Archive(path, max_bytes=max_bytes) as archive:
        bind.load_records(model, dict(archive.walk()), str(path))
    return model
