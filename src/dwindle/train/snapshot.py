"""The whole state of a training run in one file, so that a killed run goes on as if nothing had happened."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dwindle import atomic
from dwindle.errors import RunError

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
    with atomic.writing(path) as stream:
        torch.save(state, stream)


def read_progress(path: Path) -> dict[str, Any]:
    """What `save_snapshot` was given as `progress`: how to rebuild the model the snapshot belongs to.

    Raises:
        RunError: if the file is missing, damaged or no snapshot.
    """
    progress: dict[str, Any] = _read(path)["progress"]
    return progress


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
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"{path}: expected a snapshot, got no file") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{path}: expected a whole snapshot, got damage: {reason}") from error
    if not isinstance(state, dict) or set(state) != _KEYS:
        raise RunError(f"{path}: expected a snapshot, got another kind of file")
    return state
