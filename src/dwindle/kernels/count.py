"""Histograms of symbols. Callers check lengths; nothing is checked here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LANES = 4
"""Histograms filled in turn, so that equal neighbours don't wait for each other's increment."""


@njit(cache=True, nogil=True)
def count(symbols: NDArray[Any], lanes: NDArray[np.uint64]) -> None:
    """Add occurrences, neighbouring symbols in different lanes.

    Args:
        symbols: uint8 or uint16, shape (n,).
        lanes: shape (LANES, 256 or 65536), added to.
    """
    n = np.uint64(len(symbols))
    one = np.uint64(1)
    whole = n - n % np.uint64(4)
    for i in range(np.uint64(0), whole, np.uint64(4)):
        lanes[0, symbols[i]] += one
        lanes[1, symbols[i + np.uint64(1)]] += one
        lanes[2, symbols[i + np.uint64(2)]] += one
        lanes[3, symbols[i + np.uint64(3)]] += one
    for i in range(whole, n):
        lanes[0, symbols[i]] += one
