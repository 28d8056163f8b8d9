"""The command's frame: options of every command, exit status, errors as one line."""

from __future__ import annotations

import sys
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
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command; --debug is read by `main`, where errors end."""


def main() -> None:
    """Run the command line: exit status 0 done, 1 a check failed, 2 bad input or usage."""
    from dwindle.cli import commands

    commands.register(app)
    try:
        app()
    except DwindleError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"dwindle: {' '.join(str(error).split())}", err=True)
        sys.exit(FAILED if isinstance(error, VerificationError) else BAD_INPUT)
    except KeyboardInterrupt:
        typer.echo("dwindle: interrupted", err=True)
        sys.exit(130)
