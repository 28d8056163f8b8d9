"""A folder of safetensors shards read as one checkpoint, and written again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from dwindle.errors import CheckpointError
from dwindle.io import folder, safetensors_file, shard_layout
from dwindle.io.contents import Checkpoint
from dwindle.io.shard_layout import INDEX, INDEX_SUFFIX, SUFFIX, Layout, Shard
from dwindle.records import Raw, Record, Shared, followed, outline, resolve

MAX_INDEX = safetensors_file.MAX_HEADER
"""Bytes an index may have."""


def read(path: Path) -> Checkpoint:
    """Read every `*.safetensors` file of the folder, in the order of their names.

    Where the folder has an index (`model.safetensors.index.json`), it must name exactly the shards that are
    there and exactly their tensors. Other files of the folder are listed as skipped. Metadata are those of
    all shards, where two say a key those of the first; what each says, and the index, is the extra `shards`.

    Raises:
        CheckpointError: if there is no shard, a shard is damaged, a name is in two shards, or the index and
            the shards disagree.
        OSError: if a file cannot be opened.
    """
    files = sorted(entry for entry in path.iterdir())
    shards = [file for file in files if file.suffix == SUFFIX]
    indexes = [file for file in files if file.name.endswith(INDEX_SUFFIX)]
    if not shards:
        raise CheckpointError(f"{path}: expected a folder of .safetensors shards, got one without any")
    if len(indexes) > 1:
        names = ", ".join(file.name for file in indexes)
        raise CheckpointError(f"{path}: expected one index of shards, got {names}")

    parts: dict[str, Mapping[str, Record]] = {}
    owner: dict[str, str] = {}
    metadata: dict[str, str] = {}
    listed = []
    for shard in shards:
        part = safetensors_file.read(shard)
        for name in part.records:
            if name in owner:
                raise CheckpointError(
                    f"{shard}: tensor {name!r}: expected it in one shard, got it in {owner[name]} too"
                )
            owner[name], parts[name] = shard.name, part.records
        for key, text in part.metadata.items():
            metadata.setdefault(key, text)
        listed.append(Shard(shard.name, len(part.records), part.metadata))
    about: dict[str, Any] = {}
    for index in indexes:
        about = _read_index(index)
        _check_index(index, about.pop("weight_map"), owner, {shard.name for shard in shards})
    try:
        layout = Layout(tuple(listed), indexes[0].name if indexes else None, about)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    try:
        extras = {shard_layout.EXTRA: shard_layout.to_bytes(layout, metadata)}
    except RecursionError as error:
        raise CheckpointError(f"{indexes[0]}: expected an index that is less deep") from error
    skipped = [file.name for file in files if file not in shards and file not in indexes]
    read = (*shards, *indexes)
    return Checkpoint(_Tensors(parts), metadata, tuple(skipped), extras, files=tuple(read))


def write(path: Path, records: Mapping[str, Record], layout: Layout, *, force: bool) -> list[Path]:
    """Write a folder of shards, one tensor at a time; a tied tensor is written under each of its names.

    Shards and an index that are there are replaced with `force`; other files of the folder stay.

    Args:
        path: the folder, which need not exist.
        records: the tensors, in the order of the shards.
        layout: which tensors lie in which shard; must count as many as there are.
        force: replace shards and an index that are there.

    Returns:
        The files that were written.

    Raises:
        CheckpointError: if a tensor's dtype or name has no form in the format.
        OutputError: if the folder cannot be written, see `folder.writing`.
    """
    folder.check(path, ours=is_ours, force=force)
    names = iter(records)
    contents: dict[str, safetensors_file.Content] = {}
    weight_map: dict[str, str] = {}
    for shard in layout.shards:
        part = _Part(records, islice(names, shard.count))
        weight_map |= dict.fromkeys(part, shard.name)
        contents[shard.name] = safetensors_file.Content(path / shard.name, part, shard.metadata)
    index = layout.index or INDEX
    with folder.writing(
        path, ours=is_ours, guard=index, keep=layout.index is not None, force=force
    ) as temporary:
        for name, content in contents.items():
            with (temporary / name).open("xb") as stream:
                content.write(stream)
        (temporary / index).write_bytes(_index(layout.about, weight_map))
    return [path / name for name in [*contents, *([] if layout.index is None else [layout.index])]]


def is_ours(name: str) -> bool:
    """Whether a file of this name is part of a checkpoint in shards."""
    return Path(name).suffix == SUFFIX or name.endswith(INDEX_SUFFIX)


def _index(about: Mapping[str, Any], weight_map: Mapping[str, str]) -> bytes:
    """An index as the libraries that shard checkpoints write it, to the byte."""
    content = {**about, "weight_map": weight_map}
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


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


class _Part(Mapping[str, Record]):
    """Some of the tensors of a checkpoint, ties followed to their owners."""

    def __init__(self, records: Mapping[str, Record], names: Iterable[str]) -> None:
        self._records, self._names = records, dict.fromkeys(names)

    def __getitem__(self, name: str) -> Record:
        """A tensor."""
        return resolve(self._records, name)

    def __iter__(self) -> Iterator[str]:
        """Names in their order."""
        return iter(self._names)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._names)

    def walk(self, names: Iterable[str]) -> Iterator[tuple[str, Raw | Shared]]:
        """Tensors in the order of `names`, read ahead where that can be done."""
        return followed(self._records, names)

    def outline(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of a tensor."""
        return outline(self._records, name)


def _read_index(index: Path) -> dict[str, Any]:
    """The index; its `weight_map` says which shard holds which tensor."""
    if index.stat().st_size > MAX_INDEX:
        raise CheckpointError(f"{index}: expected at most {MAX_INDEX} bytes, got {index.stat().st_size}")
    try:
        content = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{index}: expected JSON, got {error}") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index}: expected a weight_map of tensors to shards, got none")
    found: dict[str, Any] = content
    return found


def _check_index(index: Path, weight_map: dict[str, Any], owner: dict[str, str], shards: set[str]) -> None:
    missing = sorted(set(weight_map.values()) - shards)
    if missing:
        raise CheckpointError(f"{index}: expected the shard {missing[0]!r} beside it, got none")
    for name, shard in weight_map.items():
        if owner.get(name) != shard:
            got = owner.get(name, "no shard")
            raise CheckpointError(f"{index}: tensor {name!r}: expected it in {shard}, got it in {got}")
    extra = next((name for name in owner if name not in weight_map), None)
    if extra is not None:
        raise CheckpointError(
            f"{index}: expected all tensors in it, got none for {extra!r} of {owner[extra]}"
        )
