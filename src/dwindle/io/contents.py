"""What a checkpoint holds once it is read, whatever its file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dwindle.records import Record


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint and everything it said beside them.

    Attributes:
        records: the tensors by name, in the order of the file; some formats read each when it is asked for.
        metadata: the file's own text pairs (safetensors only; the other formats have none).
        skipped: names of what is in no record, since it is no tensor or has no dtype of ours.
        extras: what else it takes to write the same file again, by name.
        kept: those of `skipped` that the extras hold all the same.
        files: what was read, and may still be mapped.
    """

    records: Mapping[str, Record]
    metadata: dict[str, str]
    skipped: tuple[str, ...]
    extras: Mapping[str, bytes] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
