"""Index maps as levels around a centre, by rANS codes that adapt; `kernels.levels` has the model.

Layout: the number of tokens, 1 to 64, a byte; where that is 1, all levels are 0 and nothing follows. Then the
bytes of the rANS stream as a varint, and the stream: the states the decoder begins with, 4 bytes each,
little-endian, one under `SPLIT` (16,384) elements, four from there on, and words of two bytes as the decoder
takes them. It ends with all states 2**15 and no word left. Then the stored bits, lowest first, up to a byte
filled with zeros: of each element those below its token, and its sign unless it is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dwindle.code.cursor import Cursor, varint
from dwindle.errors import CorruptError
from dwindle.kernels import levels as kernels

SPLIT = 1 << 14
"""From this many elements on there are four states."""

Ranks = NDArray[np.uint16]


def encode(
    ranks: Ranks, start: int, columns: int, tracked: int, centre: int, *, trellis: bool = False
) -> bytes:
    """Code the ranks of a block, shape (n,), n at least 1.

    Args:
        ranks: places in order of value.
        start: place of the first in its tensor.
        columns: elements of a row of the tensor.
        tracked: columns that have a mean of their own.
        centre: the rank whose level is 0.
        trellis: whether levels follow a trellis (`kernels.trellis`), and are coded by their numbers.
    """
    tokens = _tokens(ranks, centre, trellis)
    if tokens == 1:
        return b"\1"
    states = np.full(_lanes(len(ranks)), kernels.START, np.uint64)
    packed, words = np.empty(len(ranks), np.uint32), np.empty(len(ranks) + 1, np.uint16)
    bits = np.empty(2 * len(ranks) + kernels.SLACK, np.uint8)
    model = start, columns, tracked, centre, tokens, trellis
    _, used = _run(ranks, model, states, words[:0], packed, bits, decoding=False)
    first = int(kernels.push(packed, states, words))
    stream = states.astype("<u4").tobytes() + words[first:].astype("<u2", copy=False).tobytes()
    return bytes([tokens]) + varint(len(stream)) + stream + bits[: (used + 7) // 8].tobytes()


def decode(
    data: memoryview,
    ranks: Ranks,
    start: int,
    columns: int,
    tracked: int,
    centre: int,
    *,
    trellis: bool = False,
) -> None:
    """Fill `ranks`, shape (n,), n at least 1, with what `encode` was given; levels are taken modulo 2**16.

    Raises:
        CorruptError: if the bytes are not that.
    """
    cursor = Cursor(data)
    tokens = cursor.byte()
    if not 1 <= tokens <= kernels.MOST_TOKENS:
        raise CorruptError(f"expected 1 to {kernels.MOST_TOKENS} tokens, got {tokens}")
    if tokens == 1:
        cursor.end()
        ranks[:] = centre
        return
    stream = cursor.take(cursor.varint(len(data), "the length of a stream"))
    head = 4 * _lanes(len(ranks))
    if len(stream) < head or len(stream) % 2 or (len(stream) - head) // 2 > len(ranks):
        raise CorruptError(f"expected states and at most {len(ranks)} words, got {len(stream)} bytes")
    states = np.frombuffer(stream[:head], "<u4").astype(np.uint64)
    if (states < kernels.START).any() or (states >> np.uint64(31)).any():
        raise CorruptError("expected states from 2**15 up to 2**31")
    words = np.append(np.frombuffer(stream[head:], "<u2"), np.uint16(0)).astype(np.uint16, copy=False)
    rest = np.frombuffer(cursor.take(len(data) - cursor.offset), np.uint8)
    bits = np.append(rest, np.zeros(kernels.SLACK, np.uint8))
    model = start, columns, tracked, centre, tokens, trellis
    taken, used = _run(ranks, model, states, words, np.empty(0, np.uint32), bits, decoding=True)
    if taken != len(words) - 1 or (states != kernels.START).any():
        raise CorruptError(f"expected a code that ends with its last word, got {len(words) - 1} words")
    if (used + 7) // 8 != len(rest) or (used % 8 and rest[-1] >> used % 8):
        raise CorruptError(f"expected {used} bits and zeros up to a byte, got {len(rest)} bytes")


def _run(
    ranks: Ranks,
    model: tuple[int, int, int, int, int, bool],
    states: NDArray[np.uint64],
    words: NDArray[np.uint16],
    packed: NDArray[np.uint32],
    bits: NDArray[np.uint8],
    *,
    decoding: bool,
) -> tuple[int, int]:
    """Call the kernel with start, columns, tracked, centre, tokens and trellis as it wants them."""
    start, columns, tracked, centre, tokens, trellis = model
    word, used = kernels.run(
        ranks,
        np.uint64(start),
        np.uint64(columns),
        np.uint64(tracked),
        np.int64(centre),
        np.uint64(tokens),
        states,
        words,
        packed,
        bits,
        np.uint64(trellis),
        decoding,
    )
    return int(word), int(used)


def _tokens(ranks: Ranks, centre: int, trellis: bool) -> int:
    """One more than the largest token that a block may have."""
    largest = max(int(ranks.max()) - centre, centre - int(ranks.min()))
    if trellis:
        largest = (largest + 1) // 2
    return int(np.searchsorted(kernels.TOKENS >> np.uint32(5), largest, side="right"))


def _lanes(count: int) -> int:
    return 1 if count < SPLIT else kernels.LANES
