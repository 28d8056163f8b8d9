"""Torch's own checkpoints, read without running anything in them. Only this file of the room needs torch."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dwindle import dtypes
from dwindle.atomic import writing
from dwindle.errors import CheckpointError, UnsafeCheckpointError
from dwindle.io.contents import Checkpoint
from dwindle.records import Raw, Record, Shared, Tied, each, elements, to_storage

MAX_EXPANSION = 16
"""How many times the file's own size its tensors may take, beyond `FREE_BYTES`: views may repeat bytes."""

FREE_BYTES = 1 << 26
"""Bytes the tensors of any file may take."""

_SHOWN = 8
"""How many nested state dicts an error names."""


def read(path: Path, key: str | None = None) -> Checkpoint:
    """Read a torch checkpoint: a mapping of names to tensors, or one nested in others.

    Tensors are views of the mapped file where it is an uncompressed zip archive and they are contiguous.
    Two names of the same elements (one storage, offset, shape, stride) are one record and a tie.

    Args:
        path: file that `torch.save` wrote, in its zip or its older format.
        key: dotted path to the nested state dict, such as "state_dict" or "model.ema"; what lies beside that
            path is listed as skipped.

    Raises:
        CheckpointError: if the file is damaged, there is no state dict (the nested ones are named), or a
            tensor has no dtype of `dtypes.STORAGE` or is not dense.
        UnsafeCheckpointError: if the file only loads by running code stored inside it.
        OSError: if the file cannot be opened.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected names mapped to tensors, got {type(content).__name__}")
    state, skipped = (content, []) if key is None else _choose(path, content, key)
    tensors: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            skipped.append(f"{key}.{name}" if key else str(name))
        elif isinstance(name, str):
            tensors[name] = value
        else:
            raise CheckpointError(f"{path}: expected names that are text, got {name!r}")
    if state and not tensors:
        raise CheckpointError(f"{path}: expected names mapped to tensors, got {_describe(content)}")
    _check_sizes(path, tensors)
    return Checkpoint(_records(path, tensors), {}, tuple(skipped))


def write(path: Path, records: Mapping[str, Record], *, force: bool) -> None:
    """Save a state dict with `torch.save`; a tied tensor is one tensor under its names.

    Raises:
        OutputError: if the file cannot be written.
    """
    found = dict(each(records, records))
    tensors = {name: to_tensor(r) for name, r in found.items() if not isinstance(r, Tied)}
    state = {name: tensors[r.to if isinstance(r, Tied) else name] for name, r in found.items()}
    with writing(path, force=force) as stream:
        torch.save(state, stream)


def _load(path: Path) -> Any:
    """Unpickle with torch's restricted unpickler, which builds tensors and plain containers only."""
    with warnings.catch_warnings(), path.open("rb") as stream:
        warnings.simplefilter(
            "ignore"
        )  # about pickle protocols and typed storages: nothing a user can act on
        try:
            if _can_map(path):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return torch.load(stream, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            asked = re.search(r"GLOBAL (\S+)", str(error))
            what = f" ({asked[1]})" if asked else ""
            raise UnsafeCheckpointError(
                f"{path}: expected tensors only, got a pickle that may run code{what}; "
                "save the model's state_dict with torch.save, or as .safetensors"
            ) from error
        # A damaged file trips the unpickler anywhere: IndexError, KeyError, struct.error, RuntimeError, ...
        except Exception as error:
            if "TorchScript" in str(error):
                raise UnsafeCheckpointError(
                    f"{path}: expected a state dict, got a TorchScript archive, which holds code"
                ) from error
            said = "" if isinstance(error, LookupError) else str(error).split(". ")[0].split("\n")[0]
            reason = said or "no pickle, or one cut short"
            raise CheckpointError(
                f"{path}: expected a torch checkpoint, got a damaged one: {reason}"
            ) from error


def _can_map(path: Path) -> bool:
    """Whether every byte of the archive lies in the file as it is.

    torch maps a compressed archive without a word and hands out its compressed bytes as weights. It also
    takes a path that ends in .safetensors for a safetensors file.

    Raises:
        CheckpointError: if a compressed archive unpacks out of proportion.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    _check_proportion(path, sum(entry.file_size for entry in entries))
    return path.suffix != ".safetensors" and all(e.compress_type == zipfile.ZIP_STORED for e in entries)


def _check_sizes(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        where = f"{path}: tensor {name!r}"
        if _dtype(tensor) not in dtypes.STORAGE:
            raise CheckpointError(
                f"{where}: expected a dtype out of {', '.join(dtypes.STORAGE)}, got {_dtype(tensor)}"
            )
        if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type != "cpu":
            got = f"{tensor.layout} on {tensor.device}"
            raise CheckpointError(f"{where}: expected a dense tensor with data, got {got}")
    _check_proportion(path, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))


def _check_proportion(path: Path, total: int) -> None:
    size = path.stat().st_size
    if total > FREE_BYTES and total > MAX_EXPANSION * size:
        raise CheckpointError(
            f"{path}: expected tensors of at most {MAX_EXPANSION} times the file, got {total} bytes in {size}"
        )


def _records(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Raw | Tied]:
    records: dict[str, Raw | Tied] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        place = (
            tensor.data_ptr(),
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
            tensor.is_conj(),
            tensor.is_neg(),
        )
        owner = first.setdefault(place, name) if tensor.numel() else name
        if owner != name:
            records[name] = Tied(owner)
            continue
        records[name] = to_raw(tensor)
    return records


def to_raw(tensor: torch.Tensor) -> Raw:
    """The record of a tensor of a dtype of `dtypes.STORAGE`: a view of its memory where it is contiguous."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if plain.data_ptr() % plain.element_size():  # an archive need not be laid out as torch does it
        plain = plain.clone()
    return Raw(_dtype(tensor), tuple(tensor.shape), plain.reshape(-1).view(torch.uint8).numpy().data)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def to_tensor(record: Raw | Shared, *, adopt: bool = False) -> torch.Tensor:
    """The tensor of a record, in memory that torch may write to.

    Args:
        record: its bytes may be a read-only mapping.
        adopt: take the record's memory where it can be written. Nobody else may use it then.
    """
    dtype = getattr(torch, record.dtype)
    if not elements(record):
        return torch.empty(record.shape, dtype=dtype)
    if isinstance(record, Shared):
        bits = to_storage(record).reshape(-1).view(np.uint8)
    elif adopt and not memoryview(record.data).readonly:
        bits = np.frombuffer(record.data, np.uint8)
    else:
        bits = np.frombuffer(record.data, np.uint8).copy()
    return torch.frombuffer(bits, dtype=dtype).reshape(record.shape)


def _choose(path: Path, content: Mapping[Any, Any], key: str) -> tuple[Mapping[Any, Any], list[str]]:
    """The mapping at `key`, and the names of everything beside the path to it."""
    steps = _follow(content, key)
    if steps is None:
        raise CheckpointError(
            f"{path}: expected names mapped to tensors at {key!r}, got {_describe(content)}"
        )
    skipped, prefix, node = [], "", content
    for step in steps:
        skipped += [f"{prefix}{name}" for name in node if name != step]
        prefix, node = f"{prefix}{step}.", node[step]
    return node, skipped


def _follow(node: Any, key: str) -> list[Any] | None:
    """The keys that lead along a dotted path to a mapping; a key may hold dots itself."""
    for name, value in node.items():
        if not isinstance(value, Mapping):
            continue
        if str(name) == key:
            return [name]
        if key.startswith(f"{name}."):
            rest = _follow(value, key[len(str(name)) + 1 :])
            if rest is not None:
                return [name, *rest]
    return None


def _describe(content: Mapping[Any, Any]) -> str:
    """What there is instead of a state dict, with the keys that would lead to one."""
    found = _candidates(content)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return f"them nested: choose one with --key (key=...): {', '.join(found[:_SHOWN])}{more}"
    return f"{len(content)} entries without any tensor"


def _candidates(content: Mapping[Any, Any]) -> list[str]:
    """Dotted paths to the nested mappings that hold tensors, outermost first."""
    found: list[str] = []
    seen = {id(content)}  # a pickle can nest a mapping in itself
    level: list[tuple[str, Mapping[Any, Any]]] = [("", content)]
    while level:
        inner = []
        for prefix, node in level:
            for name, value in node.items():
                if isinstance(value, Mapping) and id(value) not in seen:
                    seen.add(id(value))
                    inner.append((f"{prefix}{name}.", value))
        found += [path[:-1] for path, node in inner if _holds_tensors(node)]
        level = inner
    return found


def _holds_tensors(node: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, torch.Tensor) for value in node.values())
