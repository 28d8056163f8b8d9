"""The records of an open archive as a mapping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from dwindle.records import Record

if TYPE_CHECKING:
    from dwindle.file.reader import Archive

AHEAD = 1 << 24
"""Little, as this is for writers that let go of each record: twice as much is no quicker."""


class ArchiveRecords(Mapping[str, Record]):
    """The records of an open archive, each decoded when it is asked for."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def __getitem__(self, name: str) -> Record:
        """The record of a tensor; the pages of the file that hold it don't stay in memory."""
        record = self._archive.record(name)
        self._archive.forget()
        return record

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of that name; nothing is decoded."""
        return name in self._archive

    def __iter__(self) -> Iterator[str]:
        """Names in the order they were written."""
        return iter(self._archive)

    def __len__(self) -> int:
        """Number of names."""
        return len(self._archive)

    def walk(self, names: Iterable[str]) -> Iterator[tuple[str, Record]]:
        """Records in the order of `names`, `AHEAD` bytes decoded before they are asked for."""
        return self._archive.walk(names, most=AHEAD)

    def outline(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of a tensor, without decoding it."""
        _, entry = self._archive.owner(name)
        return entry.dtype, entry.shape
