"""Biases and norms with fewer significant bits.

They are few, but float32 in full costs a compressed network of convolutions as much as 7 % of its bytes.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.dtypes import SHAREABLE

NAMED = re.compile(r"(weight|running_mean|running_var)$|bias")
"""What the names of vectors say that are rounded; of others, such as frequencies, it may be what counts."""

MARGIN = 37.0
"""How far the noise of vectors is below that of weights, in dB: a bias meets every output of its row."""

LEAST, MOST = 5, 24


def significant_bits(quality: float) -> int:
    """How many significant bits vectors keep at a quality in dB (`levels.step_sizes`), from 5 to 24.

    Rounded to b bits, values spread evenly over octaves have a signal 6.02 b + 8 dB above their noise.
    """
    return min(max(math.ceil((quality + MARGIN - 8) / 6.02), LEAST), MOST)


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
