"""The tables that commands print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from dwindle.cli.output import print_table, size

if TYPE_CHECKING:
    from dwindle.code.compare import Comparison
    from dwindle.file import Ledger
    from dwindle.outcome import Outcome
    from dwindle.train import Agreement
    from dwindle.verify import Difference, Distance

CHANGES = 100
"""Examples with another answer that are printed; JSON has all."""

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
    print_table("\nparts of the file", ("part", "bytes", "share", "zero-order entropy"), parts)


def changed(far: Distance) -> str:
    """How many elements of a tensor are others, in words."""
    share = far.changed / far.elements
    return f"{share:.1%} changed" if share >= 0.001 else f"{size(far.changed)} changed"


def differences(found: Sequence[Difference]) -> None:
    """A row for each tensor that is not the same in two files."""
    rows = []
    for difference in found:
        far = difference.distance
        if difference.kind == "differs" and far is not None:
            snr = "" if far.snr_db is None else f"{far.snr_db:.1f}"
            rows.append((difference.name, changed(far), f"{far.largest:.3g}", f"{far.rms:.3g}", snr))
        elif difference.kind != "same":
            both = " | ".join(side for side in (difference.left, difference.right) if side)
            rows.append((difference.name, f"{difference.kind}: {both}", "", "", ""))
    if rows:
        print_table("", ("tensor", "bits", "largest", "rms", "SNR dB"), rows, left=2)


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


def general(table: Mapping[str, Mapping[str, int]], stored: Mapping[str, int]) -> None:
    """Bytes of every tensor by general compressors, beside those in the file."""
    from dwindle.code.general import COMPRESSORS

    columns = ("original", *COMPRESSORS)
    rows = [
        (name, *(size(row[column]) for column in columns), size(stored[name])) for name, row in table.items()
    ]
    totals = [sum(row[column] for row in table.values()) for column in columns]
    rows.append(("all", *map(size, totals), size(sum(stored[name] for name in table))))
    print_table("\nabout what general compressors make of the values", ("tensor", *columns, "in file"), rows)


def layers(model: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The paper's table of layers, its own figures in brackets where it has the network."""
    from dwindle.report.paper import PAPER

    known = PAPER.get(model)
    table = []
    for row in rows:
        paper = known.layers.get(row["name"]) if known else None
        total = known.total if known and row["name"] == "all" else None
        density, shared, coded = (paper.density, paper.shared, paper.coded) if paper else total or [None] * 3
        gaps = row["gap_bits"]
        table.append(
            (
                row["name"],
                size(row["elements"]),
                _beside(f"{100 * row['density']:.1f} %", density),
                _beside(_arrow(row["index_bits"]), _arrow(paper.index_bits) if paper else None),
                _beside(_arrow(gaps) if gaps else "", _arrow(paper.gap_bits) if paper else None),
                f"{100 * row['pruned'] / row['original']:.2f} %",
                _beside(f"{100 * row['shared'] / row['original']:.2f} %", shared),
                _beside(f"{100 * row['coded'] / row['original']:.2f} %", coded),
                size(row["coded"]),
            )
        )
    header = ("layer", "weights", "density", "weight bits", "gap bits")
    sizes = ("pruned", "+ shared", "+ Huffman", "bytes")
    print_table(f"\n{model}, layer by layer (the paper's figures in brackets)", (*header, *sizes), table)


def outcome(model: str, result: Outcome) -> None:
    """Errors, agreement, sizes, and the test examples whose answer changed."""
    from dwindle.report.paper import PAPER

    known = PAPER.get(model)
    rows = [("test error before", f"{result.reference_error:.2f} %", known and f"{known.errors[0]:.2f} %")]
    if result.pruned_error is not None and result.parameters_left:
        left = f"{size(result.parameters_left)} ({result.parameters / result.parameters_left:.1f}x fewer)"
        rows.append(("parameters after pruning", left, known and size(known.pruned_parameters)))
        rows.append(
            ("test error after pruning", f"{result.pruned_error:.2f} %", known and f"{known.pruned_error} %")
        )
    rows += [
        ("test error of the file", f"{result.test_error:.2f} %", known and f"{known.errors[1]:.2f} %"),
        ("bytes of the file", size(result.ledger.file_size), known and size(known.file_bytes)),
        ("rate", f"{result.ledger.rate:.1f}x", known and f"{known.rate}x"),
    ]
    if result.same_predictions is not None:
        same = "yes" if result.same_predictions else "NO"
        rows.append(("file answers as the model in memory", same, ""))
    print_table("", ("", "here", "paper"), [(name, here, paper or "") for name, here, paper in rows])
    agreement(result.agreement)
    before = sum(change.before == change.label for change in result.changed)
    after = sum(change.after == change.label for change in result.changed)
    examples = size(result.agreement.examples)
    typer.echo(
        f"\n{len(result.changed)} of {examples} test {result.noun} changed their answer: "
        f"{after} are right now, {before} were right before"
    )
    changed = [(c.index, c.label, c.before, c.after) for c in result.changed[:CHANGES]]
    print_table("", (result.noun.removesuffix("s"), "true", "before", "after"), changed, left=0)
    if len(result.changed) > CHANGES:
        typer.echo(f"and {len(result.changed) - CHANGES:,} more")


def agreement(found: Agreement) -> None:
    """What two networks answer on the same examples."""
    rows = [
        (name, f"{top.before:.2f} %", f"{top.after:.2f} %", "{:+.2f} to {:+.2f}".format(*top.interval))
        for name, top in (("top-1 accuracy", found.top1), ("top-5 accuracy", found.top5))
        if top is not None
    ]
    header = ("", "before", "after", "95 % interval of the difference, points")
    print_table(f"\n{size(found.examples)} examples, before and after", header, rows)
    typer.echo(f"same answer on {found.same:.2f} %, mean divergence {found.divergence:.4g} nats")


def sensitivity(sparsities: Sequence[float], errors: Mapping[str, Sequence[float]], baseline: float) -> None:
    """Error against sparsity, a column for each layer."""
    rows = [
        (f"{100 * share:.0f} %", *(f"{line[at]:.2f} %" for line in errors.values()))
        for at, share in enumerate(sparsities)
    ]
    print_table(f"error; {baseline:.2f} % with every weight", ("removed", *errors), rows)


def _arrow(bits: Sequence[float]) -> str:
    return f"{bits[0]:.0f}->{bits[1]:.1f}"


def _beside(ours: str, paper: object) -> str:
    return ours if paper is None else f"{ours} ({paper})"


def _cell(value: float | None) -> str:
    return "" if value is None else size(value)
