"""A folder of safetensors shards read as one checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dwindle.errors import CheckpointError
from dwindle.io import safetensors_file
from dwindle.io.contents import Checkpoint
from dwindle.records import Record, outline

INDEX_SUFFIX = ".safetensors.index.json"
MAX_INDEX = safetensors_file.MAX_HEADER
"""Bytes an index may have."""


def read(folder: Path) -> Checkpoint:
    """Read every `*.safetensors` file of `folder`, in the order of their names.

    Where the folder has an index (`model.safetensors.index.json`), it must name exactly the shards that are
    there and exactly their tensors. Other files of the folder, and metadata the shards contradict each other
    in, are listed as skipped.

    Raises:
        CheckpointError: if there is no shard, a shard is damaged, a name is in two shards, or the index and
            the shards disagree.
        OSError: if a file cannot be opened.
    """
    files = sorted(entry for entry in folder.iterdir())
    shards = [file for file in files if file.suffix == ".safetensors"]
    indexes = [file for file in files if file.name.endswith(INDEX_SUFFIX)]
    if not shards:
        raise CheckpointError(f"{folder}: expected a folder of .safetensors shards, got one without any")
    if len(indexes) > 1:
        names = ", ".join(file.name for file in indexes)
        raise CheckpointError(f"{folder}: expected one index of shards, got {names}")

    parts: dict[str, Mapping[str, Record]] = {}
    owner: dict[str, str] = {}
    metadata: dict[str, str] = {}
    skipped = [file.name for file in files if file not in shards and file not in indexes]
    for shard in shards:
        part = safetensors_file.read(shard)
        for name in part.records:
            if name in owner:
                raise CheckpointError(
                    f"{shard}: tensor {name!r}: expected it in one shard, got it in {owner[name]} too"
                )
            owner[name], parts[name] = shard.name, part.records
        for key, text in part.metadata.items():
            if metadata.setdefault(key, text) != text:
                skipped.append(f"{shard.name}: metadata {key!r}")
    for index in indexes:
        _check_index(index, _read_index(index), owner, {shard.name for shard in shards})
    return Checkpoint(_Tensors(parts), metadata, tuple(skipped))


class _Tensors(Mapping[str, Record]):
    """The tensors of all shards, each read when it is asked for."""

    def __init__(self, parts: Mapping[str, Mapping[str, Record]]) -> None:
        self._parts = parts

    def __getitem__(self, name: str) -> Record:
        """Map a tensor."""
        return self._parts[name][name]

    def __iter__(self) -> Iterator[str]:
        """Names, shard by shard."""
        return iter(self._parts)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._parts)

    def outline(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of a tensor, without mapping it."""
        return outline(self._parts[name], name)


def _read_index(index: Path) -> dict[str, Any]:
    """The index's `weight_map`: which shard holds which tensor."""
    if index.stat().st_size > MAX_INDEX:
        raise CheckpointError(f"{index}: expected at most {MAX_INDEX} bytes, got {index.stat().st_size}")
    try:
        content = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{index}: expected JSON, got {error}") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index}: expected a weight_map of tensors to shards, got none")
    return weight_map


def _check_index(index: Path, weight_map: dict[str, Any], owner: dict[str, str], shards: set[str]) -> None:
    missing = sorted(set(weight_map.values()) - shards)
    if missing:
        raise CheckpointError(f"{index}: expected the shard {missing[0]!r} beside it, got none")
    unknown = sorted(shards - set(weight_map.values()))
    if unknown:
        raise CheckpointError(f"{index}: expected all shards of the folder in it, got none of {unknown[0]!r}")
    for name, shard in weight_map.items():
        if owner.get(name) != shard:
            got = owner.get(name, "no shard")
            raise CheckpointError(f"{index}: tensor {name!r}: expected it in {shard}, got it in {got}")
    extra = next((name for name in owner if name not in weight_map), None)
    if extra is not None:
        raise CheckpointError(
            f"{index}: expected all tensors in it, got none for {extra!r} of {owner[extra]}"
        )
