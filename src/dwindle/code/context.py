"""Adaptive coding of index maps by their surroundings, a block at a time.

A block is a byte that says how it is coded, then the code:

- 0, as a tree (`kernels.context`): zero or not, then the bits of the rank, each with a probability mixed from
  several. For pruned tensors, and wherever the last half percent is worth the time.
- 1, as levels (`levels`) around a centre whose frequencies fall to both sides: several times faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dwindle.code import levels
from dwindle.errors import CorruptError
from dwindle.kernels import context as kernels
from dwindle.records import index_dtype

Way = Literal["tree", "levels"]
WAYS: tuple[Way, ...] = ("tree", "levels")
"""Their place in this tuple is the first byte of a block."""

COLUMNS = 1 << 20
"""Most columns that are kept track of; those beyond share the last."""

SAMPLE = 1 << 10
"""Elements that both ways are tried on."""

FAVOUR = 0.05
"""By how much of its size the tree of a sample must be smaller: it is slower, and learns faster."""

Symbols = NDArray[np.unsignedinteger[Any]]


def encode(
    indices: Symbols,
    start: int,
    shape: tuple[int, ...],
    ranks: NDArray[np.uint16],
    zero: int | None,
    way: Way | None = None,
) -> bytes:
    """Code a block of an index map.

    Args:
        indices: which codebook entry each element takes, shape (n,).
        start: place of the first of them in the flattened tensor.
        shape: of the tensor; the first dimension counts rows, the third on make up a kernel.
        ranks: the place of each entry in order of value, shape (k,).
        zero: the entry that is 0.0, or None.
        way: as a tree or as levels; None takes levels, unless a sample shows that a tree is worth its time.
    """
    if not len(indices):
        return b""
    block = _Block(start, shape, len(ranks), zero, _centre(ranks, zero))
    found = indices.astype(np.uint16) if _ascend(ranks) else np.take(ranks, indices, mode="clip")
    if (way or _better(found, block)) == "tree":
        return bytes([WAYS.index("tree")]) + _as_tree(found, block)
    return bytes([WAYS.index("levels")]) + _as_levels(found, block)


def decode(
    data: memoryview,
    out: Symbols,
    start: int,
    shape: tuple[int, ...],
    ranks: NDArray[np.uint16],
    zero: int | None,
) -> None:
    """Fill `out`, shape (n,), with what `encode` was given.

    Raises:
        CorruptError: if the bytes are no such block.
    """
    if not len(out):
        if len(data):
            raise CorruptError(f"expected no bytes for no elements, got {len(data)}")
        return
    if not len(data) or data[0] >= len(WAYS):
        raise CorruptError("expected a block coded as a tree or as levels")
    block = _Block(start, shape, len(ranks), zero, _centre(ranks, zero))
    if WAYS[data[0]] == "tree":
        found = _from_tree(data[1:], len(out), block)
    else:
        found = np.empty(len(out), np.uint16)
        levels.decode(data[1:], found, start, block.columns, block.tracked, block.centre)
    if int(found.max()) >= len(ranks):
        raise CorruptError(f"expected ranks under {len(ranks)}, got {int(found.max())}")
    if _ascend(ranks):
        out[:] = found
        return
    order = np.empty(len(ranks), index_dtype(len(ranks)))
    order[ranks] = np.arange(len(ranks), dtype=order.dtype)
    np.take(order, found, out=out, mode="clip")


@dataclass(frozen=True)
class _Block:
    """Where a block is in its tensor, and what its ranks mean.

    Attributes:
        start: place of its first element.
        shape: of the tensor.
        entries: of the codebook.
        zero: the entry that is 0.0, or None.
        centre: the rank whose level is 0.
    """

    start: int
    shape: tuple[int, ...]
    entries: int
    zero: int | None
    centre: int

    @property
    def columns(self) -> int:
        """Elements of a row."""
        return max(math.prod(self.shape[1:]) if len(self.shape) > 1 else math.prod(self.shape), 1)

    @property
    def tracked(self) -> int:
        """Columns that are kept track of."""
        return min(self.columns, COLUMNS)


def _ascend(ranks: NDArray[np.uint16]) -> bool:
    """Whether entries are in order of value, so that ranks are indices; a copy is quicker than a look-up."""
    return np.array_equal(ranks, np.arange(len(ranks)))


def _centre(ranks: NDArray[np.uint16], zero: int | None) -> int:
    """The rank whose level is 0: that of the zero entry, or the middle one."""
    return len(ranks) // 2 if zero is None else int(ranks[zero])


def _better(found: NDArray[np.uint16], block: _Block) -> Way:
    """The way that a sample from the middle of a block favours."""
    first = max(len(found) - SAMPLE, 0) // 2
    sample, place = found[first : first + SAMPLE], replace(block, start=block.start + first)
    if len(_as_tree(sample, place)) < (1 - FAVOUR) * len(_as_levels(sample, place)):
        return "tree"
    return "levels"


def _as_levels(found: NDArray[np.uint16], block: _Block) -> bytes:
    return levels.encode(found, block.start, block.columns, block.tracked, block.centre)


def _as_tree(found: NDArray[np.uint16], block: _Block) -> bytes:
    out = np.empty(len(found) * 2 + 64, np.uint8)
    size = _run_tree(found, block, out, decoding=False)
    if size > len(out):
        out = np.empty(size, np.uint8)
        size = _run_tree(found, block, out, decoding=False)
    return out[:size].tobytes()


def _from_tree(data: memoryview, count: int, block: _Block) -> NDArray[np.uint16]:
    stream, found = np.array(data, np.uint8), np.zeros(count, np.uint16)
    seen = _run_tree(found, block, stream, decoding=True)
    if len(stream) > seen or (len(stream) and stream[-1] == 0):
        raise CorruptError(f"expected a code of at most {seen} bytes, no zero at its end, got {len(stream)}")
    return found


def _run_tree(found: NDArray[np.uint16], block: _Block, stream: NDArray[np.uint8], *, decoding: bool) -> int:
    kernel = np.uint64(max(math.prod(block.shape[2:]), 1))
    middle = np.int64(-1 if block.zero is None else block.centre)
    depth = np.uint64(max(block.entries - 1, 0).bit_length())
    place = np.uint64(block.start), np.uint64(block.columns), np.uint64(block.tracked), kernel
    return int(kernels.run_tree(found, *place, middle, depth, stream, decoding))
