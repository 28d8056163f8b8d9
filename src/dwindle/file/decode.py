"""The blocks of one tensor on their way back to elements."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes, records
from dwindle.code import blocks, exact
from dwindle.code.parts import Part
from dwindle.code.plan import Book
from dwindle.errors import BaseError, CorruptError
from dwindle.file import layout
from dwindle.records import BLOCK, Raw, Shared

Task = Callable[[], list[Part]]
"""Decodes one block into its place; what its bytes were."""

BASE_CHECKSUM = 4


class Pending(Protocol):
    """A task under way."""

    def result(self) -> list[Part]:
        """Wait for it."""
        ...


@dataclass(frozen=True, eq=False)
class Decoding:
    """A tensor whose blocks are being decoded.

    Attributes:
        entry: what the header says of it.
        book: its codebook, None for exact tensors.
        out: where its elements or indices go, those of the chosen blocks, shape (n,).
        tasks: the blocks, in order.
    """

    entry: layout.ExactEntry | layout.SharedEntry
    book: Book | None
    out: NDArray[Any]
    tasks: Sequence[Pending]

    def finish(self) -> list[Part]:
        """Wait for all blocks; what their bytes were.

        Raises:
            FileError: if the bytes are damaged.
        """
        return [part for task in self.tasks for part in task.result()]

    def record(self) -> Raw | Shared:
        """The whole tensor, once `finish` has returned."""
        if self.book is None:
            return Raw(self.entry.dtype, self.entry.shape, self.out.data)
        return Shared(self.entry.dtype, self.entry.shape, self.book.values, self.out)

    def storage(self) -> NDArray[Any]:
        """The elements of the chosen blocks in storage of the dtype, shape (n,), after `finish`."""
        if self.book is None:
            return self.out.view(dtypes.STORAGE[self.entry.dtype])
        return records.to_storage(Shared(self.entry.dtype, self.out.shape, self.book.values, self.out))


def block_length(entry: layout.ExactEntry | layout.SharedEntry) -> int:
    """Elements of each block but the last, at least 1; small tensors are one."""
    whole = isinstance(entry, layout.ExactEntry) and entry.form == "small"
    if whole or (isinstance(entry, layout.SharedEntry) and entry.plan.arrangement in ("csr", "csc")):
        return max(math.prod(entry.shape), 1)
    return BLOCK


def exact_tasks(
    entry: layout.ExactEntry, chosen: range, block: Callable[[int], memoryview], base: memoryview | None
) -> tuple[NDArray[np.uint8], list[Task]]:
    """Where the bytes of an exact tensor go, and what brings them there.

    Args:
        entry: not a small one.
        chosen: which blocks.
        block: gives the checked bytes of one.
        base: the bytes of the same tensor in the base, for one that is `based`.
    """
    n, width = math.prod(entry.shape), dtypes.itemsize(entry.dtype)
    first, last = chosen.start * BLOCK, min(n, chosen.stop * BLOCK)
    out = np.empty(max(last - first, 0) * width, np.uint8)

    def task(number: int) -> list[Part]:
        start, stop = number * BLOCK * width, min(n, (number + 1) * BLOCK) * width
        data, place = block(number), out[start - first * width : stop - first * width]
        if entry.form == "stored":
            place[:] = np.frombuffer(data, np.uint8)
            return [Part("raw", len(data))]
        if base is None:
            return exact.decode(data, entry.dtype, place)
        before = base[start:stop]
        if zlib.crc32(before) != int.from_bytes(data[:BASE_CHECKSUM], "little") or len(data) < BASE_CHECKSUM:
            raise BaseError(
                f"expected the base it was stored against, got another from element {start // width} on"
            )
        return [
            Part("checksum", BASE_CHECKSUM),
            *exact.decode(data[BASE_CHECKSUM:], entry.dtype, place, before),
        ]

    return out, [lambda number=number: task(number) for number in chosen]  # type: ignore[misc]


def shared_tasks(
    entry: layout.SharedEntry, book: Book, chosen: range, block: Callable[[int], memoryview]
) -> tuple[NDArray[Any], list[Task]]:
    """Where the indices of a shared tensor go, and what brings them there; see `exact_tasks`."""
    n, plan, size = math.prod(entry.shape), entry.plan, block_length(entry)
    first = chosen.start * size
    out = np.empty(max(min(n, chosen.stop * size) - first, 0), records.index_dtype(plan.entries))

    def task(number: int) -> list[Part]:
        place = out[number * size - first : (number + 1) * size - first]
        return blocks.decode(block(number), plan, book, entry.shape, number, place)

    return out, [lambda number=number: task(number) for number in chosen]  # type: ignore[misc]


def codebook(entry: layout.SharedEntry, data: bytes | memoryview) -> Book:
    """The codebook of a tensor, out of its bytes.

    Raises:
        CorruptError: if it has no zero, and the tensor leaves zeros out.
    """
    values = Book(np.frombuffer(data, dtypes.STORAGE[entry.dtype]), entry.dtype)
    if (entry.plan.sparse or entry.plan.arrangement == "trellis") and values.zero is None:
        raise CorruptError(
            f"expected an entry of 0.0 in a codebook of a tensor stored by {entry.plan.arrangement}"
        )
    return values


@dataclass(frozen=True)
class Inline:
    """A task that is carried out when its result is asked for."""

    task: Task

    def result(self) -> list[Part]:
        """Carry it out."""
        return self.task()


def submitted(tasks: Sequence[Task], submit: Callable[[Task], Future[list[Part]]] | None) -> list[Pending]:
    """Hand tasks to workers, or keep them for the caller's thread."""
    return [Inline(task) if submit is None else submit(task) for task in tasks]
