"""Which commands there are."""

from __future__ import annotations

from collections.abc import Callable

import typer

from dwindle.cli import compress, evaluate, files, train

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
        app.command()(command)
