"""Where every byte of a `.dwz` file goes, with the entropy bound beside each stream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dwindle.code import entropy
from dwindle.code.parts import Part
from dwindle.code.plan import Plan, count, symbol_counts
from dwindle.file import layout
from dwindle.file.reader import CHECKSUM, Archive
from dwindle.records import Shared

CODES = ("indices", "gaps", "pointers", "places", "codebook", "raw")
"""Parts that are the tensors themselves; all others are overhead."""


@dataclass(frozen=True)
class Line:
    """Bytes of one part of one tensor.

    Attributes:
        tensor: its name; "" for what belongs to the whole file.
        part: indices, gaps, pointers, places, counts, codebook, code table, raw, header, metadata, checksum.
        size: bytes in the file.
        bound: zero-order entropy of the stream in bytes, None where there is no stream.
    """

    tensor: str
    part: str
    size: int
    bound: float | None = None


@dataclass(frozen=True)
class TensorSummary:
    """What one tensor is in the file.

    Attributes:
        name: its name.
        dtype: its element type; "" for a tie.
        shape: its shape.
        coding: raw, tied, or the arrangement of a shared tensor with its widths.
        original: bytes uncompressed; 0 for a tie.
        size: bytes in the file, all its parts.
        survivors: elements that are not 0.0 (all of them where nothing is known), None for exact tensors.
        entries: size of the codebook, None for exact tensors.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    coding: str
    original: int
    size: int
    survivors: int | None = None
    entries: int | None = None


@dataclass(frozen=True)
class Ledger:
    """Every byte of a file, accounted for.

    Attributes:
        lines: one for each part of each tensor, in file order.
        tensors: one for each tensor.
        file_size: bytes of the whole file; the lines add up to it.
        original: bytes of the tensors uncompressed, each tied one once.
    """

    lines: tuple[Line, ...]
    tensors: tuple[TensorSummary, ...]
    file_size: int
    original: int

    @property
    def rate(self) -> float:
        """Uncompressed bytes over bytes of the whole file."""
        return self.original / self.file_size

    @property
    def overhead(self) -> int:
        """Bytes that are neither codes, gaps, codebooks nor exact tensors."""
        return sum(line.size for line in self.lines if line.part not in CODES)

    def size(self, tensor: str | None = None, part: str | None = None) -> int:
        """Bytes of a tensor, a part, or a part of a tensor."""
        return sum(
            line.size
            for line in self.lines
            if (tensor is None or line.tensor == tensor) and (part is None or line.part == part)
        )

    def to_json(self) -> dict[str, object]:
        """The ledger as JSON types."""
        return {
            "file_size": self.file_size,
            "original": self.original,
            "rate": self.rate,
            "overhead": self.overhead,
            "tensors": [vars(tensor) | {"shape": list(tensor.shape)} for tensor in self.tensors],
            "lines": [vars(line) for line in self.lines],
        }


def ledger(archive: Archive) -> Ledger:
    """Account for every byte of an open file. Decodes all of it, one tensor at a time.

    Raises:
        FileError: if the file is damaged.
    """
    header, owners = layout.write_header(archive.header)
    front = archive.header_size - len(header) - CHECKSUM
    lines = [Line("", "header", front), *(Line(*owner) for owner in owners), Line("", "checksum", CHECKSUM)]
    summaries: list[TensorSummary] = []
    names = list(archive)
    for name, entry in archive.header.entries.items():
        if isinstance(entry, layout.TiedEntry):
            summaries.append(TensorSummary(name, "", (), f"tied to {names[entry.owner]}", 0, 0))
            continue
        survivors = entries = None
        bounds: dict[str, float] = {}
        if isinstance(entry, layout.RawEntry):
            coding, parts = "raw", [Part("raw", sum(entry.block_sizes))]
            archive.record(name)
        else:
            record, parts = archive.decode_shared(name, entry)
            bounds, survivors = _bounds(record, entry.plan)
            coding, entries = _describe(entry.plan), entry.plan.entries
        lines += [Line(name, part.kind, part.size, bounds.get(part.kind)) for part in _merged(parts)]
        lines.append(Line(name, "checksum", CHECKSUM * len(entry.block_sizes)))
        original = layout.nbytes(entry)
        summaries.append(
            TensorSummary(name, entry.dtype, entry.shape, coding, original, 0, survivors, entries)
        )
    lines = _merged_lines(lines)
    sizes: dict[str, int] = {}
    for line in lines:
        sizes[line.tensor] = sizes.get(line.tensor, 0) + line.size
    tensors = tuple(replace(summary, size=sizes[summary.name]) for summary in summaries)
    return Ledger(tuple(lines), tensors, archive.size, archive.decoded_size)


def _bounds(record: Shared, plan: Plan) -> tuple[dict[str, float], int]:
    """Entropy bounds of a tensor's streams, and its survivors."""
    counts = count(record)
    indices, gap_counts = symbol_counts(plan, counts)
    bounds = {"indices": entropy.entropy_bytes(indices)}
    if gap_counts is not None:
        bounds["gaps"] = entropy.entropy_bytes(gap_counts)
    zeros = 0 if counts.zero is None else int(counts.indices[counts.zero])
    return bounds, len(record.indices) - zeros


def _describe(plan: Plan) -> str:
    indices = "huffman" if plan.index_code else "fixed"
    if plan.arrangement != "gaps":
        return f"{plan.arrangement}, {indices}"
    return f"{plan.gap_bits}-bit gaps {'huffman' if plan.gap_code else 'fixed'}, indices {indices}"


def _merged(parts: Iterable[Part]) -> list[Part]:
    """One part of each kind, in order of first appearance."""
    sizes: dict[str, int] = {}
    for part in parts:
        sizes[part.kind] = sizes.get(part.kind, 0) + part.size
    return [Part(kind, size) for kind, size in sizes.items()]


def _merged_lines(lines: Iterable[Line]) -> list[Line]:
    """One line for each part of each tensor, in order of first appearance; lines of no bytes go."""
    merged: dict[tuple[str, str], Line] = {}
    for line in lines:
        key = line.tensor, line.part
        size = line.size + (merged[key].size if key in merged else 0)
        merged[key] = Line(line.tensor, line.part, size, line.bound)
    return [line for line in merged.values() if line.size or line.bound is not None]
