"""How one shared tensor is coded: chosen from counts alone, so the same record gives the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dwindle.code import entropy, gaps, huffman, lengths
from dwindle.records import Shared, zero_entry

Coder = Literal["fixed", "csr", "csc", "huffman"]
CODERS: tuple[str, ...] = get_args(Coder)
Arrangement = Literal["dense", "gaps", "csr", "csc"]
ARRANGEMENTS: tuple[Arrangement, ...] = get_args(Arrangement)
"""Their place in this tuple is their number in a file."""

BLOCK = 1 << 20
"""Elements of one block: a tensor is cut into blocks that decode alone."""

AUTOMATIC_WIDTHS = range(1, 13)
"""Gap widths tried when none is given; a wider gap only pays for tensors that are all but empty."""

HUFFMAN_SYMBOLS = 4096
"""Most symbols in use that get a Huffman code: over that the table costs more than the code saves."""


@dataclass(frozen=True)
class Coding:
    """What a user asks of the coder.

    Attributes:
        coder: `fixed` bits, `csr` or `csc`, or `huffman`.
        gap_bits: width of a gap, 1 to 16; None takes the width that gives the fewest bytes.
        dictionary: one Huffman code per `layer`, or one for the whole `network`.
    """

    coder: Coder = "huffman"
    gap_bits: int | None = None
    dictionary: Literal["layer", "network"] = "layer"

    def __post_init__(self) -> None:
        if self.coder not in CODERS:
            raise ValueError(f"expected a coder among {', '.join(CODERS)}, got {self.coder}")
        if self.gap_bits is not None and self.gap_bits not in gaps.WIDTHS:
            raise ValueError(f"expected gap bits of 1 to 16, got {self.gap_bits}")
        if self.dictionary not in ("layer", "network"):
            raise ValueError(f"expected a dictionary per layer or network, got {self.dictionary}")


@dataclass(frozen=True, eq=False)
class Code:
    """A Huffman code.

    Attributes:
        lengths: bits of each symbol's code, 0 where absent.
        shared: number of the file's table, if several tensors share it.
    """

    lengths: NDArray[np.uint8]
    shared: int | None = None

    @property
    def table_bytes(self) -> int:
        """Bytes of the code lengths as they are stored."""
        return len(lengths.write_lengths(self.lengths))

    @property
    def table(self) -> huffman.Table:
        """The code ready for decoding, built when it is first needed."""
        return _table(self)


# Bounded: a table takes up to 128 KB of memory, its description in a file a few bytes.
@lru_cache(maxsize=64)
def _table(code: Code) -> huffman.Table:
    return huffman.decode_table(code.lengths)


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a block of a shared tensor needs besides its bytes.

    Attributes:
        arrangement: every element (`dense`), or only survivors by `gaps`, `csr` or `csc`.
        entries: size of the codebook.
        zero: the entry that means 0.0, None where the arrangement is dense.
        gap_bits: width of a gap, 0 unless the arrangement is gaps.
        index_code: Huffman code of the indices, None for fixed width.
        gap_code: Huffman code of the gaps, None for fixed width.
    """

    arrangement: Arrangement
    entries: int
    zero: int | None = None
    gap_bits: int = 0
    index_code: Code | None = None
    gap_code: Code | None = None


@dataclass(frozen=True, eq=False)
class Counts:
    """What a plan is chosen from: how often each index occurs, and each distance between survivors."""

    indices: NDArray[np.int64]
    distances: NDArray[np.int64] | None
    zero: int | None

    def entries_at(self, width: int) -> NDArray[np.int64]:
        """How often each index occurs among survivors and fillers at a gap width."""
        if self.distances is None:
            raise ValueError("expected counts of a tensor with zeros")
        counts = self.indices.copy()
        counts[self.zero] = int(gaps.gap_counts(self.distances, width).sum()) - int(self.distances.sum())
        return counts


def index_bits(entries: int) -> int:
    """Bits of a fixed-width index into a codebook."""
    return max(entries - 1, 0).bit_length()


