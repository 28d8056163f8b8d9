"""Records to the entries and blocks of a file."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes
from dwindle.code import blocks, context, exact, trellis
from dwindle.code.compare import common_code
from dwindle.code.plan import (
    ADAPTIVE_NANOSECONDS,
    AdaptiveWay,
    Arrangement,
    Coding,
    Counts,
    Plan,
    book,
    choose,
    count,
    symbol_counts,
)
from dwindle.code.streams import Code
from dwindle.errors import TensorError, shown
from dwindle.file import layout
from dwindle.records import BLOCK, Raw, Record, Shared, Tied, elements, resolve, same_bytes

AHEAD = 1 << 26
"""Bytes of tensors whose blocks are coded before those of the tensor in front are all done."""

ENDS = 64
"""Bytes at either end of a tensor by which equal ones are looked for before they are compared whole."""

FEW = 128
"""Tensors of so many elements are always small: a block of its own would take longer than the elements do."""

QUICK = 1 << 12
"""Elements of small tensors, those of `FEW` not counted, in a file of exact tensors only.

In the section of values an element takes up to a microsecond, a few hundred times as long as in a block. So
where nothing else takes long either, the longest of many small tensors go to blocks, for 2 to 10 % more of
their bytes.
"""

Payloads = Sequence[bytes | memoryview]
Item = tuple[str, int, str, bytes]
"""What the section of values takes: dtype, number of elements, class, bytes."""


@dataclass
class Encoder:
    """Codes records one after the other, a few ahead of the one that is taken.

    Attributes:
        records: what is coded; each is asked for when it is its turn.
        coding: how shared tensors are coded.
        base: tensors that exact ones of the same name, dtype and shape are stored as differences from.
        pool: workers that code blocks.
        codes: code tables that several tensors use.
    """

    records: Mapping[str, Record]
    coding: Coding
    base: Mapping[str, Record]
    pool: ThreadPoolExecutor
    codes: tuple[Code, ...] = ()
    _most: int = field(init=False)
    _plans: dict[str, Plan] = field(default_factory=dict)
    _adaptive: dict[str, Payloads] = field(default_factory=dict)
    _seen: dict[tuple[object, ...], list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choose a plan for every shared tensor."""
        if self.coding.dictionary == "network" and self.coding.coder == "auto":
            self.coding = replace(self.coding, coder="huffman")
        shared, lengths = {}, []
        for (
            name,
            record,
        ) in self.records.items():  # once: a mapping may make its records as they are asked for
            if isinstance(record, Shared):
                shared[name] = record
            elif isinstance(record, Raw):
                lengths.append(elements(record))
        self._most = layout.SMALL if shared else _most_quick(lengths)
        counts = dict(zip(shared, self.pool.map(count, shared.values()), strict=True))
        chosen = self.pool.map(lambda name: choose(self.coding, counts[name]), shared)
        found = dict(zip(shared, chosen, strict=True))
        self._plans = {name: plan for name, (plan, _) in found.items()}
        if self.coding.coder == "huffman" and self.coding.dictionary == "network":
            self._one_dictionary(counts)
        adaptive = self.coding.coder == "auto" and self.coding.gap_bits is None
        if not adaptive and self.coding.coder != "context":
            return
        followed = dict(zip(shared, self.pool.map(_follows_trellis, shared.values()), strict=True))
        if adaptive:
            self._add_adaptive(shared, {name: bits / 8 for name, (_, bits) in found.items()}, followed)
        else:
            self._plans = {
                name: Plan("trellis" if followed[name] else "context", plan.entries)
                for name, plan in self._plans.items()
            }

    def entries(self) -> Iterator[tuple[str, layout.Entry, Payloads, Item | None]]:
        """Name, entry, blocks, and what goes to the section of values, of each tensor in order."""
        numbers = {name: number for number, name in enumerate(self.records)}
        waiting: deque[tuple[str, Record, Sequence[Future[bytes | memoryview]]]] = deque()
        ahead = 0
        for name, record in self.records.items():
            equal = self._equal(name, record)
            if equal is not None:
                waiting.append((name, equal, []))
            else:
                waiting.append((name, record, self._start(name, record)))
                ahead += _size(record)
            while ahead > AHEAD and len(waiting) > 1:
                yield self._finish(numbers, *waiting[0])
                ahead -= _size(waiting.popleft()[1])
        while waiting:
            yield self._finish(numbers, *waiting.popleft())

    def _start(self, name: str, record: Record) -> Sequence[Future[bytes | memoryview]]:
        """Begin to code the blocks of a tensor."""
        if isinstance(record, Tied):
            if isinstance(self.records.get(record.to, record), Tied):
                raise ValueError(f"{shown(name)}: expected a tie to a tensor of its own, got {record.to!r}")
            return []
        many = math.prod(d for d in record.shape if d)
        if len(record.shape) > layout.MAX_DIMENSIONS or many > layout.MAX_ELEMENTS:
            most = f"{layout.MAX_DIMENSIONS} dimensions and {layout.MAX_ELEMENTS} elements"
            raise TensorError(f"{shown(name)}: expected at most {most}, got {list(record.shape)}")
        if isinstance(record, Raw):
            if self._small(name, record):
                return []
            base = self._base(name, record)
            before = [None] * len(_cut(record)) if base is None else _cut(base)
            return [
                self.pool.submit(_encode_exact, part, record.dtype, old)
                for part, old in zip(_cut(record), before, strict=True)
            ]
        if name in self._adaptive:
            return []
        plan, values = self._plans[name], book(record)
        numbers = range(blocks.block_count(plan, elements(record)))
        return [
            self.pool.submit(blocks.encode, record.indices, plan, values, record.shape, number)
            for number in numbers
        ]

    def _finish(
        self,
        numbers: Mapping[str, int],
        name: str,
        record: Record,
        coded: Sequence[Future[bytes | memoryview]],
    ) -> tuple[str, layout.Entry, Payloads, Item | None]:
        """Wait for the blocks of a tensor."""
        if isinstance(record, Tied):
            owner = self.records.get(name)
            return name, layout.AliasEntry(numbers[record.to], isinstance(owner, Tied)), [], None
        payloads = self._adaptive.pop(name, None) or [block.result() for block in coded]
        sizes = [len(block) for block in payloads]
        if isinstance(record, Shared):
            entry = layout.SharedEntry(record.dtype, record.shape, self._plans[name], sizes)
            item = record.dtype, len(record.codebook), "codebook", record.codebook.tobytes()
            return name, entry, payloads, item
        if self._small(name, record):
            leaf = name.rpartition(".")[2]
            item = record.dtype, elements(record), leaf, bytes(record.data)
            return name, layout.ExactEntry(record.dtype, record.shape, "small"), [], item
        if self._base(name, record) is not None:
            return name, layout.ExactEntry(record.dtype, record.shape, "based", sizes), payloads, None
        if sum(sizes) < len(record.data):
            return name, layout.ExactEntry(record.dtype, record.shape, "coded", sizes), payloads, None
        return name, layout.ExactEntry(record.dtype, record.shape, "stored"), _cut(record), None

    def _small(self, name: str, record: Raw) -> bool:
        return elements(record) <= self._most and self._base(name, record) is None

    def _base(self, name: str, record: Raw) -> Raw | None:
        """The same tensor in the base, where it has one of the same dtype and shape."""
        other = resolve(self.base, name) if name in self.base else None
        if isinstance(other, Raw) and (other.dtype, other.shape) == (record.dtype, record.shape):
            return other if record.data else None
        return None

    def _equal(self, name: str, record: Record) -> Tied | None:
        """An earlier exact tensor of the same dtype, shape and bytes, if it is worth to point at it."""
        # An extra must have bytes of its own, by the format.
        if not isinstance(record, Raw) or self._small(name, record) or name.startswith(layout.EXTRA):
            return None
        ends = bytes(record.data[:ENDS]), bytes(record.data[-ENDS:])
        candidates = self._seen.setdefault((record.dtype, record.shape, *ends), [])
        for other in candidates:
            owner = self.records[other]
            if isinstance(owner, Raw) and same_bytes(owner.data, record.data):
                return Tied(other)
        candidates.append(name)
        return None

    def _one_dictionary(self, counts: Mapping[str, Counts]) -> None:
        """Give all tensors the same code for indices, and those stored by gaps the same code for gaps."""
        found = {name: symbol_counts(plan, counts[name]) for name, plan in self._plans.items()}
        codes: list[Code] = []

        def common(which: list[NDArray[np.int64]]) -> Code | None:
            code = common_code(which, len(codes))
            if code:
                codes.append(code)
            return code

        index_code = common([indices for indices, _ in found.values()])
        gap_code = common([gap_counts for _, gap_counts in found.values() if gap_counts is not None])
        self.codes = tuple(codes)
        self._plans = {
            name: replace(
                plan, index_code=index_code, gap_code=gap_code if plan.arrangement == "gaps" else None
            )
            for name, plan in self._plans.items()
        }

    def _add_adaptive(
        self, shared: Mapping[str, Shared], static: Mapping[str, float], followed: Mapping[str, bool]
    ) -> None:
        """Code tensors by context or along a trellis where that saves most for its time to decode."""
        budget = self.coding.decode_seconds
        ways = {way: cost / 1e9 for way, cost in ADAPTIVE_NANOSECONDS.items()}
        begun = {
            (name, way): self._start_adaptive(record, way)
            for name, record in shared.items()
            for way, cost in ways.items()
            if elements(record) * cost <= budget and (way != "trellis" or followed[name])
        }
        coded = {key: [block.result() for block in waiting] for key, waiting in begun.items()}
        steps: list[tuple[float, float, str, AdaptiveWay]] = []
        for name, record in shared.items():
            sizes = {way: sum(map(len, coded[name, way])) for way in ways if (name, way) in coded}
            steps += _steps(name, static[name], sizes, {way: elements(record) * ways[way] for way in sizes})
        for _, added, name, way in sorted(steps, key=lambda step: -step[0]):
            if added <= budget:
                budget -= added
                arrangement: Arrangement = "trellis" if way == "trellis" else "context"
                self._plans[name] = Plan(arrangement, self._plans[name].entries)
                self._adaptive[name] = coded[name, way]

    def _start_adaptive(self, record: Shared, way: AdaptiveWay) -> list[Future[bytes]]:
        """Begin to code the blocks of a tensor in one of the ways that learn."""
        values, shape = book(record), record.shape

        def encode(start: int) -> bytes:
            part = record.indices[start : start + BLOCK]
            if way == "trellis":
                return trellis.encode(part, start, shape, values.zero)
            return context.encode(part, start, shape, values.ranks, values.zero, way)

        return [self.pool.submit(encode, start) for start in range(0, elements(record), BLOCK)]


