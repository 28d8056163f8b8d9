"""What each coding would make of the same network, side by side, from counts alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from dwindle.code import entropy, gaps, sparse, streams
from dwindle.code.plan import AUTOMATIC_WIDTHS, Coding, Counts, choose, count, symbol_counts
from dwindle.code.streams import Code, index_bits
from dwindle.records import Shared

CODINGS = ("dense", "csr", "csc", "gaps", "dense huffman", "gaps huffman", "one dictionary", "entropy")
"""Fixed-width indices by every arrangement; Huffman codes per layer and for the network; and the bound."""


@dataclass(frozen=True)
class TensorCost:
    """Bytes one tensor would take; codebooks, headers and checksums are the same for all and left out.

    Attributes:
        name: the tensor.
        elements: its number of weights.
        survivors: those that are not zero.
        original: bytes uncompressed.
        sizes: bytes by each of `CODINGS` that can hold the tensor, code tables included. "gaps" take the
            best width each time; "entropy" is the zero-order bound of the better of dense and gaps.
        fillers: by gap width, what fillers cost.
    """

    name: str
    elements: int
    survivors: int
    original: int
    sizes: dict[str, float]
    fillers: dict[int, gaps.FillerCost]


@dataclass(frozen=True)
class Comparison:
    """The table: one row a tensor."""

    tensors: tuple[TensorCost, ...]

    def total(self, coding: str) -> float:
        """Bytes of all tensors by one coding; tensors it cannot hold count as dense."""
        return sum(tensor.sizes.get(coding, tensor.sizes["dense"]) for tensor in self.tensors)

    def to_json(self) -> dict[str, object]:
        """The table as JSON types."""
        totals = {coding: self.total(coding) for coding in CODINGS}
        return {"total": totals, "tensors": [asdict(tensor) for tensor in self.tensors]}


def compare(records: Mapping[str, Shared], widths: tuple[int, ...] = tuple(AUTOMATIC_WIDTHS)) -> Comparison:
    """Count what every coding would make of these tensors.

    Args:
        records: shared tensors by name.
        widths: gap widths to try and to give filler costs for, 1 to 16 bits.
    """
    counted = {name: count(record) for name, record in records.items()}
    common = _one_dictionary(records, counted)
    rows = []
    for name, record in records.items():
        counts = counted[name]
        sizes = _sizes(record, counts, widths) | {"one dictionary": common[name]}
        zeros = 0 if counts.zero is None else int(counts.indices[counts.zero])
        n = len(record.indices)
        fillers = {}
        if counts.distances is not None:
            fillers = {width: gaps.filler_cost(counts.distances, n, width) for width in widths}
        ordered = {coding: sizes[coding] for coding in CODINGS if coding in sizes}
        rows.append(TensorCost(name, n, n - zeros, n * record.codebook.itemsize, ordered, fillers))
    return Comparison(tuple(rows))


def _sizes(record: Shared, counts: Counts, widths: tuple[int, ...]) -> dict[str, float]:
    n, width = len(record.indices), index_bits(len(record.codebook))
    sizes = {
        "dense": _bytes(n * width),
        "dense huffman": _coded(counts.indices, width),
        "entropy": entropy.entropy_bytes(counts.indices),
    }
    if counts.zero is None or counts.distances is None:
        return sizes
    survivors = n - int(counts.indices[counts.zero])
    rows, columns = sparse.matrix_shape(record.shape)
    for coding, lines, places in (("csr", rows, columns), ("csc", columns, rows)):
        pointer_bits = (lines + 1) * survivors.bit_length()
        sizes[coding] = _bytes(pointer_bits + survivors * (index_bits(places) + width))
    fixed, huffman, bound = [], [], [sizes["entropy"]]
    for bits in widths:
        gap_counts, index_counts = gaps.gap_counts(counts.distances, bits), counts.entries_at(bits)
        fixed.append(_bytes(int(gap_counts.sum()) * (bits + width)))
        huffman.append(_coded(gap_counts, bits) + _coded(index_counts, width))
        bound.append(entropy.entropy_bytes(gap_counts) + entropy.entropy_bytes(index_counts))
    return sizes | {"gaps": min(fixed), "gaps huffman": min(huffman), "entropy": min(bound)}


def common_code(counts: list[NDArray[np.int64]], number: int) -> Code | None:
    """One Huffman code for streams whose symbols occur this often; None where there is none to build."""
    total = np.zeros(max((len(c) for c in counts), default=0), np.int64)
    for c in counts:
        total[: len(c)] += c
    if not 0 < np.count_nonzero(total) <= streams.MOST_CODED:
        return None
    return streams.huffman_code(total, number)


def _one_dictionary(records: Mapping[str, Shared], counted: Mapping[str, Counts]) -> dict[str, float]:
    """Bytes of each tensor when all share a code for indices and one for gaps; the first has the tables."""
    found = {
        name: symbol_counts(choose(Coding("huffman"), counted[name])[0], counted[name]) for name in records
    }
    sizes = dict.fromkeys(records, 0.0)
    for which in (0, 1):
        present: dict[str, NDArray[np.int64]] = {}
        for name, pair in found.items():
            stream = pair[which]
            if stream is not None:
                present[name] = stream
        code = common_code(list(present.values()), 0)
        for number, (name, counts) in enumerate(present.items()):
            if code is None:
                sizes[name] += _bytes(int(counts.sum()) * index_bits(len(counts)))
                continue
            bits = streams.coded_bits(counts, code)
            sizes[name] += _bytes(bits) + (len(code.table) if number == 0 else 0)
    return sizes


HUFFMAN: tuple[streams.Kind, ...] = ("huffman",)


def _coded(counts: NDArray[np.int64], width: int) -> int:
    """Bytes of a stream with its code table: Huffman coded, or at a fixed width where that is shorter."""
    return _bytes(streams.shortest(counts, width, HUFFMAN)[1])


def _bytes(bits: int) -> int:
    return -(-bits // 8)
