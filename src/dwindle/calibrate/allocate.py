"""Steps for all tensors of a network from one budget of bits, along what each of them costs at each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

PARTS = 4
"""Steps that are tried in an octave: between two of them next to nothing is to be gained."""

ROUNDS = 40
"""Most times the price of a bit is halved or doubled to meet a budget, and then narrowed down."""

CLOSE = 0.002
"""Share of the budget that may be left."""


class Curve:
    """What one tensor costs and takes at steps of 2 ** (place / PARTS), measured where it is asked for.

    Args:
        measure: bits and cost at a step.
        first: the step to start from.
        finest: the least step there is.
    """

    def __init__(self, measure: Callable[[float], tuple[float, float]], first: float, finest: float) -> None:
        self._measure = measure
        self._points: dict[int, tuple[float, float]] = {}
        self._least = math.ceil(PARTS * math.log2(finest)) if finest > 0 else None
        self.first = self._within(round(PARTS * math.log2(first)))

    def at(self, place: int) -> tuple[float, float]:
        """Bits and cost."""
        if place not in self._points:
            self._points[place] = self._measure(2.0 ** (place / PARTS))
        return self._points[place]

    def best(self, price: float) -> int:
        """The place of the least cost plus `price` times bits, downhill from the best that is known."""

        def total(place: int) -> float:
            bits, cost = self.at(place)
            return cost + price * bits

        # Not from where the last walk ended: where all weights are zero there is no slope.
        here = min(self._points or [self.first], key=total)
        for way in (1, -1):
            while total(there := self._within(here + way)) < total(here):
                here = there
        return here

    def _within(self, place: int) -> int:
        return place if self._least is None else max(place, self._least)


def cheapest(curves: Mapping[str, Curve], budget: float) -> dict[str, float]:
    """The step of each tensor at which all cost least together in at most so many bits.

    At one price of a bit every tensor takes the step where a finer one would not be worth its bits (Everett
    1963; Shoham and Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers"); the price is
    bisected. At high rates this is a step in inverse proportion to the root of what errors cost; at low ones
    many weights are zero, and neither errors nor bits follow that rule any more.

    Args:
        curves: by tensor name.
        budget: bits of all tensors. Where even the coarsest steps take more, those.
    """

    def bits(logarithm: float) -> float:
        return sum(curve.at(curve.best(2.0**logarithm))[0] for curve in curves.values())

    low = high = math.log2(_first_price(curves))
    # More is paid for a bit below than above: `low` spends over the budget, `high` within.
    for _ in range(ROUNDS):
        if bits(low) > budget:
            break
        low -= 1
    for _ in range(ROUNDS):
        if bits(high) <= budget:
            break
        high += 1
    for _ in range(ROUNDS):
        spent = bits(high)
        if budget - spent <= CLOSE * budget or high - low < CLOSE:
            break
        middle = (low + high) / 2
        low, high = (low, middle) if bits(middle) <= budget else (middle, high)
    return {name: 2.0 ** (curve.best(2.0**high) / PARTS) for name, curve in curves.items()}


def _first_price(curves: Mapping[str, Curve]) -> float:
    """About what a bit is worth where the curves begin."""
    bits, costs = zip(*(curve.at(curve.first) for curve in curves.values()), strict=True)
    return max(math.fsum(costs), 1e-30) / max(math.fsum(bits), 1.0)
