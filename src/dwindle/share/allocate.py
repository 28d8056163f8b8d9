"""Bits for every tensor of a network from one budget in bytes."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dwindle.errors import TensorError
from dwindle.share.kmeans import kmeans
from dwindle.share.layer import survivors
from dwindle.share.starts import Init

Estimate = Literal["entropy", "fixed"]


@dataclass(frozen=True)
class Point:
    """One choice for one tensor.

    Attributes:
        bits: width of an index.
        nbytes: estimated bytes of indices, positions and codebook.
        error: squared error over all weights.
    """

    bits: int
    nbytes: float
    error: float


def points(
    weights: NDArray[Any],
    choices: Sequence[int] = range(1, 9),
    *,
    init: Init = "linear",
    seed: int = 0,
    estimate: Estimate = "entropy",
    itemsize: int = 4,
) -> list[Point]:
    """What each choice of bits costs a tensor in bytes and in error, measured by clustering it.

    Args:
        weights: float32 or float64, any shape; zeros are pruned weights.
        choices: bits to try, 1 to 16.
        init: see `kmeans`.
        seed: see `kmeans`.
        estimate: bytes of an index: its zero-order "entropy", or `bits` "fixed". Both add the entropy of
            which weights survive, and the codebook.
        itemsize: bytes of one codebook entry.
    """
    data = survivors(weights)
    alive = len(data.values)
    zeros = weights.size - alive
    place = entropy(np.array([zeros, alive]))
    found = []
    for bits in choices:
        clustering = kmeans(data, (1 << bits) - (zeros > 0), init=init, seed=seed)
        used = clustering.counts[clustering.counts > 0]
        index = entropy(used) if estimate == "entropy" else float(alive * bits)
        entries = len(used) + (zeros > 0)
        found.append(Point(bits, (place + index) / 8 + entries * itemsize, clustering.mse * alive))
    return found


def allocate(
    tensors: Mapping[str, NDArray[Any]],
    budget: float,
    *,
    importance: Mapping[str, float] | None = None,
    choices: Sequence[int] = range(1, 9),
    init: Init = "linear",
    seed: int = 0,
    estimate: Estimate = "entropy",
) -> dict[str, int]:
    """Bits by tensor name that leave the least squared error within a budget.

    Starts from the cheapest choice of every tensor, then takes step after step along the convex hulls of
    their points, the step that saves most error a byte first, while steps fit: optimal wherever the budget is
    spent exactly, and otherwise short of it by less than one step.

    Args:
        tensors: weights by name.
        budget: bytes for all of them, by `estimate`.
        importance: factors on the squared errors by name, positive; 1 for those not named.
        choices: bits to choose from, 1 to 16.
        init: see `kmeans`.
        seed: see `kmeans`.
        estimate: see `points`.

    Raises:
        TensorError: if a tensor holds NaN or infinite weights, or importance names none of them.
        ValueError: if even the cheapest choices exceed the budget.
    """
    factors = importance or {}
    for name in factors:
        if name not in tensors:
            raise TensorError(f"{name}: expected the name of a tensor to be shared, got another name")
    hulls: dict[str, list[Point]] = {}
    for name, weights in tensors.items():
        try:
            measured = points(
                weights, choices, init=init, seed=seed, estimate=estimate, itemsize=weights.itemsize
            )
        except TensorError as error:
            raise TensorError(f"{name}: {error}") from error
        hulls[name] = hull(measured)
    spent = sum(line[0].nbytes for line in hulls.values())
    if spent > budget:
        raise ValueError(f"expected a budget of at least {int(np.ceil(spent))} bytes, got {budget:g}")
    steps = [(-_slope(line, 0) * factors.get(name, 1.0), name, 0) for name, line in hulls.items()]
    heapq.heapify(steps)
    chosen = dict.fromkeys(hulls, 0)
    while steps:
        _, name, at = heapq.heappop(steps)
        line = hulls[name]
        if at + 1 == len(line) or spent + line[at + 1].nbytes - line[at].nbytes > budget:
            continue
        spent += line[at + 1].nbytes - line[at].nbytes
        chosen[name] = at + 1
        heapq.heappush(steps, (-_slope(line, at + 1) * factors.get(name, 1.0), name, at + 1))
    return {name: hulls[name][at].bits for name, at in chosen.items()}


def hull(choices: Sequence[Point]) -> list[Point]:
    """The lower convex hull: ever more bytes, ever less error, every step saving less error a byte."""
    line: list[Point] = []
    for point in sorted(choices, key=lambda choice: (choice.nbytes, choice.error)):
        if line and point.error >= line[-1].error:
            continue
        while len(line) > 1 and _rate(line[-1], point) >= _rate(line[-2], line[-1]):
            line.pop()
        line.append(point)
    return line


def _slope(line: list[Point], at: int) -> float:
    return _rate(line[at], line[at + 1]) if at + 1 < len(line) else 0.0


def _rate(left: Point, right: Point) -> float:
    """Error saved a byte."""
    return (left.error - right.error) / (right.nbytes - left.nbytes)


def entropy(counts: NDArray[np.int64]) -> float:
    """Zero-order entropy of symbols that occur so often, in bits for all of them together."""
    seen = counts[counts > 0].astype(np.float64)
    return float(seen @ (np.log2(seen.sum()) - np.log2(seen))) if len(seen) else 0.0
