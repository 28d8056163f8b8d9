"""Adaptive arithmetic coding of index maps, a block at a time; `kernels.context` has the probabilities.

A block is a byte that says how it is coded, then the code:

- 0, as a tree: zero or not, then the bits of the rank. For pruned tensors and any codebook.
- 1, smooth: as levels around a centre whose frequencies fall to both sides. Faster, and better than its
  looks for tensors of many levels.

The first is taken where it is smaller by more than `FAVOUR` on a sample of the block.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.errors import CorruptError
from dwindle.kernels import context as kernels
from dwindle.records import index_dtype

TREE, SMOOTH = 0, 1
"""The first byte of a block."""

SAMPLE = 1 << 15
"""Elements that both ways are tried on."""

FAVOUR = 0.01
"""By how much of its size the tree must be smaller, being the slower one."""

Symbols = NDArray[np.unsignedinteger[Any]]


def encode(
    indices: Symbols, start: int, shape: tuple[int, ...], ranks: NDArray[np.uint16], zero: int | None
) -> bytes:
    """Code a block of an index map.

    Args:
        indices: which codebook entry each element takes, shape (n,).
        start: place of the first of them in the flattened tensor.
        shape: of the tensor; the first dimension counts rows, the third on make up a kernel.
        ranks: the place of each entry in order of value, shape (k,).
        zero: the entry that is 0.0, or None.
    """
    if not len(indices):
        return b""
    found, centre = ranks[indices], _centre(ranks, zero)
    sample = found[:SAMPLE]
    sizes = [len(_run(sample, start, shape, len(ranks), centre, zero, mode)) for mode in (TREE, SMOOTH)]
    mode = TREE if sizes[TREE] < sizes[SMOOTH] * (1 - FAVOUR) else SMOOTH
    return bytes([mode]) + _run(found, start, shape, len(ranks), centre, zero, mode)


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
    if not len(data) or data[0] not in (TREE, SMOOTH):
        raise CorruptError("expected a block coded as a tree or smooth")
    stream = np.array(data[1:], np.uint8)
    found = np.zeros(len(out), np.uint16)
    seen = _kernel(found, start, shape, len(ranks), _centre(ranks, zero), zero, data[0], stream, True)
    if len(stream) > seen or (len(stream) and stream[-1] == 0):
        raise CorruptError(f"expected a code of at most {seen} bytes, no zero at its end, got {len(stream)}")
    if int(found.max()) >= len(ranks):
        raise CorruptError(f"expected ranks under {len(ranks)}, got {int(found.max())}")
    order = np.empty(len(ranks), index_dtype(len(ranks)))
    order[ranks] = np.arange(len(ranks), dtype=order.dtype)
    np.take(order, found, out=out, mode="clip")


def _centre(ranks: NDArray[np.uint16], zero: int | None) -> int:
    """The rank whose level is 0: that of the zero entry, or the middle one."""
    return len(ranks) // 2 if zero is None else int(ranks[zero])


def _run(
    found: NDArray[np.uint16],
    start: int,
    shape: tuple[int, ...],
    entries: int,
    centre: int,
    zero: int | None,
    mode: int,
) -> bytes:
    """The code of ranks, without the first byte."""
    out = np.empty(len(found) * 2 + 64, np.uint8)
    size = _kernel(found, start, shape, entries, centre, zero, mode, out, False)
    if size > len(out):
        out = np.empty(size, np.uint8)
        size = _kernel(found, start, shape, entries, centre, zero, mode, out, False)
    return out[:size].tobytes()


def _kernel(
    found: NDArray[np.uint16],
    start: int,
    shape: tuple[int, ...],
    entries: int,
    centre: int,
    zero: int | None,
    mode: int,
    stream: NDArray[np.uint8],
    decoding: bool,
) -> int:
    columns = max(math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape), 1)
    kernel = max(math.prod(shape[2:]), 1)
    place = np.uint64(start), np.uint64(columns)
    if mode == SMOOTH:
        return int(kernels.run_smooth(found, *place, np.int64(centre), stream, decoding))
    depth = np.uint64(max(entries - 1, 0).bit_length())
    middle = np.int64(-1 if zero is None else centre)
    return int(kernels.run_tree(found, *place, np.uint64(kernel), middle, depth, stream, decoding))
