"""Biases and norms with fewer significant bits.

They are few, but float32 in full costs a compressed network of convolutions as much as 7 % of its bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.dtypes import SHAREABLE

NAMED = re.compile(r"(weight|running_mean|running_var)$|bias")
"""What the names of vectors say that are rounded; of others, such as frequencies, it may be what counts."""

MARGIN = 37.0
"""How far the noise of vectors is below that of weights, in dB: a bias meets every output of its row."""

CALIBRATED = 6.0
"""How much less noise calibrated weights bring to the outputs, in dB; vectors have to keep up with them."""

LEAST, MOST = 5, 24

STATISTICS = 3
"""Significant bits of the running statistics of batch norms, whose scales and shifts make up for the rest."""

NORM = ("weight", "bias", "running_mean", "running_var")
"""The vectors of a batch norm: scale, shift, mean and variance."""


def significant_bits(quality: float, *, calibrated: bool = False) -> int:
    """How many significant bits vectors keep at a quality in dB (`levels.step_sizes`), from 5 to 24.

    Args:
        quality: of the weights.
        calibrated: whether they are rounded for the outputs.

    Rounded to b bits, values spread evenly over octaves have a signal 6.02 b + 8 dB above their noise.
    """
    margin = MARGIN + CALIBRATED if calibrated else MARGIN
    return min(max(math.ceil((quality + margin - 8) / 6.02), LEAST), MOST)


def is_vector(name: str, dimensions: int, dtype: str) -> bool:
    """Whether a tensor is rounded."""
    return dimensions == 1 and dtype in SHAREABLE and bool(NAMED.search(name.rpartition(".")[2]))


def round_significant(values: NDArray[Any], bits: int) -> NDArray[Any]:
    """Values rounded to so many significant bits; NaN and infinities as they are.

    Args:
        values: float32 or float64, any shape.
        bits: 1 or more.
    """
    scale = values.dtype.type(1 << bits)
    with np.errstate(over="ignore", invalid="ignore"):
        fraction, exponent = np.frexp(values)
        rounded = np.ldexp(np.rint(fraction * scale) / scale, exponent).astype(values.dtype)
    # The largest floats would round to infinity; and a NaN keeps its bits.
    return np.where(np.isfinite(rounded), rounded, values)


def bits_of_rounding(original: NDArray[Any], rounded: NDArray[Any]) -> int | None:
    """To how many significant bits, 24 or fewer, one array was rounded to be the other; None if it was not.

    Args:
        original: float32 or float64, any shape.
        rounded: of the same dtype and shape.
    """
    for bits in range(LEAST, MOST + 1):
        if np.array_equal(round_significant(original, bits), rounded, equal_nan=True):
            return bits
    return None


def is_taken_over(before: Sequence[NDArray[Any]], after: Sequence[NDArray[Any]]) -> bool:
    """Whether a batch norm was given coarse statistics, and computes what it did but for rounding.

    Args:
        before: its vectors in the order of `NORM`, floats of shape (channels,).
        after: likewise.

    What a norm adds to variances is not among its vectors; there must be a number that makes it right.
    """
    scale, shift, mean, variance = (values.astype(np.float64) for values in before)
    new_scale, new_shift, new_mean, new_variance = (values.astype(np.float64) for values in after)
    for old, new in ((before[2], after[2]), (before[3], after[3])):
        if not np.array_equal(round_significant(old, STATISTICS), new):
            return False
    least = 0.5**LEAST
    with np.errstate(all="ignore"):
        # One after the other: a file may call anything of any length a norm.
        for floor in (0.0, *np.logspace(-12, 0, 12 * 32 + 1)):
            wanted = scale * np.sqrt((new_variance + floor) / (variance + floor))
            moved = scale * (new_mean - mean) / np.sqrt(variance + floor)
            right = np.abs(new_scale - wanted) <= least * np.abs(new_scale)
            right &= np.abs(new_shift - shift - moved) <= least * (np.abs(new_shift) + np.abs(moved))
            if right.all():
                return True
    return False
