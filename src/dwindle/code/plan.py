"""How one shared tensor is coded: chosen from counts alone, so the same record gives the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes
from dwindle.code import entropy, gaps, streams
from dwindle.code.context import Way
from dwindle.code.streams import Code, Kind, index_bits
from dwindle.records import BLOCK, Shared

Coder = Literal["auto", "context", "rans", "huffman", "fixed", "csr", "csc"]
CODERS: tuple[str, ...] = get_args(Coder)
Arrangement = Literal["dense", "gaps", "csr", "csc", "context", "trellis"]
ARRANGEMENTS: tuple[Arrangement, ...] = get_args(Arrangement)
"""Their place in this tuple is their number in a file."""

ADAPTIVE: tuple[Arrangement, ...] = ("context", "trellis")
"""Those whose codes learn as they go and have no tables."""

AUTOMATIC_WIDTHS = range(1, 13)
"""Gap widths tried when none is given; a wider gap only pays for tensors that are all but empty."""

SAMPLE, STRIPES = 1 << 16, 16
"""Elements of a long tensor whose distances are looked at before all are counted, and in how many parts."""

SPARSE = 64
"""Tensors of which fewer than one in so many elements survives are not sampled: parts of them tell little."""

PROMISE = 0.995
"""What share of a dense map gaps must promise to take to be tried."""

KINDS: dict[str, tuple[Kind, ...]] = {"auto": ("rans", "huffman"), "rans": ("rans",), "huffman": ("huffman",)}
"""The codes that the streams of a coder may have, besides numbers of fixed width."""

DECODE_SECONDS = 1.0
"""What `auto` may cost to decode, unless told otherwise."""

AdaptiveWay = Way | Literal["trellis"]
"""A way of `context`, or along a trellis."""

ADAPTIVE_NANOSECONDS: dict[AdaptiveWay, float] = {"levels": 15.0, "trellis": 15.0, "tree": 100.0}
"""What an element costs to decode by each of them, on one core, as `auto` reckons: levels took 13 to 15 and
trees 75 to 180, for maps of 2 to 8 bits an element. Static codes take about 1, which is left out."""


@dataclass(frozen=True)
class Coding:
    """What a user asks of the coder.

    Attributes:
        coder: `context` (adaptive arithmetic coding), `rans`, `huffman`, `fixed` bits, `csr` or `csc`; or
            `auto`: for each tensor the smallest of context, rANS and Huffman, as far as the time to decode
            allows.
        gap_bits: width of a gap, 1 to 16; None takes the width that gives the fewest bytes. With
            `auto`, a width leaves context out.
        dictionary: one Huffman code per `layer`, or one for the whole `network`; `auto` is Huffman then.
        decode_seconds: what `auto` may spend on decoding all tensors, reckoned for one core at
            `ADAPTIVE_NANOSECONDS`; it goes where it saves most bytes for its time.
    """

    coder: Coder = "auto"
    gap_bits: int | None = None
    dictionary: Literal["layer", "network"] = "layer"
    decode_seconds: float = DECODE_SECONDS

    def __post_init__(self) -> None:
        if self.coder not in CODERS:
            raise ValueError(f"expected a coder among {', '.join(CODERS)}, got {self.coder}")
        if self.gap_bits is not None and self.gap_bits not in gaps.WIDTHS:
            raise ValueError(f"expected gap bits of 1 to 16, got {self.gap_bits}")
        if self.dictionary not in ("layer", "network"):
            raise ValueError(f"expected a dictionary per layer or network, got {self.dictionary}")
        if not self.decode_seconds >= 0:
            raise ValueError(f"expected at least 0 seconds to decode, got {self.decode_seconds}")

    def allows_trellis(self, count: int) -> bool:
        """Whether index maps of so many elements in all may be coded along a trellis."""
        if self.coder != "auto":
            return self.coder == "context"
        plain = self.gap_bits is None and self.dictionary == "layer"
        return plain and count * ADAPTIVE_NANOSECONDS["trellis"] <= 1e9 * self.decode_seconds


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a block of a shared tensor needs besides its bytes and the codebook.

    Attributes:
        arrangement: every element (`dense`), only survivors by `gaps`, `csr` or `csc`, or all by their
            surroundings, `context`, or `trellis` where they follow one.
        entries: size of the codebook.
        gap_bits: width of a gap, 0 unless the arrangement is gaps.
        index_code: code of the indices, None for fixed width.
        gap_code: code of the gaps, None for fixed width.
    """

    arrangement: Arrangement
    entries: int
    gap_bits: int = 0
    index_code: Code | None = None
    gap_code: Code | None = None

    @property
    def sparse(self) -> bool:
        """Whether elements that are 0.0 are left out."""
        return self.arrangement in ("gaps", "csr", "csc")


@dataclass(frozen=True, eq=False)
class Book:
    """What coding makes of a codebook.

    Attributes:
        values: the codebook, in storage of `dtype`, shape (k,).
        dtype: the tensor's.
    """

    values: NDArray[Any]
    dtype: str

    @cached_property
    def zero(self) -> int | None:
        """The first entry that is exactly +0.0 (all bits zero), or None."""
        hits = np.flatnonzero(self._bits == 0)
        return int(hits[0]) if len(hits) else None

    @cached_property
    def ranks(self) -> NDArray[np.uint16]:
        """The place of each entry in rising order of value, shape (k,): NaN by its bits, -0.0 before 0.0."""
        negative = self._bits >> np.asarray(8 * self.values.itemsize - 1, self._bits.dtype) != 0
        # The order of floats is that of their bits, once those of negative ones are turned over.
        top = np.asarray(1 << (8 * self.values.itemsize - 1), self._bits.dtype)
        keys = np.where(negative, ~self._bits, self._bits | top)
        ranks = np.empty(len(keys), np.uint16)
        ranks[np.argsort(keys, kind="stable")] = np.arange(len(keys), dtype=np.uint16)
        return ranks

    @property
    def _bits(self) -> NDArray[Any]:
        return self.values.view(f"<u{dtypes.itemsize(self.dtype)}")


