"""What commands say while they work."""

import numpy as np
from numba import njit

from dwindle.cli import output
from dwindle.kernels import compiling


def test_lines_of_progress_are_few_where_there_is_no_terminal(capsys, monkeypatch):
    with output.progress(3, "compressing", quiet=False) as step:
        for name in "abc":
            step(name)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(output, "PAUSE", 0.0)
    with output.progress(3, "compressing", quiet=False) as step:
        step("a")
        step("b")
    assert capsys.readouterr().err == "compressing 1/3: a\ncompressing 2/3: b\n"


def test_compiling_is_told_once_and_only_when_it_happens():
    told = []
    compiling.tell(lambda: told.append(True))

    @njit
    def twice(values):
        return values + values

    assert not told
    twice(np.ones(2))
    assert told == [True]
    twice(np.ones(2, np.float32))
    assert told == [True]
