"""The paper's table of layers (Han et al. 2016, tables 2 and 3) of any `.dwz` file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dwindle import records
from dwindle.code.gaps import gap_counts
from dwindle.code.plan import count
from dwindle.code.streams import index_bits
from dwindle.file import Archive, Ledger
from dwindle.file.layout import SharedEntry


@dataclass(frozen=True)
class LayerRow:
    """One shared tensor, stage by stage.

    Attributes:
        name: the tensor.
        elements: its weights.
        survivors: those that are not zero.
        entries: what is stored: survivors and fillers by gaps, survivors in CSR and CSC, all weights where
            the tensor is dense.
        index_bits: of a weight's index, fixed and as coded, on average over the entries.
        gap_bits: of a gap, likewise; None where there are none.
        original: bytes uncompressed.
        pruned: bytes with the survivors' values and fixed-width gaps, or CSR's and CSC's places.
        shared: bytes with a codebook, fixed-width indices and the same gaps or places.
        coded: bytes in the file, everything of the tensor counted.
    """

    name: str
    elements: int
    survivors: int
    entries: int
    index_bits: tuple[float, float]
    gap_bits: tuple[float, float] | None
    original: int
    pruned: int
    shared: int
    coded: int

    @property
    def density(self) -> float:
        """Share of weights that are not zero."""
        return self.survivors / self.elements if self.elements else 0.0


def layer_table(archive: Archive, book: Ledger) -> list[LayerRow]:
    """A row for every shared tensor.

    Args:
        archive: the open file.
        book: its ledger.
    """
    return [
        _row(archive, book, name, entry)
        for name, entry in archive.header.entries.items()
        if isinstance(entry, SharedEntry)
    ]


def total_row(rows: Sequence[LayerRow], book: Ledger) -> LayerRow:
    """The whole file: tensors kept exactly count at every stage, the header where the file is whole."""
    exact = sum(tensor.original for tensor in book.tensors if tensor.entries is None)
    entries = sum(row.entries for row in rows)

    def mean(fixed_or_coded: int) -> float:
        return sum(row.index_bits[fixed_or_coded] * row.entries for row in rows) / max(entries, 1)

    return LayerRow(
        "all",
        sum(row.elements for row in rows),
        sum(row.survivors for row in rows),
        entries,
        (mean(0), mean(1)),
        None,
        book.original,
        sum(row.pruned for row in rows) + exact,
        sum(row.shared for row in rows) + exact,
        book.file_size,
    )


def _row(archive: Archive, book: Ledger, name: str, entry: SharedEntry) -> LayerRow:
    record = archive.resolved(name)
    assert isinstance(record, records.Shared)  # noqa: S101 (so its entry says)
    counts = count(record)
    elements, width = records.elements(record), index_bits(entry.plan.entries)
    value, codebook = record.codebook.itemsize, record.codebook.nbytes
    survivors = elements if counts.zero is None else elements - int(counts.indices[counts.zero])
    gap_bits = None
    entries, gap_width = elements, 0
    places = book.size(name, "pointers") + book.size(name, "places")
    if entry.plan.arrangement in ("csr", "csc"):
        entries = survivors
    if entry.plan.arrangement == "gaps" and counts.distances is not None:
        gap_width = entry.plan.gap_bits
        entries = int(gap_counts(counts.distances, gap_width).sum())
        gap_bits = (float(gap_width), _bits(book.size(name, "gaps"), entries))
    return LayerRow(
        name=name,
        elements=elements,
        survivors=survivors,
        entries=entries,
        index_bits=(float(width), _bits(book.size(name, "indices"), entries)),
        gap_bits=gap_bits,
        original=records.nbytes(record),
        pruned=-(-entries * (8 * value + gap_width) // 8) + places,
        shared=-(-entries * (width + gap_width) // 8) + places + codebook,
        coded=book.size(name),
    )


def _bits(size: int, entries: int) -> float:
    return 8 * size / entries if entries else 0.0