def book(record: Shared) -> Book:
    """What coding makes of a tensor's codebook."""
    return Book(record.codebook, record.dtype)


@dataclass(frozen=True, eq=False)
class Counts:
    """What a plan is chosen from.

    Attributes:
        symbols: the index map, shape (n,).
        indices: how often each index occurs in it, shape (k,).
        zero: the index of 0.0, or None.
    """

    symbols: NDArray[np.unsignedinteger[Any]]
    indices: NDArray[np.int64]
    zero: int | None

    @cached_property
    def distances(self) -> NDArray[np.int64] | None:
        """How often each distance between survivors occurs, by blocks; None without a zero."""
        return None if self.zero is None else gaps.distance_counts(self.symbols, self.zero, BLOCK)

    def entries_at(self, width: int) -> NDArray[np.int64]:
        """How often each index occurs among survivors and fillers at a gap width."""
        if self.distances is None:
            raise ValueError("expected counts of a tensor with zeros")
        counts = self.indices.copy()
        counts[self.zero] = int(gaps.gap_counts(self.distances, width).sum()) - int(self.distances.sum())
        return counts


def count(record: Shared) -> Counts:
    """Count the indices; distances between survivors are counted when they are asked for."""
    indices = entropy.counts(record.indices, len(record.codebook))
    return Counts(record.indices, indices, book(record).zero)


def choose(coding: Coding, counts: Counts) -> tuple[Plan, int]:
    """The plan with the fewest bytes among those the coding allows, of equals the first tried; and its bits.

    Tensors without a zero are dense whatever is asked: there is nothing to leave out. `auto` and `context`
    are given the best plan of static codes here: what context makes of a tensor no counts tell. Gaps with
    codes that do not promise to take half a percent less than a dense map are not tried.
    """
    entries = len(counts.indices)
    pruned = counts.zero is not None and counts.indices[counts.zero] > 0
    if coding.coder in ("csr", "csc") and pruned:
        return Plan("csr" if coding.coder == "csr" else "csc", entries), 0
    kinds = KINDS.get(coding.coder, KINDS["auto"] if coding.coder == "context" else ())
    dense, best = streams.shortest(counts.indices, index_bits(entries), kinds)
    plan = Plan("dense", entries, index_code=dense)
    if not pruned:
        return plan, best
    table = 0 if dense is None else 8 * len(dense.table)
    least = (best - table) * (PROMISE if kinds else 1.0)
    widths = [coding.gap_bits] if coding.gap_bits else _likely_widths(counts, least, bool(kinds))
    # What Huffman codes lose to the entropy the estimates do not tell.
    for width in widths[: 1 if "rans" in kinds else 3]:
        stored = gaps.gap_counts(_distances(counts), width)
        gap_code, gap_size = streams.shortest(stored, width, kinds)
        index_code, index_size = streams.shortest(counts.entries_at(width), index_bits(entries), kinds)
        if gap_size + index_size < best:
            best = gap_size + index_size
            plan = Plan("gaps", entries, width, index_code, gap_code)
    return plan, best


def symbol_counts(plan: Plan, counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """How often each index and each gap occurs in the streams of a plan."""
    if plan.arrangement == "gaps":
        return counts.entries_at(plan.gap_bits), gaps.gap_counts(_distances(counts), plan.gap_bits)
    if not plan.sparse:
        return counts.indices, None
    survivors = counts.indices.copy()
    survivors[counts.zero] = 0
    return survivors, None


def _distances(counts: Counts) -> NDArray[np.int64]:
    if counts.distances is None:
        raise ValueError("expected counts of a tensor with zeros")
    return counts.distances


def _likely_widths(counts: Counts, least: float, coded: bool) -> list[int]:
    """Gap widths that may take fewer than `least` bits, the likeliest first."""
    if coded:
        sizes = _estimates(counts, least)
    else:
        bits = index_bits(len(counts.indices))
        sizes = [
            float(gaps.gap_counts(_distances(counts), width).sum()) * (width + bits)
            for width in AUTOMATIC_WIDTHS
        ]
    ordered = sorted(zip(AUTOMATIC_WIDTHS, sizes, strict=True), key=lambda pair: pair[1])
    return [width for width, size in ordered if size < least]


def _estimates(counts: Counts, least: float) -> list[float]:
    """About how many bits coded gaps and indices take at each width.

    Distances of a long tensor are sampled, and only counted if a width promises fewer than `least`.
    """
    survivors = counts.indices.copy()
    survivors[counts.zero] = 0
    total, most = int(survivors.sum()), AUTOMATIC_WIDTHS[-1]
    bits = 8 * entropy.entropy_bytes(survivors) / max(total, 1)
    if len(counts.symbols) > 2 * SAMPLE and total > len(counts.symbols) / SPARSE:
        step, stripe = len(counts.symbols) // STRIPES, SAMPLE // STRIPES
        some = np.concatenate([counts.symbols[i * step : i * step + stripe] for i in range(STRIPES)])
        distances = gaps.distance_counts(some, counts.zero or 0, stripe)
        found = gaps.estimated_bits(distances, max(int(distances.sum()), 1) / total, bits, most)
        if min(found) >= least:
            return found
    return gaps.estimated_bits(_distances(counts), 1.0, bits, most)
