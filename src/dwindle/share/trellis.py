"""Levels along a trellis: up to 0.2 bits a weight fewer for the same error than of free levels.

What a scalar quantizer gives away, a quarter of a bit a weight against the best there is, is that it fills
space with cubes. Paths through a trellis fill it with rounder cells, of which an entropy coder takes the same
advantage (Fischer, Wang 1992, "Entropy-constrained trellis-coded quantization"); `kernels.trellis` has the
trellis. It goes down the columns of a matrix, so that rows are still decoded one after the other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.code.trellis import COLUMNS, columns_of
from dwindle.kernels import trellis as kernels
from dwindle.records import BLOCK, MAX_ENTRIES
from dwindle.share.levels import Signal, round_step

SCALE, COARSER = 0.575, 0.11
"""Steps of paths that come as near to weights as free levels of steps of 1, where steps are small; and what
is added for each time that the step holds the signal's scale: that 0 is in both kinds of states helps where
many weights are small. Fitted to normal and Laplace weights, for which it holds to a fiftieth."""

COARSEST = 3.0

WARM_UP = 8
"""Rows of more error, at the start of a path, that are as much as one more of all the error a row has."""

ROWS, ELEMENTS = 32, 1024
"""Fewest rows: a path begins in one state and has little choice at first. And fewest elements: the codes of
two kinds of states take longer to learn. Below, files of normal weights would grow, by up to 7 %."""

DENSE = 0.5
"""Least share of weights that are not zero: zeros have no choice, and other codes are better at them."""


def suits(shape: tuple[int, ...], signal: Signal) -> bool:
    """Whether paths gain anything on a tensor."""
    dense = signal.survivors >= DENSE * math.prod(shape) > 0
    long = len(shape) > 1 and shape[0] >= ROWS and math.prod(shape) >= ELEMENTS
    return long and columns_of(shape) <= COLUMNS and dense


def path_step(shape: tuple[int, ...], signal: Signal, step: float) -> float | None:
    """The step of paths that are as good as free levels of `step`; None where there is none or none suits."""
    length = min(shape[0], -(-BLOCK // columns_of(shape))) if len(shape) > 1 else 1
    scale = SCALE + COARSER * min(step / signal.scale, COARSEST) if signal.scale > 0 else SCALE
    finer = round_step(scale * step / math.sqrt(1 + WARM_UP / max(length, 1)))
    # Three levels at most are between a weight and the farthest that it may have to take.
    fits = signal.largest <= finer * (MAX_ENTRIES // 2 - 4)
    return finer if fits and suits(shape, signal) else None


def to_path(weights: NDArray[Any], step: float) -> NDArray[np.int32]:
    """The levels nearest to weights along the trellis; zeros stay zeros.

    Args:
        weights: float32 or float64, two or more dimensions: paths go down the columns of the matrix that has
            the first of them as its rows.
        step: between levels, positive.

    Returns:
        In the shape of the weights.
    """
    matrix = np.ascontiguousarray(weights).reshape(weights.shape[0], math.prod(weights.shape[1:]))
    levels = np.empty(matrix.shape, np.int32)
    kernels.nearest_paths(matrix, np.float64(step), levels, np.int64(BLOCK))
    return levels.reshape(weights.shape)


def column_to_path(weights: NDArray[np.float64], column: int, columns: int) -> NDArray[np.int32]:
    """Likewise for one column.

    Args:
        weights: in steps, shape (rows,).
        column: which it is.
        columns: how many there are.
    """
    levels = np.empty(weights.shape, np.int32)
    kernels.nearest_path(
        np.ascontiguousarray(weights), levels, np.int64(column), np.int64(columns), np.int64(BLOCK)
    )
    return levels
