"""Where every byte of a `.dwz` file goes, with the entropy bound beside each stream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dwindle.code import entropy, text, trellis, values
from dwindle.code.parts import Part
from dwindle.code.plan import ADAPTIVE, Plan, count, symbol_counts
from dwindle.code.streams import Code
from dwindle.file import layout
from dwindle.file.front import CHECKSUM
from dwindle.file.reader import Archive
from dwindle.records import Shared

EXTRAS = "extras"
"""The part that everything is which the file keeps beside tensors, to write the checkpoint it came from."""

OVERHEAD = ("header", "metadata", "code table", "counts", "checksum", "modes", EXTRAS)
"""Parts that are not the tensors themselves."""


@dataclass(frozen=True)
class Line:
    """Bytes of one part of one tensor.

    Attributes:
        tensor: its name; None for what belongs to the whole file.
        part: indices, gaps, pointers, places, counts, codebook, values (a small exact tensor), raw or what
            the coder of exact tensors cuts them into, code table, header, metadata, checksum, extras.
        size: bytes in the file.
        bound: zero-order entropy of the stream in bytes, None where there is no stream.
    """

    tensor: str | None
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
        coding: how an exact tensor is kept, what an alias is equal to, or a shared tensor's arrangement.
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
        """Bytes that are neither codes, gaps, codebooks nor values."""
        return sum(line.size for line in self.lines if line.part in OVERHEAD)

    def size(self, tensor: str | None = None, part: str | None = None) -> int:
        """Bytes of a tensor (all without it), of a part (all without it), or of a part of a tensor."""
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
    lines = [*_front_lines(archive), *_values_lines(archive)]
    summaries: list[TensorSummary] = []
    for name, entry in archive.header.entries.items():
        if isinstance(entry, layout.AliasEntry):
            coding = f"{'tied' if entry.tied else 'equal'} to {archive.owner(name)[0]}"
            dtype, shape, original = "", tuple[int, ...](), 0
            if not entry.tied:
                _, owner = archive.owner(name)
                dtype, shape, original = owner.dtype, owner.shape, layout.nbytes(owner)
            summaries.append(TensorSummary(name, dtype, shape, coding, original, 0))
            continue
        decoding = archive.decode(name)
        with archive.naming(name):
            parts, record = decoding.finish(), decoding.record()
        archive.forget()
        survivors = entries = None
        bounds: dict[str, float] = {}
        if isinstance(entry, layout.ExactEntry):
            coding = entry.form
        else:
            assert isinstance(record, Shared)  # noqa: S101 (what a shared entry decodes to)
            bounds, survivors = _bounds(record, entry.plan)
            coding, entries = _describe(entry.plan), entry.plan.entries
        lines += [Line(name, part.kind, part.size, bounds.get(part.kind)) for part in _merged(parts)]
        lines.append(Line(name, "checksum", CHECKSUM * len(entry.block_sizes)))
        if name.startswith(layout.EXTRA):
            continue
        original = layout.nbytes(entry)
        summaries.append(
            TensorSummary(name, entry.dtype, entry.shape, coding, original, 0, survivors, entries)
        )
    lines = _merged_lines(lines)
    sizes = dict.fromkeys(archive, 0)
    for line in lines:
        if line.tensor is not None:
            sizes[line.tensor] += line.size
    tensors = tuple(replace(summary, size=sizes[summary.name]) for summary in summaries)
    return Ledger(tuple(lines), tensors, archive.size, sum(tensor.original for tensor in tensors))


def _front_lines(archive: Archive) -> list[Line]:
    """The header, each part at what the text model spent on it."""
    front = archive.front
    _, owners = layout.write_header(archive.header)
    coded = memoryview(archive.data)[front.start : front.end - CHECKSUM]
    spent = text.spans(coded, [size for *_, size in owners])
    lines = [Line(name, part, size) for (name, part, _), size in zip(owners, spent, strict=True)]
    return [Line(None, "header", front.start), *lines, Line(None, "checksum", CHECKSUM)]


def _values_lines(archive: Archive) -> list[Line]:
    """The section of values, each codebook and small tensor at what the model spent on it."""
    found = layout.values_of(archive.header)
    if not archive.header.values_size:
        return []
    section = memoryview(archive.data)[archive.front.end :][: archive.header.values_size]
    spent = values.spans(section, [(dtype, count, leaf) for _, dtype, count, leaf in found])
    lines = []
    for (name, *_), size in zip(found, spent, strict=True):
        shared = isinstance(archive.header.entries[name], layout.SharedEntry)
        lines.append(Line(name, "codebook" if shared else "values", size))
    return [*lines, Line(None, "checksum", CHECKSUM)]


def _bounds(record: Shared, plan: Plan) -> tuple[dict[str, float], int]:
    """Entropy bounds of a tensor's streams, and its survivors."""
    counts = count(record)
    indices, gap_counts = symbol_counts(plan, counts)
    bounds = {"indices": entropy.entropy_bytes(indices)}
    if plan.arrangement == "trellis":
        numbers = trellis.number_counts(record.indices, record.shape, counts.zero)
        if numbers is not None:
            bounds["indices"] = sum(entropy.entropy_bytes(of_kind) for of_kind in numbers)
    if gap_counts is not None:
        bounds["gaps"] = entropy.entropy_bytes(gap_counts)
    zeros = 0 if counts.zero is None else int(counts.indices[counts.zero])
    return bounds, len(record.indices) - zeros


def _describe(plan: Plan) -> str:
    if plan.arrangement in ADAPTIVE:
        return plan.arrangement
    indices = _kind(plan.index_code)
    if plan.arrangement != "gaps":
        return f"{plan.arrangement}, {indices}"
    return f"{plan.gap_bits}-bit gaps {_kind(plan.gap_code)}, indices {indices}"


def _kind(code: Code | None) -> str:
    return code.kind if code else "fixed"


def _merged(parts: Iterable[Part]) -> list[Part]:
    """One part of each kind, in order of first appearance."""
    sizes: dict[str, int] = {}
    for part in parts:
        sizes[part.kind] = sizes.get(part.kind, 0) + part.size
    return [Part(kind, size) for kind, size in sizes.items()]


def _merged_lines(lines: Iterable[Line]) -> list[Line]:
    """One line for each part of each tensor, in order of first appearance; lines of no bytes go.

    What belongs to an extra is one line of the file, whatever its parts.
    """
    merged: dict[tuple[str | None, str], Line] = {}
    for found in lines:
        extra = found.tensor is not None and found.tensor.startswith(layout.EXTRA)
        line = Line(None, EXTRAS, found.size) if extra else found
        key = line.tensor, line.part
        size = line.size + (merged[key].size if key in merged else 0)
        merged[key] = Line(line.tensor, line.part, size, line.bound)
    return [line for line in merged.values() if line.size or line.bound is not None]
