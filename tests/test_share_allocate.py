"""Bits from a budget."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwindle.errors import TensorError
from dwindle.share.allocate import Point, allocate, hull, points
from dwindle.share.layer import assign_layer, squared_error

CHOICES = range(1, 5)


def layers():
    rng = np.random.default_rng(0)
    big = rng.laplace(size=(40, 50)).astype(np.float32)
    sparse = (rng.normal(size=3000) * (rng.random(3000) < 0.2)).astype(np.float32)
    return {"big": big, "sparse": sparse, "small": 0.1 * big[:4]}


def entropy(symbols):
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / len(symbols)
    return -(shares * np.log2(shares)).sum() * len(symbols)


@pytest.mark.parametrize("name", ["big", "sparse", "small"])
def test_points_are_what_sharing_then_costs(name):
    weights = layers()[name]
    for point, bits in zip(points(weights, CHOICES), CHOICES, strict=True):
        codebook, indices = assign_layer(weights, bits)
        assert point.bits == bits
        assert point.nbytes == pytest.approx(entropy(indices) / 8 + 4 * len(codebook))
        assert point.error == pytest.approx(squared_error(weights, codebook, indices), rel=1e-5)


def test_fixed_width_estimate():
    weights = layers()["sparse"]
    alive = np.count_nonzero(weights)
    (point,) = points(weights, [3], estimate="fixed")
    places = entropy((weights != 0).astype(int))
    assert point.nbytes == pytest.approx((alive * 3 + places) / 8 + 4 * 8)


def costs(tensors, bits):
    measured = {name: {p.bits: p for p in points(w, CHOICES)} for name, w in tensors.items()}
    chosen = [measured[name][width] for name, width in bits.items()]
    return sum(p.nbytes for p in chosen), sum(p.error for p in chosen)


def test_every_budget_it_spends_is_spent_best():
    """Against all choices: none within the bytes spent has less error."""
    tensors = layers()
    measured = {name: points(w, CHOICES) for name, w in tensors.items()}
    every = [
        (sum(p.nbytes for p in row), sum(p.error for p in row))
        for row in itertools.product(*measured.values())
    ]
    seen = set()
    for budget in np.linspace(min(every)[0], max(every)[0], 25):
        bits = allocate(tensors, budget, choices=CHOICES)
        nbytes, error = costs(tensors, bits)
        assert nbytes <= budget
        seen.add(tuple(bits.values()))
        within = min(e for b, e in every if b <= budget)
        steps = [a.error - b.error for row in measured.values() for a, b in itertools.pairwise(hull(row))]
        assert error <= within + max(steps)
    assert len(seen) > 5
    assert allocate(tensors, max(every)[0] + 1, choices=CHOICES) == dict.fromkeys(tensors, 4)


def test_importance_moves_bits():
    tensors = {"a": layers()["big"], "b": layers()["big"].copy()}
    budget = 2 * points(tensors["a"], [3])[0].nbytes + 10
    even = allocate(tensors, budget, choices=CHOICES)
    assert abs(even["a"] - even["b"]) <= 1
    uneven = allocate(tensors, budget, choices=CHOICES, importance={"b": 100.0})
    assert uneven["b"] > uneven["a"]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=10))
def test_hull(raw):
    choices = [Point(i, float(b), float(e)) for i, (b, e) in enumerate(raw)]
    line = hull(choices)
    assert set(line) <= set(choices)
    slopes = [(a.error - b.error) / (b.nbytes - a.nbytes) for a, b in itertools.pairwise(line)]
    assert all(slope > 0 for slope in slopes)
    assert slopes == sorted(slopes, reverse=True)
    for choice in choices:
        for slope in [0, *slopes]:
            best = min(p.error + slope * p.nbytes for p in line)
            assert choice.error + slope * choice.nbytes >= best - 1e-9


def test_degenerate_tensors():
    tensors = {
        "empty": np.zeros((0, 3), np.float32),
        "zeros": np.zeros(9, np.float32),
        "constant": np.full((3, 3), 2.0),
    }
    bits = allocate(tensors, 100)
    assert bits == dict.fromkeys(tensors, 1)
    assert allocate({}, 0) == {}


def test_refuses():
    tensors = layers()
    with pytest.raises(ValueError, match=r"expected a budget of at least \d+ bytes, got 10"):
        allocate(tensors, 10)
    with pytest.raises(TensorError, match="huge: expected the name of a tensor"):
        allocate(tensors, 1e6, importance={"huge": 1.0})
    with pytest.raises(TensorError, match="big: expected finite values"):
        allocate({"big": np.array([1, np.nan], np.float32)}, 1e6)
