"""Which commands there are."""

from __future__ import annotations

import functools
from collections.abc import Callable

import typer

from dwindle.cli import compress, evaluate, files, train
from dwindle.cli.output import say

COMMANDS: tuple[Callable[..., None], ...] = (
    compress.compress,
    files.decompress,
    files.inspect,
    files.verify,
    files.diff,
    train.train,
    evaluate.evaluate,
    evaluate.sensitivity,
    train.demo,
)


def register(app: typer.Typer) -> None:
    """Add every command to the application."""
    for command in COMMANDS:
        app.command()(_patient(command))


def _patient(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which says why it keeps waiting when it is the first to need a kernel."""

    @functools.wraps(command)
    def run(*words: object, **options: object) -> None:
        from dwindle.kernels import compiling

        compiling.tell(lambda: say("compiling what this needs on this machine, once: up to a minute"))
        command(*words, **options)

    return run
