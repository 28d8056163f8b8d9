"""Uniform levels: a tensor's weights as whole multiples of one step.

At the rates that pay, a uniform quantizer whose levels go through an entropy coder is within a quarter of a
bit a weight of the best there is, and needs no codebook to speak of (Gish and Pierce 1968, "Asymptotically
efficient quantizing"). The codebooks of `kmeans` are for indices of a fixed width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes
from dwindle.errors import TensorError
from dwindle.records import MAX_ENTRIES, index_dtype

CHUNK = 1 << 20
"""Weights measured at once."""

LEAST_QUALITY, MOST_QUALITY = 0.0, 100.0
"""In dB: as much noise as signal, and less than float32 has."""

SIGNIFICANT = 6
"""Bits a step is rounded to, so that its multiples are exact in float32, and cheap to code."""


@dataclass(frozen=True)
class Signal:
    """What is to be known of a tensor for its step.

    Attributes:
        survivors: weights that are not zero.
        scale: how large these are: what would be the standard deviation if they were normal, by their mean
            absolute value, since a few outliers must not hide what all others are.
        largest: absolute value.
    """

    survivors: int
    scale: float
    largest: float

    @classmethod
    def of(cls, weights: NDArray[Any]) -> Signal:
        """Measure a tensor: float32 or float64, any shape.

        Raises:
            TensorError: if it holds NaN or infinite weights.
        """
        flat, total, largest = weights.reshape(-1), 0.0, 0.0
        for start in range(0, flat.size, CHUNK):
            part = np.abs(flat[start : start + CHUNK])
            total += float(part.sum(dtype=np.float64))
            largest = max(largest, float(part.max()))
        survivors = int(np.count_nonzero(flat))
        if not math.isfinite(total):
            raise TensorError("expected finite weights, got NaN or infinity")
        return cls(survivors, total / max(survivors, 1) * math.sqrt(math.pi / 2), largest)

    def step(self, noise: float) -> float:
        """The step whose error, spread evenly, is `noise` of the signal; 1.0 without survivors."""
        if not self.survivors:
            return 1.0
        return round_step(max(self.scale * math.sqrt(12 * noise), self.finest))

    @property
    def finest(self) -> float:
        """The least step, at which levels just fit a codebook, the step itself rounded."""
        return self.largest / (MAX_ENTRIES // 2 - MAX_ENTRIES // 64)


def step_sizes(signals: Mapping[str, Signal], quality: float) -> dict[str, float]:
    """A step for each tensor of a network, from one number.

    Quality is a ratio of signal to noise in decibels: the noise-to-signal ratios of all tensors add up to
    10 ** (-quality / 10), and each has a share in proportion to its weights that are not zero. So one more
    bit a weight, wherever it is, is 6.02 dB; and small tensors, such as depthwise kernels, are kept far more
    precisely than large ones, which costs next to nothing. It minimises the sum of the ratios at a given
    number of bits: the best there is to do where nothing is known of what each tensor matters.

    Args:
        signals: of each tensor, by name.
        quality: in dB; 25 is hard to tell from the original, 10 is rough.

    Returns:
        Step sizes by name, positive; 1.0 for tensors that are all zero.

    Raises:
        ValueError: if the quality is not from 0 to 100.
    """
    check_quality(quality)
    noise = 10.0 ** (-quality / 10) / max(sum(signal.survivors for signal in signals.values()), 1)
    return {name: signal.step(noise * signal.survivors) for name, signal in signals.items()}


def check_quality(quality: float) -> None:
    """Refuse a quality that is not from 0 to 100 dB, with a ValueError."""
    if not LEAST_QUALITY <= quality <= MOST_QUALITY:
        raise ValueError(f"expected a quality of {LEAST_QUALITY:g} to {MOST_QUALITY:g} dB, got {quality}")


def to_levels(
    weights: NDArray[Any], step: float, *, kept: NDArray[np.bool_] | None = None
) -> NDArray[np.int32]:
    """The nearest multiples of a step.

    Args:
        weights: float32 or float64, any shape.
        step: positive.
        kept: in the shape of `weights`; where it is false the level is 0.
    """
    # Steps of weights that are next to nothing have no float32.
    divisor = np.float64(step) if step < np.finfo(weights.dtype).tiny else weights.dtype.type(step)
    levels: NDArray[np.int32] = np.rint(weights / divisor).astype(np.int32)
    if kept is not None:
        levels *= kept
    return levels


def from_levels(levels: NDArray[np.int32], step: float, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Levels as a codebook of all multiples from the lowest to the highest, zero among them, and indices.

    Args:
        levels: any shape, at most 65,536 from the lowest to the highest, or to zero.
        step: positive.
        dtype: name of the dtype the codebook will be stored in; entries it cannot hold take its extremes.

    Returns:
        The codebook, float32, or float64 where `dtype` is that, shape (k,), ascending; and which entry each
        weight takes, C order, shape (n,), uint8 where k <= 256, else uint16.

    Raises:
        ValueError: if there are too many levels.
    """
    low = min(int(levels.min(initial=0)), 0)
    high = max(int(levels.max(initial=0)), 0)
    if high - low >= MAX_ENTRIES:
        raise ValueError(f"expected levels at most {MAX_ENTRIES - 1} apart, got {low} to {high}")
    wide = np.float64 if dtype == "float64" else np.float32
    with np.errstate(over="ignore"):
        values = dtypes.to_float(dtypes.from_float(np.arange(low, high + 1) * float(step), dtype), dtype)
    finite = values[np.isfinite(values)]
    values = np.clip(values, finite.min(), finite.max()).astype(wide)
    return values, (levels.reshape(-1) - low).astype(index_dtype(high - low + 1))


def round_step(step: float) -> float:
    """A step with few significant bits, at most 1.6 % away."""
    fraction, exponent = math.frexp(step)
    return math.ldexp(round(fraction * (1 << SIGNIFICANT)), exponent - SIGNIFICANT)
