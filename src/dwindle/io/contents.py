"""What a checkpoint holds once it is read, whatever its file format."""

from __future__ import annotations

from dataclasses import dataclass

from dwindle.records import Raw, Tied


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint and everything it said beside them.

    Attributes:
        records: the tensors by name, in the order of the file.
        metadata: the file's own text pairs (safetensors only; the other formats have none).
        skipped: names of what is not a tensor and is therefore in no record.
    """

    records: dict[str, Raw | Tied]
    metadata: dict[str, str]
    skipped: tuple[str, ...]
