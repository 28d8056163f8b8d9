"""Levels along a trellis: which levels an element may have depends on those before it in its column.

In half of the states levels are even, in the others odd or 0. So an element chooses among half of all levels,
which takes a bit less, and a path through the states is looked for along which hardly any level is farther
off than if all were open to it. A **number** counts the levels of a state: k is the level 2k, or 2k - 1
(2k + 1 if k is negative) in states of odd ones; whether it is odd decides on the next state.

Marcellin, Fischer 1990, "Trellis coded quantization of memoryless and Gauss-Markov sources"; the code is the
one of 32 states for amplitude modulation in Ungerboeck 1982, "Channel coding with multilevel/phase signals",
table I (parity checks 45 and 10, octal). That 0 is a level of every state is Joshi, Crump, Fischer 1995,
"Image subband coding using arithmetic coded trellis coded quantization".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

STATES = 32

ODD_NUMBER, ODD_STATE = np.uint8(0o10 >> 1), np.uint8(0o45 >> 1)
"""What an odd number, and a state of odd levels, turn over in the next state. States of odd levels are odd
numbers themselves."""

_HALF = STATES >> 1
_ONE = np.uint8(1)


@njit(cache=True, nogil=True, forceinline=True)
def following(state: np.uint8, number: np.int64) -> Any:
    """The state after a number."""
    turned = np.uint8(number & 1) * ODD_NUMBER ^ (state & _ONE) * ODD_STATE
    return np.uint8(state >> _ONE ^ turned)


@njit(cache=True, nogil=True)
def count_numbers(
    levels: NDArray[np.int32], start: np.int64, columns: np.int64, counts: NDArray[np.int64]
) -> Any:
    """Whether levels are a path down each column, all from state 0; if so, their numbers are counted.

    Args:
        levels: of consecutive elements in C order, shape (n,).
        start: place of the first in its tensor.
        columns: elements of a row of the tensor, at least 1.
        counts: added to, shape (2, 2 m + 1): how often each number from -m to m occurs in states of even
            levels and of odd ones; m is at least half the largest magnitude, rounded up.
    """
    middle = counts.shape[1] >> 1
    states = np.zeros(columns, np.uint8)
    column = start % columns
    for i in range(len(levels)):
        level, odd = np.int64(levels[i]), np.int64(states[column] & _ONE)
        if level != 0 and level & 1 != odd:
            return False
        number = (abs(level) + odd) >> 1
        counts[odd, middle + (number if level > 0 else -number)] += 1
        states[column] = following(states[column], number)
        column += 1
        if column == columns:
            column = np.int64(0)
    return True


@njit(cache=True, nogil=True, forceinline=True)
def _nearest(size: float, odd_state: int, odd_number: int) -> Any:
    """The nearest level to a magnitude among those of a kind of states and numbers."""
    offset = 3.0 - 2.0 * odd_number if odd_state else 2.0 * odd_number
    level = np.rint((size - offset) * 0.25) * 4.0 + offset
    if odd_state:
        # Below are negative levels, which are not of this kind; 0 is.
        level = max(level, offset)
        if not odd_number and size < 1.5:
            level = 0.0
    return level


@njit(cache=True, nogil=True, forceinline=True)
def _error(size: float, odd_state: int, odd_number: int) -> Any:
    off = size - _nearest(size, odd_state, odd_number)
    return off * off


@njit(cache=True, nogil=True)
def _viterbi(weights: NDArray[np.float64], levels: NDArray[np.int32]) -> None:
    """The path from state 0 with the least squared error; both of shape (n,)."""
    costs, after = np.full(STATES, np.inf), np.empty(STATES)
    costs[0] = 0.0
    ways = np.empty(len(weights), np.uint32)  # a bit for each state: whether an odd number led to it
    for i in range(len(weights)):
        size = abs(weights[i])
        even_even, even_odd = _error(size, 0, 0), _error(size, 0, 1)
        odd_even, odd_odd = _error(size, 1, 0), _error(size, 1, 1)
        if weights[i] == 0.0:
            even_odd = odd_odd = np.inf
        way = np.uint32(0)
        # Two states lead to each, both of even levels to the lower half, both of odd ones to the upper.
        for half in range(_HALF):
            by_even, by_odd = costs[half << 1] + even_even, costs[(half ^ 4) << 1] + even_odd
            after[half] = min(by_even, by_odd)
            way |= np.uint32(by_odd < by_even) << np.uint32(half)
        for half in range(_HALF):
            by_even, by_odd = costs[(half ^ 2) << 1 | 1] + odd_even, costs[(half ^ 6) << 1 | 1] + odd_odd
            after[_HALF + half] = min(by_even, by_odd)
            way |= np.uint32(by_odd < by_even) << np.uint32(_HALF + half)
        ways[i] = way
        costs, after = after, costs
    state = int(np.argmin(costs))
    for back in range(len(weights)):
        i = len(weights) - 1 - back
        odd_number, odd_state = int(ways[i] >> np.uint32(state)) & 1, state >> 4
        state = (state ^ int(ODD_STATE) * odd_state ^ int(ODD_NUMBER) * odd_number) << 1 | odd_state
        size = abs(weights[i])
        level = np.int32(_nearest(size, odd_state, odd_number)) if size != 0.0 else np.int32(0)
        levels[i] = level if weights[i] > 0.0 else -level


@njit(cache=True, nogil=True)
def nearest_path(
    weights: NDArray[np.float64],
    levels: NDArray[np.int32],
    column: np.int64,
    columns: np.int64,
    block: np.int64,
) -> None:
    """The path with the least squared error down one column, begun anew at every block.

    Args:
        weights: in steps, shape (rows,); those that are 0 get the level 0.
        levels: filled, shape (rows,).
        column: which of the tensor.
        columns: elements of a row of the tensor.
        block: elements of the tensor after which paths begin anew.
    """
    first, rows = np.int64(0), np.int64(len(weights))
    while first < rows:
        # The first row whose element here is of a later block.
        ending = ((first * columns + column) // block + np.int64(1)) * block
        last = min((ending - column + columns - np.int64(1)) // columns, rows)
        _viterbi(weights[first:last], levels[first:last])
        first = last


@njit(cache=True, nogil=True)
def nearest_paths(weights: NDArray[Any], step: float, levels: NDArray[np.int32], block: np.int64) -> None:
    """The paths down all columns of a matrix.

    Args:
        weights: floats, shape (rows, columns).
        step: between levels, positive.
        levels: filled, shape (rows, columns).
        block: see `nearest_path`.
    """
    rows, columns = weights.shape
    scaled, path = np.empty(rows), np.empty(rows, np.int32)
    for column in range(columns):
        for row in range(rows):
            scaled[row] = weights[row, column] / step
        nearest_path(scaled, path, np.int64(column), np.int64(columns), block)
        for row in range(rows):
            levels[row, column] = path[row]
