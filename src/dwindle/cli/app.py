"""The command's frame: options of every command, exit status, errors as one line."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from dwindle import __version__
from dwindle.errors import DwindleError, VerificationError

FAILED, BAD_INPUT = 1, 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Make trained PyTorch networks small, and prove that they still work.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"dwindle {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere on the line.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command; --debug is read by `main`, where errors end."""


def main() -> None:
    """Run the command line: exit status 0 done, 1 a check failed, 2 bad input or usage."""
    from dwindle.cli import commands

    if not app.registered_commands:
        commands.register(app)
    words = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        app(words)
    except Exception as error:
        if len(words) < len(sys.argv) - 1:
            traceback.print_exc()
        typer.echo(f"dwindle: {' '.join(_said(error).split())}", err=True)
        sys.exit(FAILED if isinstance(error, VerificationError) else BAD_INPUT)


def _said(error: Exception) -> str:
    if isinstance(error, DwindleError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"expected enough memory, got too little: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {error}; --debug shows where"
