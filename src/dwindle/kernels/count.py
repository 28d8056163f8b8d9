"""Histograms of symbols. Callers check lengths; nothing is checked here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LANES = 8
"""Histograms filled in turn, so that equal neighbours don't wait for each other's increment."""


@njit(cache=True, nogil=True)
def count(symbols: NDArray[Any], lanes: NDArray[Any]) -> None:
    """Add occurrences, neighbouring symbols in different lanes.

    Args:
        symbols: uint8 or uint16, shape (n,).
        lanes: whole numbers, shape (LANES, more than the highest symbol), added to.
    """
    n = np.uint64(len(symbols))
    whole = n - n % np.uint64(LANES)
    for i in range(np.uint64(0), whole, np.uint64(LANES)):
        lanes[0, symbols[i]] += 1
        lanes[1, symbols[i + np.uint64(1)]] += 1
        lanes[2, symbols[i + np.uint64(2)]] += 1
        lanes[3, symbols[i + np.uint64(3)]] += 1
        lanes[4, symbols[i + np.uint64(4)]] += 1
        lanes[5, symbols[i + np.uint64(5)]] += 1
        lanes[6, symbols[i + np.uint64(6)]] += 1
        lanes[7, symbols[i + np.uint64(7)]] += 1
    for i in range(whole, n):
        lanes[0, symbols[i]] += 1
