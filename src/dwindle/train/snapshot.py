"""The whole state of a training run in one file, so that a killed run goes on as if nothing had happened."""

from __future__ import annotations

import io
import pickle
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dwindle import atomic
from dwindle.errors import RunError

_MAGIC = b"dwindle snapshot 1\n"
_KEYS = {"model", "optimizer", "generator", "torch", "progress"}


def save_snapshot(
    path: Path,
    *,
    model: nn.Module,
    optimizer: Optimizer | None,
    generator: torch.Generator,
    progress: dict[str, Any],
) -> None:
    """Write a snapshot; whatever happens meanwhile, `path` holds the old one or the whole new one.

    Args:
        path: the file, replaced if it exists.
        model: its parameters and buffers are kept, parametrizations (masks, codebooks) included.
        optimizer: its momenta and rates are kept; None between two phases.
        generator: draws the order of the data; its state is kept, and that of torch's global CPU generator.
        progress: where the run stands, in plain numbers, strings, lists and dicts.

    Raises:
        OutputError: if the file cannot be written.
    """
    state = {
        "model": model.state_dict(),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "generator": generator.get_state(),
        "torch": torch.get_rng_state(),
        "progress": progress,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    # torch.load takes flipped bits for weights, so the file carries a checksum of its own.
    atomic.write_bytes(path, _MAGIC + zlib.crc32(content).to_bytes(4, "little") + content)


def read_progress(path: Path) -> dict[str, Any]:
    """What `save_snapshot` was given as `progress`: how to rebuild the model the snapshot belongs to.

    Raises:
        RunError: if the file is missing, damaged or no snapshot.
    """
    progress: dict[str, Any] = _read(path)["progress"]
    return progress


def read_model(path: Path) -> dict[str, Tensor]:
    """The state dict of the model in a snapshot, to learn its masks and codebooks from.

    Raises:
        RunError: if the file is missing, damaged or no snapshot.
    """
    state: dict[str, Tensor] = _read(path)["model"]
    return state


def load_snapshot(
    path: Path, *, model: nn.Module, optimizer: Optimizer | None, generator: torch.Generator
) -> dict[str, Any]:
    """Put everything back as it was when the snapshot was taken, torch's global random state included.

    Args:
        path: a file of `save_snapshot`.
        model: of the same structure, parametrizations included; changed in place.
        optimizer: over the same parameters; None if and only if none was saved.
        generator: changed in place.

    Returns:
        The `progress` that was saved.

    Raises:
        RunError: if the file is missing, damaged, or belongs to a model or optimizer of another structure.
    """
    state = _read(path)
    if (optimizer is None) != (state["optimizer"] is None):
        kept, given = ("none" if x is None else "one" for x in (state["optimizer"], optimizer))
        raise RunError(f"{path}: expected a snapshot with the optimizer asked for ({given}), got {kept}")
    try:
        model.load_state_dict(state["model"])
        if optimizer is not None:
            optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path}: expected a snapshot of this model and optimizer: {reason}") from error
    generator.set_state(state["generator"])
    torch.set_rng_state(state["torch"])
    progress: dict[str, Any] = state["progress"]
    return progress


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise RunError(f"{path}: expected a snapshot, got no file") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    start = len(_MAGIC) + 4
    if not data.startswith(_MAGIC):
        raise RunError(f"{path}: expected a snapshot, got another kind of file")
    expected, found = int.from_bytes(data[len(_MAGIC) : start], "little"), zlib.crc32(data[start:])
    if len(data) < start or found != expected:
        raise RunError(f"{path}: expected a whole snapshot (CRC-32 {expected:08x}), got {found:08x}")
    try:
        state = torch.load(io.BytesIO(data[start:]), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{path}: expected a snapshot that holds tensors only: {reason}") from error
    if not isinstance(state, dict) or set(state) != _KEYS:
        raise RunError(f"{path}: expected a snapshot, got other content")
    return state
