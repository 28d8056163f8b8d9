"""The `dwindle` command. Nothing heavy is imported until a command runs."""

from dwindle.cli.app import main

__all__ = ["main"]