def count(record: Shared) -> Counts:
    """Count the indices and, where the codebook holds 0.0, the distances between survivors, by blocks."""
    indices = entropy.counts(record.indices, len(record.codebook))
    zero = zero_entry(record)
    if zero is None:
        return Counts(indices, None, None)
    distances = np.zeros(min(BLOCK, len(record.indices)) + 1, np.int64)
    for start in range(0, len(record.indices), BLOCK):
        block = gaps.distance_counts(record.indices[start : start + BLOCK], zero)
        distances[: len(block)] += block
    return Counts(indices, distances, zero)


def choose(record: Shared, coding: Coding, counts: Counts) -> Plan:
    """The plan with the fewest bytes among those the coding allows; of equals, the first tried.

    Tensors without a zero are dense whatever is asked: there is nothing to leave out.
    """
    entries = len(record.codebook)
    pruned = counts.zero is not None and counts.indices[counts.zero] > 0
    if coding.coder in ("csr", "csc") and pruned:
        return Plan("csr" if coding.coder == "csr" else "csc", entries, counts.zero)
    coded = coding.coder == "huffman"
    dense, best = _stream(counts.indices, index_bits(entries), coded)
    plan = Plan("dense", entries, index_code=dense)
    if not pruned or counts.distances is None:
        return plan
    widths = [coding.gap_bits] if coding.gap_bits else _likely_widths(counts, counts.distances, coded)
    for width in widths:
        gap_code, gap_size = _stream(gaps.gap_counts(counts.distances, width), width, coded)
        index_code, index_size = _stream(counts.entries_at(width), index_bits(entries), coded)
        if gap_size + index_size < best:
            best = gap_size + index_size
            plan = Plan("gaps", entries, counts.zero, width, index_code, gap_code)
    return plan


def symbol_counts(plan: Plan, counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """How often each index and each gap occurs in the streams of a plan."""
    if plan.arrangement == "dense":
        return counts.indices, None
    if plan.arrangement == "gaps":
        if counts.distances is None:
            raise ValueError("expected counts of a tensor with zeros")
        return counts.entries_at(plan.gap_bits), gaps.gap_counts(counts.distances, plan.gap_bits)
    survivors = counts.indices.copy()
    survivors[plan.zero] = 0
    return survivors, None


def coded_bytes(counts: NDArray[np.int64], width: int) -> int:
    """Bytes of a stream with its code table: Huffman coded, or at a fixed width where that is shorter."""
    return -(-_stream(counts, width, True)[1] // 8)


def shared_code(counts: list[NDArray[np.int64]], number: int) -> Code | None:
    """One Huffman code for streams with these counts; None where there is none to build."""
    size = max((len(c) for c in counts), default=0)
    total = np.zeros(size, np.int64)
    for c in counts:
        total[: len(c)] += c
    if not 0 < np.count_nonzero(total) <= HUFFMAN_SYMBOLS:
        return None
    return Code(_lengths(total), number)


def _lengths(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    # 12 bits keep the decoder's table in the first-level cache; large alphabets need longer codes.
    return lengths.code_lengths(counts, 12 if np.count_nonzero(counts) <= 512 else 15)


def _stream(counts: NDArray[np.int64], width: int, coded: bool) -> tuple[Code | None, int]:
    """A stream's code, if a Huffman code pays, and the stream's bits with its table."""
    fixed = int(counts.sum()) * width
    used = np.count_nonzero(counts)
    if not coded or not 0 < used <= HUFFMAN_SYMBOLS:
        return None, fixed
    code = Code(_lengths(counts))
    bits = 8 * code.table_bytes
    if used > 1:
        bits += int(np.dot(counts, code.lengths.astype(np.int64)))
    return (None, fixed) if bits >= fixed else (code, bits)


def _likely_widths(counts: Counts, distances: NDArray[np.int64], coded: bool) -> list[int]:
    """The three gap widths with the lowest estimate: zero-order entropy if coded, else fixed bits."""

    def estimate(width: int) -> float:
        gap_counts, index_counts = gaps.gap_counts(distances, width), counts.entries_at(width)
        if coded:
            return entropy.entropy_bytes(gap_counts) + entropy.entropy_bytes(index_counts)
        return float(gap_counts.sum()) * (width + index_bits(len(counts.indices)))

    return sorted(sorted(AUTOMATIC_WIDTHS, key=estimate)[:3])
