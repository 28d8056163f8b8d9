"""The tables that commands print."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dwindle.cli.output import print_table, size

if TYPE_CHECKING:
    from dwindle.code.compare import Comparison
    from dwindle.file import Ledger

GAP_WIDTHS = range(2, 9)
"""Gap widths whose filler costs are printed; JSON has all."""


def ledger(title: str, book: Ledger) -> None:
    """Bytes by tensor, then by part."""
    rows = []
    for tensor in book.tensors:
        elements = math.prod(tensor.shape)
        density = "" if tensor.survivors is None or not elements else f"{tensor.survivors / elements:.1%}"
        rate = f"{tensor.original / tensor.size:.1f}x" if tensor.original and tensor.size else ""
        about = (tensor.name, tensor.dtype, "x".join(map(str, tensor.shape)), tensor.coding)
        rows.append((*about, tensor.entries or "", density, size(tensor.original), size(tensor.size), rate))
    header = ("tensor", "dtype", "shape", "coding", "entries", "density", "bytes", "in file", "rate")
    print_table(title, header, rows, left=4)
    used: dict[str, int] = {}
    bounds: dict[str, float] = {}
    for line in book.lines:
        used[line.part] = used.get(line.part, 0) + line.size
        if line.bound is not None:
            bounds[line.part] = bounds.get(line.part, 0.0) + line.bound
    parts = [
        (part, size(count), f"{count / book.file_size:.1%}", size(bounds[part]) if part in bounds else "")
        for part, count in used.items()
    ]
    parts.append(("all", size(book.file_size), "100.0%", ""))
    print_table("\nparts of the file", ("part", "bytes", "share", "entropy bound"), parts)


def comparison(table: Comparison) -> None:
    """Bytes of every tensor by every coding, then what fillers cost at each gap width."""
    from dwindle.code.compare import CODINGS

    rows = [
        (tensor.name, size(tensor.original), *(_cell(tensor.sizes.get(coding)) for coding in CODINGS))
        for tensor in table.tensors
    ]
    original = sum(tensor.original for tensor in table.tensors)
    rows.append(("all", size(original), *(size(table.total(coding)) for coding in CODINGS)))
    print_table("\nbytes by coding", ("tensor", "original", *CODINGS), rows)
    fillers = []
    for tensor in table.tensors:
        for width, cost in tensor.fillers.items():
            counts = (tensor.survivors, cost.actual, cost.best, cost.expected, cost.worst)
            if width in GAP_WIDTHS:
                fillers.append((tensor.name, width, *map(size, counts)))
    header = ("tensor", "gap bits", "survivors", "fillers", "best", "expected", "worst")
    print_table("\nfillers by gap width", header, fillers)


def _cell(value: float | None) -> str:
    return "" if value is None else size(value)
