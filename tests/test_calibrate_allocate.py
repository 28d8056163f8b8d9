"""Steps from one budget: against closed forms, brute force, and curves that end."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwindle.calibrate.allocate import PARTS, Curve, cheapest


def high_rate(weights, spread, cost):
    """Bits and cost of a tensor whose errors are those of uniform rounding."""
    return lambda step: (
        weights * max(math.log2(spread / step), 0.0),
        weights * cost * min(step, spread) ** 2,
    )


def curves(*tensors, first=0.1, finest=1e-9):
    return {str(place): Curve(tensor, first, finest) for place, tensor in enumerate(tensors)}


def spent(tensors, steps):
    return sum(tensor(step)[0] for tensor, step in zip(tensors, steps.values(), strict=True))


def test_steps_are_in_inverse_proportion_to_the_root_of_costs():
    tensors = [high_rate(1000, 1.0, cost) for cost in (1.0, 100.0, 10_000.0)]
    steps = cheapest(curves(*tensors), 24_000)
    assert 24_000 * (1 - 0.05) < spent(tensors, steps) <= 24_000
    assert steps["0"] / steps["1"] == pytest.approx(10, rel=0.25)
    assert steps["1"] / steps["2"] == pytest.approx(10, rel=0.25)


@given(
    st.lists(st.tuples(st.integers(1, 400), st.floats(0.5, 2), st.floats(0.01, 100)), min_size=1, max_size=3),
    st.floats(0.5, 6),
)
def test_no_other_steps_of_as_many_bits_cost_less(described, bits):
    tensors = [high_rate(*one) for one in described]
    budget = bits * sum(one[0] for one in described)
    steps = cheapest(curves(*tensors), budget)
    used, cost = spent(tensors, steps), sum(t(s)[1] for t, s in zip(tensors, steps.values(), strict=True))
    assert used <= budget
    grid = [2.0 ** (place / PARTS) for place in range(-8 * PARTS, 2 * PARTS)]
    for other in itertools.product(grid[::2], repeat=len(tensors)):
        named = dict(zip(steps, other, strict=True))
        if spent(tensors, named) <= used:
            assert sum(t(s)[1] for t, s in zip(tensors, other, strict=True)) >= cost * (1 - 1e-9)


def test_measured_no_more_than_is_needed():
    asked = []

    def measure(step):
        asked.append(step)
        return high_rate(1000, 1.0, 1.0)(step)

    first = {"w": Curve(measure, 0.01, 1e-9)}
    cheapest(first, 6000)
    assert len(asked) == len(set(asked)) < 40
    before = len(asked)
    cheapest(first, 6000)
    assert len(asked) == before


def test_a_tensor_that_was_all_zero_comes_back():
    # The second is worth no bit at the first price looked at, and every bit at the last.
    tensors = [high_rate(1000, 1.0, 1.0), high_rate(10, 1.0, 1e-6)]
    both = curves(*tensors)
    assert cheapest(both, 100)["1"] >= 1
    steps = cheapest(both, 20_000)
    assert steps["1"] < 1


def test_budgets_out_of_reach():
    tensors = [high_rate(1000, 1.0, 1.0)]
    assert cheapest(curves(*tensors), 0)["0"] >= 1
    finest = cheapest(curves(*tensors, finest=0.01), 1e9)["0"]
    assert 0.01 <= finest < 0.012


def test_a_tensor_that_costs_nothing():
    steps = cheapest(curves(high_rate(1000, 1.0, 0.0), high_rate(1000, 1.0, 1.0)), 5000)
    assert spent([high_rate(1000, 1.0, 0.0), high_rate(1000, 1.0, 1.0)], steps) <= 5000
    assert steps["1"] < 0.1
