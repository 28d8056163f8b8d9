"""Which tensors lie in which shard of a folder: what it takes to write the same folder again.

As the extra `shards` of a file: an object in JSON, coded by `extra.pack`. The tensors of the file are those
of the first shard, then those of the second, and so on. What is usual is left out:

    counts      how many tensors each shard has
    names       the names of the shards, unless they are `usual_name`s
    metadata    each shard's text pairs, or null where they are those of the file; left out if all are
    index       what the index says beside its weight_map; left out if there is no index
    index_name  the name of the index, unless it is `INDEX`
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dwindle import dtypes
from dwindle.errors import CorruptError
from dwindle.io import extra, safetensors_file
from dwindle.records import Record, outline

EXTRA = "shards"
"""The name of the extra."""

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
INDEX = "model" + INDEX_SUFFIX

MAX_EMPTY = 100
"""Shards without a tensor that a folder may have: each is a file that costs next to nothing to ask for."""

_KEYS = {"counts", "names", "metadata", "index", "index_name"}


@dataclass(frozen=True)
class Shard:
    """One file of a folder.

    Attributes:
        name: of the file.
        count: how many tensors it has.
        metadata: its text pairs.
    """

    name: str
    count: int
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Layout:
    """The files of a folder of shards.

    Attributes:
        shards: in the order of their tensors.
        index: the name of the index, None where there is none.
        about: what the index says beside its weight_map.
    """

    shards: tuple[Shard, ...]
    index: str | None
    about: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            ValueError: if one is no plain file name of its kind, or is there twice, or too many shards are
                empty.
        """
        names = [shard.name for shard in self.shards]
        for name in names:
            _check_name(name, SUFFIX)
        if len(set(names)) != len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise ValueError(f"expected each shard once, got {twice!r} twice")
        empty = sum(not shard.count for shard in self.shards)
        if empty > MAX_EMPTY:
            raise ValueError(f"expected at most {MAX_EMPTY} shards without a tensor, got {empty}")
        if self.index is not None:
            _check_name(self.index, INDEX_SUFFIX)


def usual_name(number: int, count: int) -> str:
    """The name of a shard, counted from 1, of so many."""
    width = max(5, len(str(count)))
    return f"model-{number:0{width}}-of-{count:0{width}}{SUFFIX}"


def by_size(records: Mapping[str, Record], size: int, metadata: Mapping[str, str]) -> Layout:
    """Shards of at most `size` bytes of tensors, in order; a larger tensor is a shard of its own."""
    counts, filled, total = [0], 0, 0
    for name in records:
        dtype, shape = outline(records, name)
        nbytes = math.prod(shape) * dtypes.itemsize(dtype)
        if nbytes and filled and filled + nbytes > size:
            counts.append(0)
            filled = 0
        counts[-1] += 1
        filled += nbytes
        total += nbytes
    shards = (Shard(usual_name(n, len(counts)), count, metadata) for n, count in enumerate(counts, 1))
    return Layout(tuple(shards), INDEX, {"metadata": {"total_size": total}})


def to_bytes(layout: Layout, metadata: Mapping[str, str]) -> bytes:
    """The extra of a layout.

    Args:
        layout: what to keep.
        metadata: the text pairs of the whole file.
    """
    shards = layout.shards
    content: dict[str, Any] = {"counts": [shard.count for shard in shards]}
    names = [shard.name for shard in shards]
    if names != _usual_names(len(names)):
        content["names"] = names
    if any(shard.metadata != metadata for shard in shards):
        content["metadata"] = [None if s.metadata == metadata else dict(s.metadata) for s in shards]
    if layout.index is not None:
        content["index"] = layout.about
        if layout.index != INDEX:
            content["index_name"] = layout.index
    return extra.pack(json.dumps(content, separators=(",", ":")).encode())


def from_bytes(data: bytes, metadata: Mapping[str, str], tensors: int) -> Layout:
    """Undo `to_bytes`; nothing in it is trusted.

    Args:
        data: the extra.
        metadata: the text pairs of the whole file.
        tensors: how many tensors the file has.

    Raises:
        CorruptError: if it is no layout of that many tensors, or a name would lead out of a folder.
    """
    try:
        content = json.loads(extra.unpack(data))
        return _layout(content, metadata, tensors)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"shards: {error}") from error
    except CorruptError as error:
        raise CorruptError(f"shards: {error}") from error


def _layout(content: Any, metadata: Mapping[str, str], tensors: int) -> Layout:
    if not isinstance(content, dict) or not set(content) <= _KEYS:
        raise ValueError(f"expected an object with keys among {', '.join(sorted(_KEYS))}")
    counts = content.get("counts")
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("expected counts of tensors, got something else")
    # Before any name is made up for them.
    if len(counts) > tensors + MAX_EMPTY:
        raise ValueError(f"expected at most {tensors + MAX_EMPTY} shards, got {len(counts)}")
    if not counts or sum(counts) != tensors:
        raise ValueError(f"expected shards of {tensors} tensors, got {sum(counts)} in {len(counts)} shards")
    names = content.get("names", _usual_names(len(counts)))
    if not isinstance(names, list) or len(names) != len(counts):
        raise ValueError(f"expected {len(counts)} names, got something else")
    pairs = content.get("metadata", [None] * len(counts))
    if not isinstance(pairs, list) or len(pairs) != len(counts) or not all(map(_is_metadata, pairs)):
        raise ValueError(f"expected {len(counts)} times metadata that map text to text, got something else")
    about = content.get("index")
    if not isinstance(about, dict | None) or "weight_map" in (about or {}):
        raise ValueError("expected an index without its weight_map, got something else")
    if about is None and "index_name" in content:
        raise ValueError("expected no name of an index where there is none, got one")
    index = None if about is None else content.get("index_name", INDEX)
    shards = (
        Shard(name, count, metadata if found is None else found)
        for name, count, found in zip(names, counts, pairs, strict=True)
    )
    return Layout(tuple(shards), index, about or {})


def _usual_names(count: int) -> list[str]:
    return [usual_name(number, count) for number in range(1, count + 1)]


def _is_metadata(pairs: Any) -> bool:
    return pairs is None or safetensors_file.is_metadata(pairs)


def _check_name(name: Any, suffix: str) -> None:
    """Refuse what is no name of a file inside a folder, on any system."""
    plain = isinstance(name, str) and not set(name) & set("/\\\0") and name not in (".", "..")
    if not plain or not name.endswith(suffix) or name == suffix or Path(name).name != name:
        raise ValueError(f"expected the plain name of a {suffix} file, got {str(name)[:80]!r}")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise ValueError(f"expected a name that files can have, got {name[:80]!r}") from error
