"""What a search prints: a line for each thing it tries, over a bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int], None]
"""Called with a line for each thing tried, and the passes of training so far."""


@contextmanager
def shown(passes: int | None, *, quiet: bool) -> Iterator[Report]:
    """A function that prints to standard error.

    Args:
        passes: most passes of training; None if there are none.
        quiet: print nothing.
    """
    if quiet:
        yield lambda line, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not sys.stderr.isatty():
        yield lambda line, done: console.print(line, soft_wrap=True)
        return
    columns = (TextColumn("searching"), BarColumn(), MofNCompleteColumn(), TextColumn("passes"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=passes)

        def report(line: str, done: int) -> None:
            bar.console.print(line)
            bar.update(task, completed=done)

        yield report
