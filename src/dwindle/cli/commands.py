"""Which commands there are."""

from __future__ import annotations

import typer

from dwindle.cli import files


def register(app: typer.Typer) -> None:
    """Add every command to the application."""
    for command in (files.inspect, files.verify, files.decompress):
        app.command()(command)
