"""How commands speak: tables and progress for people, one JSON object with --json."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; all processors without it.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]

PAUSE = 5.0
"""Seconds between lines of progress where there is no terminal."""


def print_json(value: object) -> None:
    """Print one JSON object on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str))


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1
) -> None:
    """Print a table; the first `left` columns are text, the others numbers."""
    from rich.console import Console
    from rich.table import Table

    # Tensor names are text, whatever they look like: no markup, no emoji, no control characters.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 200
    if title:
        # Not the table's own title, which would be broken to the table's width.
        console.print(title, soft_wrap=True, style="italic")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < left else "right", no_wrap=number >= left)
    for row in rows:
        table.add_row(*(text if text.isprintable() else ascii(text) for text in map(str, row)))
    console.print(table)


def say(text: str, *, quiet: bool = False) -> None:
    """Print a line of progress on standard error."""
    if not quiet:
        typer.echo(text, err=True)


@contextmanager
def progress(total: int | None, what: str, *, quiet: bool) -> Iterator[Callable[[str], Any]]:
    """A function to call after each step: a bar on a terminal, elsewhere a line now and then.

    Args:
        total: how many steps there will be, None if that is not known.
        what: what is being done.
        quiet: show nothing.
    """
    if quiet or not sys.stderr.isatty():
        counter, said = itertools.count(1), time.monotonic()
        end = "" if total is None else f"/{total}"

        def step(name: str) -> None:
            nonlocal said
            number = next(counter)
            if time.monotonic() - said >= PAUSE:
                said = time.monotonic()
                say(f"{what} {number}{end}: {name}", quiet=quiet)

        yield step
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda name: bar.update(task, advance=1, description=name)


def size(count: float) -> str:
    """Bytes with thousands separated."""
    return f"{count:,.0f}"
