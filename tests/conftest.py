"""Settings of every test."""

import os
import sys

import pytest
from hypothesis import settings

from dwindle.cli import main
from dwindle.kernels import compiling

# Two workers run side by side on two cores; more threads than cores only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every run, and no deadline: the first call of a kernel compiles it.
settings.register_profile("dwindle", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("dwindle")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line in this process: its exit status, what it prints, what it says on the side."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["dwindle", *map(str, words)])
        monkeypatch.setattr(compiling, "tell", lambda call: None)  # which test is first to compile is chance
        try:
            main()
            status = 0
        except SystemExit as done:
            status = done.code or 0
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def refused(run):
    """Run a command line that must fail with status 2 and one line on standard error; that line."""

    def refused(*words, status=2):
        got, out, err = run(*words)
        assert (got, out) == (status, "")
        assert err.startswith("dwindle: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err.removeprefix("dwindle: ").rstrip("\n")

    return refused
