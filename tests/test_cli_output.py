"""What commands say while they work."""

import subprocess
import sys
from pathlib import Path

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


def test_kernels_need_no_folder_for_a_cache():
    code = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = caching.CacheImpl._locator_classes[:1]  # that of NUMBA_CACHE_DIR
import numba
import numpy as np
from dwindle.kernels import words
assert words.put_varint(np.uint64(5), np.zeros(9, np.uint8), np.uint64(0)) == 1
print(numba.config.CACHE_DIR)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip()
    assert not Path(found.stdout.strip()).exists()
