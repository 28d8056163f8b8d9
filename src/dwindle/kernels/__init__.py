"""Hot loops: NumPy arrays in and out, compiled by numba; nothing else."""

from __future__ import annotations

import atexit
import shutil
import tempfile

import numba


def _probe() -> None:
    """Compiled for nothing but to see whether there is a folder that numba can keep its cache in."""


try:
    numba.njit(cache=True)(_probe)
except RuntimeError:
    # Neither beside the package nor in a home: every process then compiles for itself.
    _folder = tempfile.mkdtemp(prefix="dwindle-")
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    numba.config.CACHE_DIR = _folder  # type: ignore[attr-defined]