def _most_quick(lengths: Sequence[int]) -> int:
    """Most elements of a small tensor, so that all of those of a file are decoded quickly."""
    left = QUICK
    for length in sorted(length for length in lengths if FEW < length <= layout.SMALL):
        left -= length
        if left < 0:
            return length - 1
    return layout.SMALL


def _follows_trellis(record: Shared) -> bool:
    """Whether an index map goes along a trellis, and not only because hardly anything happens in it."""
    counts = trellis.number_counts(record.indices, record.shape, book(record).zero)
    return counts is not None and bool(counts[1].sum() > counts[1].max())


def _steps(
    name: str, static: float, sizes: Mapping[AdaptiveWay, int], costs: Mapping[AdaptiveWay, float]
) -> list[tuple[float, float, str, AdaptiveWay]]:
    """The ways that learn and are worth their time: bytes saved a second, seconds added, name, way.

    From one step to the next less is saved for the same time: a way that would save more a second than the
    one before it takes its place.
    """
    kept: list[tuple[float, float, AdaptiveWay]] = []
    for way in sorted(sizes, key=lambda way: costs[way]):
        size = float(sizes[way])
        if size >= (kept[-1][0] if kept else static):
            continue
        if kept:
            first, seconds, _ = kept[0]
            if (static - size) * seconds > (static - first) * costs[way]:
                kept = []
        kept.append((size, costs[way], way))
    before, spent, steps = static, 0.0, []
    for size, cost, way in kept:
        steps.append(((before - size) / max(cost - spent, 1e-9), cost - spent, name, way))
        before, spent = size, cost
    return steps


def _cut(record: Raw) -> list[memoryview]:
    """The bytes of each block of a tensor."""
    data, step = memoryview(record.data), BLOCK * dtypes.itemsize(record.dtype)
    return [data[start : start + step] for start in range(0, len(data), step)]


def _encode_exact(data: memoryview, dtype: str, base: memoryview | None) -> bytes | memoryview:
    if base is None:
        return exact.encode(data, dtype)
    return b"".join([zlib.crc32(base).to_bytes(4, "little"), exact.encode(data, dtype, base)])


def _size(record: Record) -> int:
    return 0 if isinstance(record, Tied) else elements(record) * dtypes.itemsize(record.dtype)
